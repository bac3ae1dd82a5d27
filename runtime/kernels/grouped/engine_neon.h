// The engine of plain Advanced SIMD (driver_arm.h).
#pragma once

#include "kernels/grouped/driver_arm.h"

namespace acorn::grouped {
namespace {

// Without dot product instructions 8 products of 2 channels x 4 elements of k go to 16-bit lanes, eight times a subgroup, then
// pairs of lanes are added. Codes as they are (w + kZero) give lanes up to 8 * 15 * 127 < 2^15; their sums may wrap until
// -kZero * sum(x) is added: a subgroup's dot fits in 16 bits.
template <typename CodesT>
struct EngineNeon {
  using Codes = CodesT;
  static constexpr size_t kStreamBlockRows = 2;
  static constexpr size_t kStreamRows = 4;  // more prepared rows would crowd a small L1 cache: 7 KiB each at k = 1536
  // Of a row and a subgroup: each four elements four times over, then -kZero * sum(x) in 8 lanes.
  static constexpr size_t kFourBytes = 16;
  static constexpr size_t kPreparedBytes = 8 * kFourBytes + 16;

  static constexpr size_t StreamBytes(size_t k) { return k / kSubgroup * kPreparedBytes; }

  static void PrepareStream(uint8_t *to, const int8_t *x, size_t x_stride, size_t rows, size_t k) {
    int8_t *out = reinterpret_cast<int8_t *>(to);
    for (size_t r = 0; r < rows; ++r) {
      const int8_t *from = x + r * x_stride;
      for (size_t g = 0; g < k / kSubgroup; ++g, from += kSubgroup, out += kPreparedBytes) {
        ACORN_UNROLL
        for (size_t i = 0; i < 8; ++i) vst1q_s8(out + kFourBytes * i, FourOf(from + 4 * i));
        const int16x8_t sums = vpadalq_s8(vpaddlq_s8(vld1q_s8(from)), vld1q_s8(from + 16));
        const auto start = static_cast<int16_t>(-Codes::kZero * vaddvq_s16(sums));
        vst1q_s16(reinterpret_cast<int16_t *>(out + 8 * kFourBytes), vdupq_n_s16(start));
      }
    }
  }

  static ACORN_INLINE int8x16_t FourOf(const int8_t *x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
  }

  // The same, advancing x by the load itself: GCC has no such form of it.
  static ACORN_INLINE int8x16_t TakeFour(const int8_t *&x) {
    int8x16_t four;
    __asm__("ld1r {%0.4s}, [%1], #4" : "=w"(four), "+r"(x) : "m"(*reinterpret_cast<const int8_t(*)[4]>(x)));
    return four;
  }

  // Four elements of k of 4 channels.
  static ACORN_INLINE void Add(int16x8_t (&lanes)[2], int8x16_t w, int8x16_t x) {
    lanes[0] = vmlal_s8(lanes[0], vget_low_s8(w), vget_low_s8(x));
    lanes[1] = vmlal_high_s8(lanes[1], w, x);
  }
  static ACORN_INLINE void Multiply(int16x8_t (&lanes)[2], int8x16_t w, int8x16_t x) {
    lanes[0] = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    lanes[1] = vmull_high_s8(w, x);
  }

  // acc + multipliers * dot, 8 channels.
  static ACORN_INLINE void Scale(int32x4_t &low, int32x4_t &high, int16x8_t dot, int16x8_t multipliers) {
    low = vmlal_s16(low, vget_low_s16(dot), vget_low_s16(multipliers));
    high = vmlal_high_s16(high, dot, multipliers);
  }

  static ACORN_INLINE int16x8_t Dot8(const int16x8_t (&first)[2], const int16x8_t (&second)[2]) {
    return vpaddq_s16(vpaddq_s16(first[0], first[1]), vpaddq_s16(second[0], second[1]));
  }

  // Two parts of a row of 8 channels, eight elements of k, the kEight-th of a subgroup. The first start the lanes.
  template <int kEight, int kPart, int kR>
  static ACORN_INLINE void StreamParts(int16x8_t (&lanes)[kR][2][2], const uint8x16_t (&packed)[2], const int8_t *x,
                                       size_t x_stride) {
    int8x16_t first[kR], second[kR];  // four elements each
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r, x += x_stride) {
      first[r] = vld1q_s8(x + 2 * kFourBytes * kEight);
      second[r] = vld1q_s8(x + 2 * kFourBytes * kEight + kFourBytes);
    }
    ACORN_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int8x16_t low = Codes::template Part<kPart>(packed[i]);
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) kEight == 0 ? Multiply(lanes[r][i], low, first[r]) : Add(lanes[r][i], low, first[r]);
      const int8x16_t high = Codes::template Part<kPart + 1>(packed[i]);
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) Add(lanes[r][i], high, second[r]);
    }
  }

  // A row of 8 channels.
  template <int kRow, int kR>
  static ACORN_INLINE void StreamRow(int16x8_t (&lanes)[kR][2][2], const uint8_t *weights, const int8_t *x, size_t x_stride) {
    constexpr int kEight = kRow * Codes::kParts / 2;
    const uint8x16_t packed[2] = {vld1q_u8(weights + kRow * c4::kRowBytes), vld1q_u8(weights + kRow * c4::kRowBytes + 16)};
    StreamParts<kEight, 0>(lanes, packed, x, x_stride);
    if constexpr (Codes::kParts == 4) StreamParts<kEight + 1, 2>(lanes, packed, x, x_stride);
  }

  // A subgroup of 8 channels: the first or the second half of a tile.
  template <int kHalf, int kR>
  static ACORN_INLINE void StreamHalf(int32x4_t (&acc)[kR][4], const uint8_t *weights, const int8_t *x, size_t x_stride,
                                      int16x8_t multipliers) {
    int16x8_t lanes[kR][2][2];
    weights += 32 * kHalf;
    StreamRow<0>(lanes, weights, x, x_stride);
    StreamRow<1>(lanes, weights, x, x_stride);
    if constexpr (kSubgroupRows<Codes> == 4) {
      StreamRow<2>(lanes, weights, x, x_stride);
      StreamRow<3>(lanes, weights, x, x_stride);
    }
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r, x += x_stride) {
      const uint16x8_t start = vreinterpretq_u16_s8(vld1q_s8(x + 8 * kFourBytes));
      const uint16x8_t dot = vaddq_u16(start, vreinterpretq_u16_s16(Dot8(lanes[r][0], lanes[r][1])));
      Scale(acc[r][2 * kHalf], acc[r][2 * kHalf + 1], vreinterpretq_s16_u16(dot), multipliers);
    }
  }

  template <int kR>
  static ACORN_INLINE void Tile(int32x4_t (&acc)[kR][4], const StreamJob &job, const uint8_t *tile) {
    const uint8_t *weights = tile + job.header_bytes;
    const int8_t *x = reinterpret_cast<const int8_t *>(job.prepared);
    const size_t multipliers_end = job.subgroups * job.multiplier_step;
    size_t at = 0;
    do {
      const uint8x16_t multipliers = vld1q_u8(tile + at / c4::kTileChannels * c4::kTileChannels);
      StreamHalf<0>(acc, weights, x, job.prepared_stride, vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(multipliers))));
      StreamHalf<1>(acc, weights, x, job.prepared_stride, vreinterpretq_s16_u16(vmovl_high_u8(multipliers)));
      weights += kSubgroupRows<Codes> * c4::kRowBytes;
      x += kPreparedBytes;
      at += job.multiplier_step;
    } while (at != multipliers_end);
  }

  static void Stream(const StreamJob &job, size_t rows) {
    if (rows == 1) return StreamBlock<EngineNeon, 1>(job);
    StreamBlock<EngineNeon, 2>(job);
  }

  static constexpr size_t kPanelBlockRows = 2, kPanelUnit = 1;
  static constexpr size_t PanelRowBytes(size_t) { return 0; }

  // A subgroup of a panel: 64 bytes for four elements of k, signed weights, then 16 multipliers of 16 bits.
  static constexpr size_t kMultiplierBytes = 32;
  static constexpr size_t PanelBytes(size_t depth) { return depth * c4::kTileChannels + depth / kSubgroup * kMultiplierBytes; }

  static void Unpack(uint8_t *to, const Packed &packed) {
    const uint8_t *weights = packed.weights;
    for (size_t s = 0; s < packed.subgroups; ++s) {
      UnpackSubgroup<Codes>(to, weights);
      const uint8x16_t multipliers = packed.Multipliers(s);
      uint16_t *out = reinterpret_cast<uint16_t *>(to);
      vst1q_u16(out, vmovl_u8(vget_low_u8(multipliers)));
      vst1q_u16(out + 8, vmovl_high_u8(multipliers));
      to += kMultiplierBytes;
    }
  }

  template <int kR>
  static ACORN_NOINLINE void PanelBlock(const PanelJob &job) {
    PanelSubgroups<kR>(job, [](int32x4_t (&acc)[kR][4], const int8_t *(&x)[kR], const uint8_t *&panel) {
      int16x8_t lanes[kR][4][2];
      ACORN_UNROLL
      for (int step = 0; step < 8; ++step) {
        const uint8x16x4_t w = Take64(panel);
        ACORN_UNROLL
        for (int r = 0; r < kR; ++r) {
          const int8x16_t x4 = TakeFour(x[r]);
          ACORN_UNROLL
          for (int i = 0; i < 4; ++i) {
            if (step == 0) {
              Multiply(lanes[r][i], vreinterpretq_s8_u8(w.val[i]), x4);
            } else {
              Add(lanes[r][i], vreinterpretq_s8_u8(w.val[i]), x4);
            }
          }
        }
      }
      const int16_t *multipliers = reinterpret_cast<const int16_t *>(panel);
      const int16x8_t first = vld1q_s16(multipliers), second = vld1q_s16(multipliers + 8);
      panel += kMultiplierBytes;
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) {
        Scale(acc[r][0], acc[r][1], Dot8(lanes[r][0], lanes[r][1]), first);
        Scale(acc[r][2], acc[r][3], Dot8(lanes[r][2], lanes[r][3]), second);
      }
    });
  }

  static void Panel(const PanelJob &job, size_t rows) {
    if (rows == 1) return PanelBlock<1>(job);
    PanelBlock<2>(job);
  }
};

}  // namespace
}  // namespace acorn::grouped
