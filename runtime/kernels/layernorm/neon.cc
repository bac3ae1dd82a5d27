#include "kernels/layernorm/kernel.h"
#include "kernels/simd_neon.h"

namespace acorn::layernorm {
namespace {

Normaliser Measure(const int16_t *x, const Args &args) {
  int32x4_t sum = vdupq_n_s32(0);
  uint64x2_t squares = vdupq_n_u64(0);
  ForBlocks(args.depth, [&](size_t i, size_t count) ACORN_INLINE_BODY {
    const S16x16 v = Load(x + i, count);
    for (const int16x8_t eight : v.v) {
      // u32: two squares of 2^30 each
      const int32x4_t pairs = vmlal_high_s16(vmull_s16(vget_low_s16(eight), vget_low_s16(eight)), eight, eight);
      squares = vpadalq_u32(squares, vreinterpretq_u32_s32(pairs));
      sum = vpadalq_s16(sum, eight);
    }
  });
  return NormaliserOf(vaddvq_s32(sum), vaddvq_u64(squares), args);
}

// z * gamma + bias * 2^15, rounded, saturated to 32 bits.
inline int32x4_t Slope(const WideScale &finish, int32x4_t z, int32x4_t gamma, int32x4_t bias) {
  const int64x2_t low = vshll_n_s32(vget_low_s32(bias), kBiasShift), high = vshll_high_n_s32(bias, kBiasShift);
  return finish.Shift(vmlal_s32(low, vget_low_s32(z), vget_low_s32(gamma)), vmlal_high_s32(high, z, gamma));
}

template <typename Output, typename Scale>
void Normalise(typename Output::Type *y, const int16_t *x, const int16_t *gamma, const int32_t *bias, const Args &args,
               const Normaliser &normaliser) {
  const Scale scale(normaliser.shift);
  const WideScale finish(args.shift);
  const int16x8_t depth = vdupq_n_s16(static_cast<int16_t>(args.depth));
  const int32x4_t sum = vdupq_n_s32(normaliser.sum), factor = vdupq_n_s32(normaliser.multiplier);
  const int32_t zero_point = args.zero_point;
  ForBlocks(args.depth, [=](size_t i, size_t count) ACORN_INLINE_BODY {
    const S32x16 deviations = Subtract(Multiply(Load(x + i, count), S16x16{{depth, depth}}), S32x16{{sum, sum, sum, sum}});
    const S32x16 z = Apply(scale, deviations, factor), g = Widen(Load(gamma + i, count)), b = Load(bias + i, count);
    const S32x16 sloped = {{Slope(finish, z.v[0], g.v[0], b.v[0]), Slope(finish, z.v[1], g.v[1], b.v[1]),
                            Slope(finish, z.v[2], g.v[2], b.v[2]), Slope(finish, z.v[3], g.v[3], b.v[3])}};
    Output::Store(y + i, count, sloped, zero_point);
  });
}

template <typename Output>
void Rows(const Args &args) {
  for (size_t row = 0; row < args.m; ++row) {
    for (size_t group = 0; group < args.groups; ++group) {
      const size_t first = group * args.depth;
      const int16_t *x = args.x + row * args.x_stride + first;
      auto *y = static_cast<typename Output::Type *>(args.y) + row * args.y_stride + first;
      const Normaliser normaliser = Measure(x, args);
      if (normaliser.shift >= HighScale::kLeastShift) {
        Normalise<Output, HighScale>(y, x, args.gamma + first, args.bias + first, args, normaliser);
      } else {
        Normalise<Output, WideScale>(y, x, args.gamma + first, args.bias + first, args, normaliser);
      }
    }
  }
}

}  // namespace

void RunS8Neon(const Args &args) { Rows<StoreS8>(args); }
void RunS16Neon(const Args &args) { Rows<StoreS16>(args); }

}  // namespace acorn::layernorm
