// Streaming with sdot, one lane a channel (driver_arm.h): what dot product cores do in decode, and i8mm cores too, since smmla
// needs two rows to be full.
//
// A nibble is w + 8. Each subgroup's dots start from -8 * sum(x), prepared for each row as 16 equal lanes.
#pragma once

#include "kernels/gemm_s8_w4g/driver_arm.h"

namespace acorn::gemm_s8_w4g {
namespace {

struct DotStream {
  static constexpr size_t kBlockRows = 3;
  static constexpr size_t kStartBytes = 64;  // of a row and a subgroup: what four registers of dots start from

  static constexpr size_t Bytes(size_t k) { return k / kSubgroup * kStartBytes; }

  static void Prepare(uint8_t *to, const int8_t *x, size_t x_stride, size_t rows, size_t k) {
    int32_t *out = reinterpret_cast<int32_t *>(to);
    for (size_t r = 0; r < rows; ++r) {
      const int8_t *from = x + r * x_stride;
      for (size_t g = 0; g < k / kSubgroup; ++g, from += kSubgroup, out += 16) {
        int32x4_t sum = vdotq_s32(vdupq_n_s32(0), vld1q_s8(from), vdupq_n_s8(-8));
        sum = vdotq_s32(sum, vld1q_s8(from + 16), vdupq_n_s8(-8));
        const int32x4_t start = vdupq_n_s32(vaddvq_s32(sum));
        ACORN_UNROLL
        for (size_t i = 0; i < 4; ++i) vst1q_s32(out + 4 * i, start);
      }
    }
  }

  // kLane numbers the four elements of k in the 16 of x.
  template <int kLane>
  static ACORN_INLINE void Dot(int32x4_t (&dot)[4], const uint8x16_t (&w)[4], int8x16_t x) {
    ACORN_UNROLL
    for (int i = 0; i < 4; ++i) dot[i] = vdotq_laneq_s32(dot[i], vreinterpretq_s8_u8(w[i]), x, kLane);
  }

  // Eight elements of k: a row of the tile.
  template <int kR, int kLane>
  static ACORN_INLINE void Row(int32x4_t (&dot)[kR][4], const uint8_t *weights, const int8x16_t (&x)[kR]) {
    const uint8x16x4_t packed = vld1q_u8_x4(weights);
    uint8x16_t low[4], high[4];
    ACORN_UNROLL
    for (int i = 0; i < 4; ++i) {
      low[i] = vandq_u8(packed.val[i], vdupq_n_u8(15));
      high[i] = vshrq_n_u8(packed.val[i], 4);
    }
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) Dot<kLane>(dot[r], low, x[r]);
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) Dot<kLane + 1>(dot[r], high, x[r]);
  }

  // acc + multipliers * dot: a subgroup's dots fit in 16 bits.
  static ACORN_INLINE void Scale(int32x4_t (&acc)[4], const int32x4_t (&dot)[4], int16x8_t first, int16x8_t second) {
    const int16x8_t low = vuzp1q_s16(vreinterpretq_s16_s32(dot[0]), vreinterpretq_s16_s32(dot[1]));
    const int16x8_t high = vuzp1q_s16(vreinterpretq_s16_s32(dot[2]), vreinterpretq_s16_s32(dot[3]));
    acc[0] = vmlal_s16(acc[0], vget_low_s16(low), vget_low_s16(first));
    acc[1] = vmlal_high_s16(acc[1], low, first);
    acc[2] = vmlal_s16(acc[2], vget_low_s16(high), vget_low_s16(second));
    acc[3] = vmlal_high_s16(acc[3], high, second);
  }

  template <int kR>
  static void Block(const StreamJob &job) {
    int32x4_t acc[kR][4];
    const int8_t *x[kR];
    const uint8_t *starts[kR];
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) {
      x[r] = job.x + static_cast<size_t>(r) * job.x_stride;
      starts[r] = job.prepared + static_cast<size_t>(r) * job.prepared_stride;
      ACORN_UNROLL
      for (int i = 0; i < 4; ++i) acc[r][i] = vdupq_n_s32(0);
    }
    const uint8_t *weights = job.tile + job.header_bytes;
    for (size_t g = 0; g < job.subgroups; ++g) {
      int32x4_t dot[kR][4];
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) {
        const int32x4x4_t start = vld1q_s32_x4(reinterpret_cast<const int32_t *>(starts[r]));
        starts[r] += kStartBytes;
        ACORN_UNROLL
        for (int i = 0; i < 4; ++i) dot[r][i] = start.val[i];
      }
      ACORN_UNROLL
      for (int half = 0; half < 2; ++half) {
        int8x16_t x16[kR];
        ACORN_UNROLL
        for (int r = 0; r < kR; ++r, x[r - 1] += 16) x16[r] = vld1q_s8(x[r]);
        Row<kR, 0>(dot, weights, x16);
        Row<kR, 2>(dot, weights + c4::kRowBytes, x16);
        weights += 2 * c4::kRowBytes;
      }
      const uint8x16_t multipliers = vld1q_u8(job.tile + (g >> job.group_shift) * c4::kTileChannels);
      const int16x8_t first = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(multipliers)));
      const int16x8_t second = vreinterpretq_s16_u16(vmovl_high_u8(multipliers));
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) Scale(acc[r], dot[r], first, second);
    }
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) {
      ACORN_UNROLL
      for (int i = 0; i < 4; ++i) vst1q_s32(job.acc + static_cast<size_t>(r) * job.acc_stride + 4 * i, acc[r][i]);
    }
  }

  static void Run(const StreamJob &job, size_t rows) {
    switch (rows) {
      case 1:
        return Block<1>(job);
      case 2:
        return Block<2>(job);
      default:
        return Block<3>(job);
    }
  }
};

}  // namespace
}  // namespace acorn::gemm_s8_w4g
