#include "kernels/add/kernel.h"
#include "kernels/simd_neon.h"

namespace acorn::add {
namespace {

// Both multipliers as high * 2^16 + low with signed 16-bit halves: the products with s16 edges (within 32767) and the sums of two
// fit 32 bits, and for a shift of at least 17 the low sum counts by its bits from 16 up alone.
struct Halves {
  static constexpr int kLeastShift = 17;
  static constexpr int32_t kLargestMultiplier = INT32_MAX - 32768;  // high is 32767 at most

  explicit Halves(const Args &args)
      : a_high(High(args.a_multiplier)),
        a_low(static_cast<int16_t>(args.a_multiplier)),
        b_high(High(args.b_multiplier)),
        b_low(static_cast<int16_t>(args.b_multiplier)),
        right(vdupq_n_s32(16 - args.shift)) {}

  S32x16 operator()(S16x16 a, S16x16 b) const {
    const S32x16 high = MultiplyAdd(Multiply(a, Both(a_high)), b, Both(b_high));
    const S32x16 low = MultiplyAdd(Multiply(a, Both(a_low)), b, Both(b_low));
    S32x16 y;
    for (int i = 0; i < 4; ++i) y.v[i] = vrshlq_s32(vsraq_n_s32(high.v[i], low.v[i], 16), right);
    return y;
  }

 private:
  static int16_t High(int32_t multiplier) { return static_cast<int16_t>((multiplier - static_cast<int16_t>(multiplier)) >> 16); }
  static S16x16 Both(int16_t factor) { return {{vdupq_n_s16(factor), vdupq_n_s16(factor)}}; }

  int16_t a_high, a_low, b_high, b_low;
  int32x4_t right;
};

// Any multipliers and shift, through 64-bit lanes.
struct Products {
  explicit Products(const Args &args)
      : a_factor(vdup_n_s32(args.a_multiplier)), b_factor(vdup_n_s32(args.b_multiplier)), scale(args.shift) {}

  S32x16 operator()(S16x16 a, S16x16 b) const {
    return {{Quarter(vget_low_s16(a.v[0]), vget_low_s16(b.v[0])), Quarter(vget_high_s16(a.v[0]), vget_high_s16(b.v[0])),
             Quarter(vget_low_s16(a.v[1]), vget_low_s16(b.v[1])), Quarter(vget_high_s16(a.v[1]), vget_high_s16(b.v[1]))}};
  }

 private:
  int32x4_t Quarter(int16x4_t a, int16x4_t b) const {
    const int32x4_t x = vmovl_s16(a), z = vmovl_s16(b);
    return scale.Shift(vmlal_s32(vmull_s32(vget_low_s32(x), a_factor), vget_low_s32(z), b_factor),
                       vmlal_s32(vmull_s32(vget_high_s32(x), a_factor), vget_high_s32(z), b_factor));
  }

  int32x2_t a_factor, b_factor;
  WideScale scale;
};

template <typename Sum>
void Rows(const Args &args) {
  const Sum scaled_sum(args);
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *a = args.a + row * args.a_stride;
    const int16_t *b = args.b + row * args.b_stride;
    int16_t *y = args.y + row * args.y_stride;
    ForBlocks(args.n, [=](size_t i, size_t count) ACORN_INLINE_BODY {
      StoreS16::Store(y + i, count, scaled_sum(Load(a + i, count), Load(b + i, count)), 0);
    });
  }
}

}  // namespace

void RunNeon(const Args &args) {
  const int32_t larger = args.a_multiplier > args.b_multiplier ? args.a_multiplier : args.b_multiplier;
  if (args.shift >= Halves::kLeastShift && larger <= Halves::kLargestMultiplier) {
    Rows<Halves>(args);
  } else {
    Rows<Products>(args);
  }
}

}  // namespace acorn::add
