// The activations' table of glu and conv on Advanced SIMD: entries 1/16 apart, 514 of them, interpolated. In an anonymous
// namespace, as simd_neon.h is.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace acorn {
namespace {

// Two neighbours of the table in one load.  offset_bytes: of the first one, from the middle
inline int32_t Pair(const int16_t *middle, int offset_bytes) {
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

}  // namespace
}  // namespace acorn
