// layernorm: s16 rows to s8 or s16: exact mean and variance, an integer reciprocal square root, gain and bias.
// docs/ARITHMETIC.md §4.2 is normative. All variants are bit-equal to the formula; none allocates or can fail.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"

namespace acorn::layernorm {

/// For each row, and in it for each of `groups` parts of D = depth values:
///   s    = sum of x[i];  d[i] = D * x[i] - s                                    |d| < 2^29
///   n    = D * sum of x[i]^2 - s^2 + eps_term                                   below 2^61;  n = 0: z[i] = 0
///   z[i] = RoundShift(d[i] * r, 24 + e)   r, e of rmsnorm::RootOf(n)            d / sqrt(n) in Q20, |z| < 2^27
///   y[i] = clamp(RoundShift(z[i] * gamma[i] + bias[i] * 2^15, shift) + zero_point)
/// clamped to +-127 (s8) or +-32767 (s16).  x and y are separate buffers; no alignment beyond that of the types is needed.
struct Args {
  void *y;           // [m, groups, depth] of the output type
  const int16_t *x;  // [m, groups, depth]
  size_t y_stride;   // elements from row to row
  size_t x_stride;   // elements from row to row
  size_t m, groups;
  size_t depth;          // at most 8192
  const int16_t *gamma;  // [groups, depth]
  const int32_t *bias;   // [groups, depth]
  uint64_t eps_term;     // below 2^60
  int32_t shift;         // in [1, 62]
  int32_t zero_point;    // s8: in [-127, 127]; s16: 0
};

constexpr int kBiasShift = 15;

/// From this shift on a rounded value stays within 2^30: |z * gamma + bias * 2^15| <= 2^27 * 2^15 + 2^31 * 2^15 < 2^47.
constexpr int32_t kShiftTo31Bits = 17;

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

/// Of a part: what its deviations are taken from and multiplied with:  z = RoundShift((D * x - sum) * multiplier, shift)
struct Normaliser {
  int32_t sum;
  int32_t multiplier;  // 0, or in [2^29, 2^30]
  int32_t shift;       // in [10, 40]
};

/// sum: of a part's values;  squares: of their squares
Normaliser NormaliserOf(int32_t sum, uint64_t squares, const Args &args);

}  // namespace acorn::layernorm
