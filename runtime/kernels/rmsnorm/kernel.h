// rmsnorm: s16 rows to s8 or s16, normalised by an integer reciprocal square root. docs/ARITHMETIC.md §4 is normative.
// All variants are bit-equal to the formula; none allocates or can fail.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"

namespace acorn::rmsnorm {

/// For each row, and in it for each of `groups` parts of `depth` values:
///   n    = sum of x[i]^2 + eps_term                        n = 0: y[i] = zero_point
///   e    = (bits(n) - 29) >> 1;  v = n / 4^e               in [2^28, 2^30)
///   R    = RoundShift(Rsqrt(v) * multiplier, 31)           Rsqrt(v) ~ 2^30 * sqrt(2^28 / v)
///   y[i] = clamp(RoundShift(x[i] * gamma[i] * R, shift + 13 + e) + zero_point)   a shift above 62: y[i] = zero_point
/// clamped to +-127 (s8) or +-32767 (s16).  x and y are separate buffers; no alignment beyond that of the types is needed.
struct Args {
  void *y;           // [m, groups, depth] of the output type
  const int16_t *x;  // [m, groups, depth]
  size_t y_stride;   // elements from row to row
  size_t x_stride;   // elements from row to row
  size_t m, groups, depth;
  const int16_t *gamma;  // [depth]
  uint64_t eps_term;
  int32_t multiplier;  // in [2^30, 2^31)
  int32_t shift;       // in [2, 49]
  int32_t zero_point;  // s8: in [-127, 127]; s16: 0
};

/// From this shift on a rounded value stays within 2^30: |x * gamma| <= 2^30 and R <= 2^30.
constexpr int32_t kShiftTo31Bits = 30;

using Run = void (*)(const Args &args);

/// One variant of the family.
struct Kernel {
  const char *name;
  uint32_t needs;  // Feature bits
  Run s8, s16;     // by output type
};

/// All variants, best first, scalar last.
Span<const Kernel> Kernels();

/// The best variant for a set of Feature bits; never null.
const Kernel *Select(uint32_t features);

/// What a group's values are multiplied with: RoundShift(x * gamma * multiplier, shift).  shift 0: the output is the zero point
struct Reciprocal {
  int32_t multiplier;  // in [0, 2^30]
  int32_t shift;       // 0, or in [1, 62]
};

/// The formula's R and its shift.  n = sum of squares + eps_term
Reciprocal ReciprocalRoot(uint64_t n, const Args &args);

/// 1 / sqrt(n) as r / 2^(44 + e):  e = (bits(n) - 29) >> 1,  r = Rsqrt(n / 4^e)
struct Root {
  int64_t r;  // in [2^29, 2^30]
  int e;      // in [-14, 17]
};
/// n not 0
Root RootOf(uint64_t n);

/// Rsqrt of the formula.  v in [2^28, 2^30); result in [2^29, 2^30], relative error below 2e-7
uint64_t Rsqrt(uint64_t v);

}  // namespace acorn::rmsnorm
