#include "kernels/glu/kernel.h"
#include "kernels/simd_neon.h"
#include "kernels/table_neon.h"

namespace acorn::glu {
namespace {

// RoundShift(a * factor, shift), saturated to 32 bits, in two ways.
// The rounding doubling multiply is RoundShift(product, 31): a brings what the shift lacks as a power of two in 16 bits.
struct ShortScale {
  static constexpr int kLeastShift = 17, kLargestShift = 31;
  static bool Allows(int shift) { return shift >= kLeastShift && shift <= kLargestShift; }
  explicit ShortScale(int shift) : power(vdupq_n_s16(static_cast<int16_t>(1 << (31 - shift)))) {}
  S32x16 operator()(S16x16 a, S32x16 factor) const {
    S32x16 y = Multiply(a, {{power, power}});
    for (int i = 0; i < 4; ++i) y.v[i] = vqrdmulhq_s32(y.v[i], factor.v[i]);
    return y;
  }
  int16x8_t power;
};
struct AnyScale {
  explicit AnyScale(int shift) : scale(shift) {}
  S32x16 operator()(S16x16 a, S32x16 factor) const { return Apply(scale, Widen(a), factor); }
  WideScale scale;
};

template <typename Scale>
void Rows(const Args &args) {
  const Scale index_scale(args.index_shift), scale(args.shift);
  const int32x4_t m = vdupq_n_s32(args.index_multiplier);
  const S32x16 index_multiplier = {{m, m, m, m}};
  const int16_t *middle = args.table + 256;
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *gate = args.gate + row * args.gate_stride;
    const int16_t *up = args.up + row * args.up_stride;
    int16_t *y = args.y + row * args.y_stride;
    ForBlocks(args.n, [=](size_t i, size_t count) ACORN_INLINE_BODY {
      const S16x16 g = Load(gate + i, count);
      const S16x16 w = Narrow(index_scale(g, index_multiplier));
      const S16x16 t = {{Interpolate(middle, w.v[0]), Interpolate(middle, w.v[1])}};
      S32x16 activated = Multiply(g, t);
      for (int32x4_t &four : activated.v) four = vrshrq_n_s32(four, 8);
      StoreS16::Store(y + i, count, scale(Load(up + i, count), activated), 0);
    });
  }
}

}  // namespace

void RunNeon(const Args &args) {
  ShortScale::Allows(args.index_shift) && ShortScale::Allows(args.shift) ? Rows<ShortScale>(args) : Rows<AnyScale>(args);
}

}  // namespace acorn::glu
