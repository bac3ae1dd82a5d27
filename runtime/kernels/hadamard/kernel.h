// hadamard: s16 rows through a block Hadamard transform to s8 or s15; a block of 1 is a plain requantisation.
// docs/ARITHMETIC.md §9 is normative. All variants are bit-equal to the formula; none allocates or can fail.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"

namespace acorn::hadamard {

constexpr size_t kMaxBlock = 1024;

/// For each block of `block` values of each row:
///   h[i] = sum over j of x[j] * (-1)^popcount(i & j)            s32, i and j in [0, block)
///   y[i] = clamp(RoundShift(h[i] * multiplier, shift) + zero_point)
/// clamped to +-127 (s8) or [-16320, 16319] (s15).  x and y are separate buffers; no alignment beyond that of the types.
struct Args {
  void *y;           // [m, n] of the output type; s15 is stored in 16 bits
  const int16_t *x;  // [m, n]
  size_t y_stride;   // elements from row to row
  size_t x_stride;   // elements from row to row
  size_t m;
  size_t n;      // a multiple of block
  size_t block;  // a power of two in [1, kMaxBlock]
  int32_t multiplier;
  int32_t shift;       // in [1, 62]
  int32_t zero_point;  // s8: in [-127, 127]; s15: 0
};

/// From this shift on a rounded value stays within 2^30: |h| <= 2^25 and |multiplier| <= 2^31.
constexpr int32_t kShiftTo31Bits = 26;

using Run = void (*)(const Args &args);

/// One variant of the family.
struct Kernel {
  const char *name;
  uint32_t needs;  // Feature bits
  Run s8, s15;     // by output type
};

/// All variants, best first, scalar last.
Span<const Kernel> Kernels();

/// The best variant for a set of Feature bits; never null.
const Kernel *Select(uint32_t features);

}  // namespace acorn::hadamard
