// requantise: int32 (or two-row int64) accumulators to s8, s16 or s32 activations; the last step of every linear layer.
// All variants are bit-equal to the formula; none allocates or can fail.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"

namespace acorn::requantise {

/// sum     = acc[m][n] + bias[n]                             one row: |sum| < 2^31
///         = 128 * acc[m][n] + acc_low[m][n] + bias[n]       two rows (15-bit input x = 128 * hi + lo): |sum * multiplier| < 2^62
/// y[m][n] = clamp(RoundShift(sum * multiplier[n], shift) + zero_point)
/// clamped to +-127 (s8), +-32767 (s16), +-2147483647 (s32).  The compiler bounds the sums; kernels do not check.
/// acc, acc_low and y are separate buffers; no alignment is needed.
struct Args {
  void *y;                 // [m, n] of the output type
  const int32_t *acc;      // [m, n]; two rows: the products of the high parts
  const int32_t *acc_low;  // [m, n] two rows: the products of the low parts; the one-row functions ignore it
  size_t acc_stride;       // elements, of acc and acc_low
  size_t y_stride;         // elements
  size_t m, n;
  const int32_t *bias;        // [n]; null: 0
  const int32_t *multiplier;  // [n]
  int32_t shift;              // in [1, 62]
  int32_t zero_point;         // s8: in [-127, 127]; s16, s32: 0
};

using Function = void (*)(const Args &args);

/// One variant of the family.
struct Kernel {
  const char *name;
  uint32_t needs;                                 // Feature bits
  Function s8, s16, s32;                          // one row
  Function two_row_s8, two_row_s16, two_row_s32;  // two rows
};

/// Every variant of this build, best first, scalar last.
Span<const Kernel> Kernels();

/// The best variant for a set of Feature bits; never null.
const Kernel *Select(uint32_t features);

}  // namespace acorn::requantise
