#include "kernels/conv/kernel.h"
#include "kernels/simd_neon.h"
#include "kernels/table_neon.h"

namespace acorn::conv {

void RunNeon(const Args &args) {
  const WideScale scale(args.shift), index_scale(args.index_shift);
  const int16_t *middle = args.table + 256;
  for (size_t r = 0; r < args.m; ++r) {
    const int16_t *rows[kMaxTaps] = {};
    for (size_t j = 0; j < args.taps; ++j) rows[j] = RowBefore(args, r, args.taps - 1 - j);
    int16_t *y = args.y + r * args.y_stride;
    ForBlocks(args.n, [=](size_t c, size_t count) ACORN_INLINE_BODY {
      S32x16 acc = Load(args.bias + c, count);
      for (size_t j = 0; j < args.taps; ++j) {
        acc = MultiplyAdd(acc, Load(rows[j] + c, count), Load(args.weights + j * args.parameter_stride + c, count));
      }
      S16x16 v = Narrow(Apply(scale, acc, Load(args.multiplier + c, count)));
      for (int16x8_t &eight : v.v) eight = vmaxq_s16(eight, vdupq_n_s16(-32767));
      const S16x16 w = Narrow(Apply(index_scale, Widen(v), Load(args.index_multiplier + c, count)));
      // The rounding doubling multiply of 16 bits is RoundShift(product, 15).
      const S16x16 out = {{vqrdmulhq_s16(v.v[0], Interpolate(middle, w.v[0])), vqrdmulhq_s16(v.v[1], Interpolate(middle, w.v[1]))}};
      StoreS16::Store(y + c, count, Widen(out), 0);
    });
  }
  KeepHistory(args);
}

}  // namespace acorn::conv
