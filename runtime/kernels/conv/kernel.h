// conv: a short causal convolution of each column with its past, and an activation by table. docs/ARITHMETIC.md §15.1 is
// normative. All variants are bit-equal to the formula; none allocates or can fail.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"

namespace acorn::conv {

constexpr size_t kTableElems = 514;
constexpr size_t kMaxTaps = 8;

/// For row r and column c, where rows before the first are those of `history`, the youngest last:
///   acc = sum over j of weights[j][c] * x[r - taps + 1 + j][c]
///   v   = sat16(RoundShift((acc + bias[c]) * multiplier[c], shift))
///   w   = clamp(RoundShift(v * index_multiplier[c], index_shift), -32768, 32767) + 32768
///   t   = table[w >> 7] + RoundShift((table[(w >> 7) + 1] - table[w >> 7]) * (w & 127), 7)
///   y   = RoundShift(v * t, 15)
/// and then history is what stands before row m. |acc + bias[c]| < 2^31. The buffers are separate. No alignment beyond that of the
/// types. Calls for different columns may run at the same time.
struct Args {
  int16_t *y;        // [m, n]
  const int16_t *x;  // [m, n]
  int16_t *history;  // [taps - 1, n]
  size_t y_stride, x_stride;
  size_t parameter_stride;  // elements from row to row of history and weights
  size_t m, n, taps;        // taps in [2, kMaxTaps]
  const int16_t *weights;           // [taps, n]
  const int32_t *bias;              // [n]
  const int32_t *multiplier;        // [n], in [0, 2^31)
  const int32_t *index_multiplier;  // [n], the same
  int32_t shift, index_shift;       // in [1, 62]
  const int16_t *table;             // [kTableElems], as glu's
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

/// The row that stands `back` rows before row r of the input.  back in [0, taps - 1]. Static: a copy compiled for one instruction
/// set must not serve all.
static inline const int16_t *RowBefore(const Args &args, size_t r, size_t back) {
  return r >= back ? args.x + (r - back) * args.x_stride : args.history + (args.taps - 1 + r - back) * args.parameter_stride;
}

/// The last step of every variant: history becomes the taps - 1 rows before row m.
void KeepHistory(const Args &args);

}  // namespace acorn::conv
