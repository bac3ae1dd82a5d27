// glu: the gated activation between two linear layers, activation(gate) * up. docs/ARITHMETIC.md §8 is normative.
// All variants are bit-equal to the formula; none allocates or can fail.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"

namespace acorn::glu {

constexpr size_t kTableElems = 514;

/// w = clamp(RoundShift(gate * index_multiplier, index_shift), -32768, 32767) + 32768
/// t = table[w >> 7] + RoundShift((table[(w >> 7) + 1] - table[w >> 7]) * (w & 127), 7)
/// y = sat16(RoundShift(RoundShift(gate * t, 8) * up, shift))
/// y may be gate or up itself (same pointer and stride); else the buffers are separate. No alignment beyond that of the types.
struct Args {
  int16_t *y;                               // [m, n]
  const int16_t *gate;                      // [m, n]
  const int16_t *up;                        // [m, n]
  size_t y_stride, gate_stride, up_stride;  // elements from row to row
  size_t m, n;
  const int16_t *table;  // [kTableElems], Q15: activation(x) / x at x = (i - 256) / 16
  int32_t index_multiplier;
  int32_t index_shift;  // in [1, 62]
  int32_t shift;        // in [1, 62]
};

/// From this shift on a rounded product stays within 2^30: |RoundShift(gate * t, 8) * up| < 2^38.
constexpr int32_t kShiftTo31Bits = 8;

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

/// A magnitude of gates, at most 32768: a gate clamped to it has the same w, and its rounded product with the index multiplier is
/// below 2^31 in magnitude. Smaller than 32768 where w saturates earlier.
int32_t SaturatingGate(int32_t index_multiplier, int32_t index_shift);

}  // namespace acorn::glu
