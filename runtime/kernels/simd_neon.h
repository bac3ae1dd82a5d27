// Helpers of the files that are compiled for Advanced SIMD (Armv8.0 is enough): blocks of sixteen values go through 32-bit
// lanes, are scaled and rounded as RoundShift does, and become 8-bit or 16-bit values again. All in an anonymous namespace, so
// that no other file can end up with this instruction set's copy. A file need not use all of them.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace acorn {
namespace {

constexpr size_t kBlock = 16;

/// Sixteen values in order.
struct S16x16 {
  int16x8_t v[2];
};
struct S32x16 {
  int32x4_t v[4];
};

/// body(first, count) for blocks of sixteen of `n` values: count is the constant 16 but in the last one. Bodies are marked
/// ACORN_INLINE_BODY, so that in the first of the two calls loads and stores need no branch, and take what they use by value:
/// for all the compiler knows, a store to y could change what a reference leads to.
#define ACORN_INLINE_BODY __attribute__((always_inline))
template <typename Body>
inline void ForBlocks(size_t n, const Body &body) {
  size_t i = 0;
  for (; n - i >= kBlock; i += kBlock) body(i, kBlock);
  if (i != n) body(i, n - i);
}

/// `count` values, zeros behind them; reads nothing else.
inline S16x16 Load(const int16_t *p, size_t count) {
  if (count == kBlock) return {{vld1q_s16(p), vld1q_s16(p + 8)}};
  int16_t values[kBlock] = {};
  __builtin_memcpy(values, p, count * sizeof(int16_t));
  return {{vld1q_s16(values), vld1q_s16(values + 8)}};
}
inline S32x16 Load(const int32_t *p, size_t count) {
  if (count == kBlock) return {{vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)}};
  int32_t values[kBlock] = {};
  __builtin_memcpy(values, p, count * sizeof(int32_t));
  return {{vld1q_s32(values), vld1q_s32(values + 4), vld1q_s32(values + 8), vld1q_s32(values + 12)}};
}

/// Lane by lane.
inline S32x16 Add(S32x16 a, S32x16 b) {
  return {{vaddq_s32(a.v[0], b.v[0]), vaddq_s32(a.v[1], b.v[1]), vaddq_s32(a.v[2], b.v[2]), vaddq_s32(a.v[3], b.v[3])}};
}
inline S32x16 Subtract(S32x16 a, S32x16 b) {
  return {{vsubq_s32(a.v[0], b.v[0]), vsubq_s32(a.v[1], b.v[1]), vsubq_s32(a.v[2], b.v[2]), vsubq_s32(a.v[3], b.v[3])}};
}
inline S32x16 Multiply(S16x16 a, S16x16 b) {
  return {{vmull_s16(vget_low_s16(a.v[0]), vget_low_s16(b.v[0])), vmull_high_s16(a.v[0], b.v[0]),
           vmull_s16(vget_low_s16(a.v[1]), vget_low_s16(b.v[1])), vmull_high_s16(a.v[1], b.v[1])}};
}
/// sum + a * b
inline S32x16 MultiplyAdd(S32x16 sum, S16x16 a, S16x16 b) {
  return {{vmlal_s16(sum.v[0], vget_low_s16(a.v[0]), vget_low_s16(b.v[0])), vmlal_high_s16(sum.v[1], a.v[0], b.v[0]),
           vmlal_s16(sum.v[2], vget_low_s16(a.v[1]), vget_low_s16(b.v[1])), vmlal_high_s16(sum.v[3], a.v[1], b.v[1])}};
}
inline S32x16 Widen(S16x16 a) {
  return {{vmovl_s16(vget_low_s16(a.v[0])), vmovl_high_s16(a.v[0]), vmovl_s16(vget_low_s16(a.v[1])), vmovl_high_s16(a.v[1])}};
}

/// Saturated to 16 bits.
inline S16x16 Narrow(S32x16 a) {
  return {{vqmovn_high_s32(vqmovn_s32(a.v[0]), a.v[1]), vqmovn_high_s32(vqmovn_s32(a.v[2]), a.v[3])}};
}

/// RoundShift(a * factor, shift), saturated to 32 bits; |a * factor| <= 2^62, and not both -2^31. In two ways:
///
/// From kLeastShift on the product is cut to its bits from 31 up, which one instruction does, and the rest of the shift rounds:
///   floor((p + 2^(shift-1)) / 2^shift) = floor((floor(p / 2^31) + 2^(shift-32)) / 2^(shift-31))
/// since 2^(shift-1) is a multiple of 2^31 and floors nest.
struct HighScale {
  static constexpr int kLeastShift = 32;
  explicit HighScale(int shift) : right(vdupq_n_s32(31 - shift)) {}
  int32x4_t operator()(int32x4_t a, int32x4_t factor) const { return vrshlq_s32(vqdmulhq_s32(a, factor), right); }
  int32x4_t right;
};
/// Any shift, through 64-bit lanes; the rounding shift does not overflow inside.
struct WideScale {
  explicit WideScale(int shift) : right(vdupq_n_s64(-shift)) {}
  int32x4_t operator()(int32x4_t a, int32x4_t factor) const {
    return Shift(vmull_s32(vget_low_s32(a), vget_low_s32(factor)), vmull_high_s32(a, factor));
  }
  int32x4_t Shift(int64x2_t low, int64x2_t high) const {
    return vqmovn_high_s64(vqmovn_s64(vrshlq_s64(low, right)), vrshlq_s64(high, right));
  }
  int64x2_t right;
};

/// One factor for all lanes, or one for each.
template <typename Scale>
inline S32x16 Apply(const Scale &scale, S32x16 a, int32x4_t factor) {
  return {{scale(a.v[0], factor), scale(a.v[1], factor), scale(a.v[2], factor), scale(a.v[3], factor)}};
}
template <typename Scale>
inline S32x16 Apply(const Scale &scale, S32x16 a, S32x16 factor) {
  return {{scale(a.v[0], factor.v[0]), scale(a.v[1], factor.v[1]), scale(a.v[2], factor.v[2]), scale(a.v[3], factor.v[3])}};
}

/// Output types: adds the zero point, clamps, stores `count` values. The values may come saturated to 32 bits: their type's limits
/// and its zero points (s8: within 127, the others have none) lie far inside.
struct StoreS8 {
  using Type = int8_t;
  static void Store(int8_t *p, size_t count, S32x16 a, int32_t zero_point) {
    const int16x8_t zero = vdupq_n_s16(static_cast<int16_t>(zero_point));
    const S16x16 words = Narrow(a);
    const int8x8_t low = vqmovn_s16(vqaddq_s16(words.v[0], zero));
    const int8x16_t bytes = vmaxq_s8(vqmovn_high_s16(low, vqaddq_s16(words.v[1], zero)), vdupq_n_s8(-127));
    if (count == kBlock) return vst1q_s8(p, bytes);
    int8_t values[kBlock];
    vst1q_s8(values, bytes);
    __builtin_memcpy(p, values, count);
  }
};
template <int kLow, int kHigh>
struct StoreWords {
  using Type = int16_t;
  static void Store(int16_t *p, size_t count, S32x16 a, int32_t) {
    const S16x16 words = Narrow(a);
    const int16x8_t low = Clamp(words.v[0]), high = Clamp(words.v[1]);
    int16_t values[kBlock];
    int16_t *to = count == kBlock ? p : values;
    vst1q_s16(to, low);
    vst1q_s16(to + 8, high);
    if (count != kBlock) __builtin_memcpy(p, values, count * sizeof(int16_t));
  }

 private:
  static int16x8_t Clamp(int16x8_t v) {
    const int16x8_t raised = vmaxq_s16(v, vdupq_n_s16(kLow));
    return kHigh == INT16_MAX ? raised : vminq_s16(raised, vdupq_n_s16(kHigh));
  }
};
using StoreS15 = StoreWords<-16320, 16319>;
using StoreS16 = StoreWords<-32767, 32767>;

}  // namespace
}  // namespace acorn
