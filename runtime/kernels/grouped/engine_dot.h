// What dot product and i8mm cores share: streaming, and the multipliers of panels.
//
// Streaming is done with sdot, one lane a channel (driver_arm.h); on i8mm cores too, since smmla needs two rows to be full.
// A code is w + kZero: a subgroup's dots start from -kZero * sum(x), prepared for each row as 16 equal lanes.
//
// Dots of panels, whose weights are signed, start from 0 and are never set back: with D_g the sum of the dots of groups 0 to g of
// a panel, the sum of m_g * dot_g is that of (m_g - m_{g+1}) * D_g. All of it is exact modulo 2^32, and the sum is below 2^31.
#pragma once

#include "kernels/grouped/driver_arm.h"

namespace acorn::grouped {
namespace {

/// m_g - m_{g+1} of 16 channels, for a subgroup g: 0 inside a group, m_g at the end of a panel.
struct MultiplierSteps {
  ACORN_INLINE MultiplierSteps(const Packed &packed, size_t subgroup) {
    const uint8x16_t here = packed.Multipliers(subgroup);
    const uint8x16_t next = subgroup + 1 < packed.subgroups ? packed.Multipliers(subgroup + 1) : vdupq_n_u8(0);
    const int16x8_t low = vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(here), vget_low_u8(next)));
    const int16x8_t high = vreinterpretq_s16_u16(vsubl_high_u8(here, next));
    channels[0] = vmovl_s16(vget_low_s16(low));
    channels[1] = vmovl_high_s16(low);
    channels[2] = vmovl_s16(vget_low_s16(high));
    channels[3] = vmovl_high_s16(high);
  }
  int32x4_t channels[4];
};

/// acc + step * dot modulo 2^32: without sign, where wrapping is defined.
ACORN_INLINE int32x4_t AddWrapping(int32x4_t acc, int32x4_t dot, uint8x16_t step) {
  return vreinterpretq_s32_u32(vmlaq_u32(vreinterpretq_u32_s32(acc), vreinterpretq_u32_s32(dot), vreinterpretq_u32_u8(step)));
}

/// The half of an engine that streams.
template <typename CodesT>
struct DotStream {
  using Codes = CodesT;
  static constexpr size_t kStreamBlockRows = 3;
  // Of a row and a subgroup: what four registers of dots start from, then x.
  static constexpr size_t kStartBytes = 64;
  static constexpr size_t kPreparedBytes = kStartBytes + kSubgroup;

  static constexpr size_t StreamBytes(size_t k) { return k / kSubgroup * kPreparedBytes; }

  static void PrepareStream(uint8_t *to, const int8_t *x, size_t x_stride, size_t rows, size_t k) {
    int8_t *out = reinterpret_cast<int8_t *>(to);
    const int8x16_t minus_zero = vdupq_n_s8(-Codes::kZero);
    for (size_t r = 0; r < rows; ++r) {
      const int8_t *from = x + r * x_stride;
      for (size_t g = 0; g < k / kSubgroup; ++g, from += kSubgroup, out += kPreparedBytes) {
        const int8x16_t low = vld1q_s8(from), high = vld1q_s8(from + 16);
        const int32x4_t sums = vdotq_s32(vdotq_s32(vdupq_n_s32(0), low, minus_zero), high, minus_zero);
        const int32x4_t start = vdupq_n_s32(vaddvq_s32(sums));
        ACORN_UNROLL
        for (int i = 0; i < 4; ++i) vst1q_s32(reinterpret_cast<int32_t *>(out) + 4 * i, start);
        vst1q_s8(out + kStartBytes, low);
        vst1q_s8(out + kStartBytes + 16, high);
      }
    }
  }

  // Has all of them made before the first is used: a core that runs in order would wait for each.
  template <int kV>
  static ACORN_INLINE void Together(const int8x16_t (&w)[kV]) {
    ACORN_UNROLL
    for (int i = 0; i < kV; ++i) __asm__ volatile("" : : "w"(w[i]));
  }

  // Four elements of k: a part of registers of a row of the tile, 4 channels each. kLane numbers them in the 16 of x.
  template <int kPart, int kLane, int kR, int kV>
  static ACORN_INLINE void Part(int32x4_t (&dot)[kR][4], int first, const uint8x16_t (&packed)[kV], const int8x16_t (&x)[kR]) {
    int8x16_t w[kV];
    ACORN_UNROLL
    for (int i = 0; i < kV; ++i) w[i] = Codes::template Part<kPart>(packed[i]);
    Together(w);
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) {
      ACORN_UNROLL
      for (int i = 0; i < kV; ++i) dot[r][first + i] = vdotq_laneq_s32(dot[r][first + i], w[i], x[r], kLane);
    }
  }

  // All elements of k in registers of a row of the tile.
  template <int kLane, int kR, int kV>
  static ACORN_INLINE void Row(int32x4_t (&dot)[kR][4], int first, const uint8x16_t (&packed)[kV], const int8x16_t (&x)[kR]) {
    Part<0, kLane>(dot, first, packed, x);
    Part<1, kLane + 1>(dot, first, packed, x);
    if constexpr (Codes::kParts == 4) {
      Part<2, kLane + 2>(dot, first, packed, x);
      Part<3, kLane + 3>(dot, first, packed, x);
    }
  }

  // A whole row; for three rows of x in two halves: all of it would not fit the registers.
  template <int kLane, int kR>
  static ACORN_INLINE void TakeRow(int32x4_t (&dot)[kR][4], const uint8_t *&weights, const int8x16_t (&x)[kR]) {
    if constexpr (kR <= 2) {
      Row<kLane>(dot, 0, Take64(weights).val, x);
    } else {
      Row<kLane>(dot, 0, Take32(weights).val, x);
      Row<kLane>(dot, 2, Take32(weights).val, x);
    }
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
  static ACORN_INLINE void Tile(int32x4_t (&acc)[kR][4], const StreamJob &job, const uint8_t *tile) {
    const int8_t *prepared[kR];
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) {
      prepared[r] = reinterpret_cast<const int8_t *>(job.prepared) + static_cast<size_t>(r) * job.prepared_stride;
    }
    const uint8_t *weights = tile + job.header_bytes;
    const size_t multipliers_end = job.subgroups * job.multiplier_step;
    size_t at = 0;
    do {
      int32x4_t dot[kR][4];
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) {
        ACORN_UNROLL
        for (int i = 0; i < 4; ++i) dot[r][i] = vreinterpretq_s32_s8(vld1q_s8(prepared[r] + 16 * i));
      }
      // A single row loads both halves of x together, by one instruction; more rows lack the registers.
      const int8x16_t ahead = vld1q_s8(prepared[0] + kStartBytes + 16);
      ACORN_UNROLL
      for (int half = 0; half < 2; ++half) {
        int8x16_t x[kR];
        ACORN_UNROLL
        for (int r = 0; r < kR; ++r) {
          x[r] = kR == 1 && half == 1 ? ahead : vld1q_s8(prepared[r] + kStartBytes + 16 * half);
        }
        TakeRow<0>(dot, weights, x);
        if constexpr (Codes::kParts == 2) TakeRow<2>(dot, weights, x);
      }
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) prepared[r] += kPreparedBytes;
      const uint8x16_t multipliers = vld1q_u8(tile + at / c4::kTileChannels * c4::kTileChannels);
      const int16x8_t first = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(multipliers)));
      const int16x8_t second = vreinterpretq_s16_u16(vmovl_high_u8(multipliers));
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) Scale(acc[r], dot[r], first, second);
      at += job.multiplier_step;
    } while (at != multipliers_end);
  }

  static void Stream(const StreamJob &job, size_t rows) {
    switch (rows) {
      case 1:
        return StreamBlock<DotStream, 1>(job);
      case 2:
        return StreamBlock<DotStream, 2>(job);
      default:
        return StreamBlock<DotStream, 3>(job);
    }
  }
};

}  // namespace
}  // namespace acorn::grouped
