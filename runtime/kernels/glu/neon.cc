#include "kernels/glu/kernel.h"
#include "kernels/simd_neon.h"

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

// Two neighbours of the table in one load.  offset_bytes: of the first one, from the middle
int32_t Pair(const int16_t *middle, int offset_bytes) {
  int32_t pair;
  __builtin_memcpy(&pair, reinterpret_cast<const uint8_t *>(middle) + offset_bytes, sizeof(pair));
  return pair;
}

// t of eight table positions w in [-32768, 32767].  middle: the entry of w = 0
__attribute__((always_inline)) inline int16x8_t Interpolate(const int16_t *middle, int16x8_t w) {
  // There is no gather: eight scalar loads. The offset in bytes is twice w >> 7.
  const int16x8_t at = vbicq_s16(vshrq_n_s16(w, 6), vdupq_n_s16(1));
  const int32x4_t low = {Pair(middle, vgetq_lane_s16(at, 0)), Pair(middle, vgetq_lane_s16(at, 1)),
                         Pair(middle, vgetq_lane_s16(at, 2)), Pair(middle, vgetq_lane_s16(at, 3))};
  const int32x4_t high = {Pair(middle, vgetq_lane_s16(at, 4)), Pair(middle, vgetq_lane_s16(at, 5)),
                          Pair(middle, vgetq_lane_s16(at, 6)), Pair(middle, vgetq_lane_s16(at, 7))};
  const int16x8_t here = vuzp1q_s16(vreinterpretq_s16_s32(low), vreinterpretq_s16_s32(high));
  const int16x8_t next = vuzp2q_s16(vreinterpretq_s16_s32(low), vreinterpretq_s16_s32(high));
  // here * (128 - f) + next * f is 128 t before rounding.
  const int16x8_t f = vandq_s16(w, vdupq_n_s16(127));
  const int16x8_t rest = vsubq_s16(vdupq_n_s16(128), f);
  const int32x4_t sum_low = vmlal_s16(vmull_s16(vget_low_s16(here), vget_low_s16(rest)), vget_low_s16(next), vget_low_s16(f));
  const int32x4_t sum_high = vmlal_high_s16(vmull_high_s16(here, rest), next, f);
  return vrshrn_high_n_s32(vrshrn_n_s32(sum_low, 7), sum_high, 7);
}

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
