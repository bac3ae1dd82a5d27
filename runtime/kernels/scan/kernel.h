// scan: the recurrence of a state-space layer, one head or some of its channels. docs/ARITHMETIC.md §15.2 is normative.
// All variants are bit-equal to the formula; none allocates or can fail.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/fixed_point.h"
#include "base/span.h"

namespace acorn::scan {

constexpr size_t kTableElems = 1025;
constexpr size_t kMaxStateColumns = 1024;

/// What a head does with the size of a step.
struct Head {
  int32_t dt_multiplier, dt_shift, dt_bias;
  const int32_t *table;  // [kTableElems], log(1 + e^(-i / 64)) in Q24
  int32_t dt_least, dt_most;
  int32_t decay_multiplier, decay_shift;
  int32_t input_multiplier, input_shift;
};

/// For row r:
///   {decay, input} = StepOf(head, dt[r])
///   w[p]           = sat31(RoundShift(x[r][p] * input, 15))
///   state[p][n]    = sat31(RoundShift(state[p][n] * decay, 30) + RoundShift(b[r][n] * w[p], 15))
///   y[r][p]        = sat16(RoundShift(sum over n of c[r][n] * state[p][n] + skip * x[r][p], out_shift))
/// one row after the other. The buffers are separate. No alignment beyond that of the types. Calls for different channels may run at
/// the same time.
struct Args {
  int16_t *y;        // [m, channels], as x
  const int16_t *x;  // [m, channels / run, run]
  const int16_t *b;  // [m, n]
  const int16_t *c;  // [m, n]
  const int16_t *dt;  // [m]
  size_t y_stride, x_stride, b_stride, c_stride, dt_stride;  // elements from row to row
  size_t run, run_step;  // channels that lie side by side, which divide them all; elements of x and y from run to run
  int32_t *state;        // [channels, n], each in +-(2^30 - 1)
  size_t state_stride;   // elements from channel to channel
  size_t m, channels, n;  // n in [1, kMaxStateColumns]
  Head head;
  int64_t skip;       // at most 2^46
  int32_t out_shift;  // in [1, 62]
};

using Run = void (*)(const Args &args);

/// One variant of the family.
struct Kernel {
  const char *name;
  uint32_t needs;  // Feature bits
  Run run;
};

/// All variants, best first, scalar last.
Span<const Kernel> Kernels();

/// The best variant for a set of Feature bits; never null.
const Kernel *Select(uint32_t features);

/// softplus(raw * dt_multiplier / 2^dt_shift + dt_bias) in Q24, between the limits: v, q and dt of the formula.
int32_t StepSize(const Head &head, int16_t raw);

/// Calls body(channel, its place in a row of x and of y). Static: a copy compiled for one instruction set must not serve all.
template <typename Body>
static inline void ForChannels(const Args &args, const Body &body) {
  for (size_t channel = 0, place = 0; channel < args.channels; place += args.run_step) {
    for (size_t i = 0; i < args.run; ++i, ++channel) body(channel, place + i);
  }
}

/// What a token does to its head.
struct Step {
  int32_t decay;  // a: in [0, 2^30)
  int64_t input;  // k: in [0, 2^46)
};
Step StepOf(const Head &head, int16_t raw);

/// Of states and of w: sat31 of the formula.
constexpr int32_t kStateLimit = (1 << 30) - 1;

/// w of the formula.
static inline int32_t InputOf(const Step &step, int16_t x) {
  return static_cast<int32_t>(Clamp(RoundShift(x * step.input, 15), -kStateLimit, kStateLimit));
}

/// y of the formula.  sum: of c * state
static inline int16_t OutputOf(const Args &args, int64_t sum, int16_t x) {
  return SaturateS16(RoundShift(sum + args.skip * x, args.out_shift));
}

}  // namespace acorn::scan
