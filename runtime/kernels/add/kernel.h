// add: the residual addition of two s16 edges. docs/ARITHMETIC.md §10 is normative.
// All variants are bit-equal to the formula; none allocates or can fail.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"

namespace acorn::add {

/// y = sat16(RoundShift(a * a_multiplier + b * b_multiplier, shift))
/// y may be a or b itself (same pointer and stride); else the buffers are separate. No alignment beyond that of the types.
struct Args {
  int16_t *y;                           // [m, n]
  const int16_t *a;                     // [m, n]
  const int16_t *b;                     // [m, n]
  size_t y_stride, a_stride, b_stride;  // elements from row to row
  size_t m, n;
  int32_t a_multiplier, b_multiplier;
  int32_t shift;  // in [1, 62]
};

/// From this shift on a rounded sum stays within 2^30: |a * a_multiplier + b * b_multiplier| < 2^47.
constexpr int32_t kShiftTo31Bits = 17;

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

}  // namespace acorn::add
