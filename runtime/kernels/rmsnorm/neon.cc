#include "kernels/rmsnorm/kernel.h"
#include "kernels/simd_neon.h"

namespace acorn::rmsnorm {
namespace {

uint64_t SumOfSquares(const int16_t *x, size_t depth) {
  uint64x2_t sum = vdupq_n_u64(0);
  ForBlocks(depth, [&](size_t i, size_t count) ACORN_INLINE_BODY {
    const S16x16 v = Load(x + i, count);
    for (const int16x8_t eight : v.v) {
      // u32: two squares of 2^30 each
      const int32x4_t squares = vmlal_high_s16(vmull_s16(vget_low_s16(eight), vget_low_s16(eight)), eight, eight);
      sum = vpadalq_u32(sum, vreinterpretq_u32_s32(squares));
    }
  });
  return vaddvq_u64(sum);
}

template <typename Output, typename Scale>
void Normalise(typename Output::Type *y, const int16_t *x, const Args &args, const Reciprocal &reciprocal) {
  const Scale scale(reciprocal.shift);
  const int32x4_t factor = vdupq_n_s32(reciprocal.multiplier);
  const int16_t *gamma = args.gamma;
  const int32_t zero_point = args.zero_point;
  ForBlocks(args.depth, [=](size_t i, size_t count) ACORN_INLINE_BODY {
    const S32x16 scaled = Multiply(Load(x + i, count), Load(gamma + i, count));
    Output::Store(y + i, count, Apply(scale, scaled, factor), zero_point);
  });
}

template <typename Output>
void Rows(const Args &args) {
  for (size_t row = 0; row < args.m; ++row) {
    for (size_t group = 0; group < args.groups; ++group) {
      const int16_t *x = args.x + row * args.x_stride + group * args.depth;
      auto *y = static_cast<typename Output::Type *>(args.y) + row * args.y_stride + group * args.depth;
      const Reciprocal reciprocal = ReciprocalRoot(SumOfSquares(x, args.depth) + args.eps_term, args);
      if (reciprocal.shift >= HighScale::kLeastShift) {
        Normalise<Output, HighScale>(y, x, args, reciprocal);
      } else {
        Normalise<Output, WideScale>(y, x, args, reciprocal);  // shift 0 comes with multiplier 0 and gives 0
      }
    }
  }
}

}  // namespace

void RunS8Neon(const Args &args) { Rows<StoreS8>(args); }
void RunS16Neon(const Args &args) { Rows<StoreS16>(args); }

}  // namespace acorn::rmsnorm
