#include "kernels/gemm_s8_w4g/driver_arm.h"

namespace acorn::gemm_s8_w4g {
namespace {

// Without dot product instructions: 8 products of 2 channels x 4 elements of k go to 16-bit lanes, eight times a subgroup, then
// pairs of lanes are added. Nibbles as they are (w + 8) give lanes up to 8 * 15 * 127 < 2^15; their sums may wrap until
// -8 * sum(x) is added: a subgroup's dot fits in 16 bits.
struct EngineNeon {
  static constexpr size_t kStreamBlockRows = 2;
  static constexpr size_t kStreamRows = 4;
  // Of a row and a subgroup: each four elements four times over, then -8 * sum(x) in 8 lanes.
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
        vst1q_s16(reinterpret_cast<int16_t *>(out + 8 * kFourBytes), vdupq_n_s16(static_cast<int16_t>(-8 * vaddvq_s16(sums))));
      }
    }
  }

  static ACORN_INLINE int8x16_t FourOf(const int8_t *x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
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

  // kV registers of 4 channels go through a subgroup together: all four for one row, for two as many as the registers hold.
  template <int kR, int kV>
  static void StreamBlock(const StreamJob &job) {
    int32x4_t acc[kR][4];
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) {
      ACORN_UNROLL
      for (int i = 0; i < 4; ++i) acc[r][i] = vdupq_n_s32(0);
    }
    const uint8_t *weights = job.tile + job.header_bytes;
    const int8_t *x = reinterpret_cast<const int8_t *>(job.prepared);
    for (size_t g = 0; g < job.subgroups; ++g, weights += 4 * c4::kRowBytes, x += kPreparedBytes) {
      const uint8x16_t bytes = vld1q_u8(job.tile + (g >> job.group_shift) * c4::kTileChannels);
      const int16x8_t multipliers[2] = {vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes))),
                                        vreinterpretq_s16_u16(vmovl_high_u8(bytes))};
      ACORN_UNROLL
      for (int v = 0; v < 4; v += kV) {
        int16x8_t lanes[kR][kV][2];
        ACORN_UNROLL
        for (int row = 0; row < 4; ++row) {
          ACORN_UNROLL
          for (int i = 0; i < kV; ++i) {
            const uint8x16_t packed = vld1q_u8(weights + static_cast<size_t>(row) * c4::kRowBytes + 16 * (v + i));
            const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(15)));
            const int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(packed, 4));
            ACORN_UNROLL
            for (int r = 0; r < kR; ++r) {
              const int8_t *at = x + static_cast<size_t>(r) * job.prepared_stride + 2 * kFourBytes * row;
              if (row == 0) {
                Multiply(lanes[r][i], low, vld1q_s8(at));
              } else {
                Add(lanes[r][i], low, vld1q_s8(at));
              }
              Add(lanes[r][i], high, vld1q_s8(at + kFourBytes));
            }
          }
        }
        ACORN_UNROLL
        for (int r = 0; r < kR; ++r) {
          const int8_t *at = x + static_cast<size_t>(r) * job.prepared_stride + 8 * kFourBytes;
          const int16x8_t start = vld1q_s16(reinterpret_cast<const int16_t *>(at));
          ACORN_UNROLL
          for (int i = 0; i < kV; i += 2) {
            const int16x8_t dot = vaddq_s16(start, Dot8(lanes[r][i], lanes[r][i + 1]));
            Scale(acc[r][v + i], acc[r][v + i + 1], dot, multipliers[(v + i) / 2]);
          }
        }
      }
    }
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) {
      ACORN_UNROLL
      for (int i = 0; i < 4; ++i) vst1q_s32(job.acc + static_cast<size_t>(r) * job.acc_stride + 4 * i, acc[r][i]);
    }
  }

  static void Stream(const StreamJob &job, size_t rows) {
    if (rows == 1) return StreamBlock<1, 4>(job);
    StreamBlock<2, 2>(job);
  }

  static constexpr size_t kPanelBlockRows = 2, kPanelUnit = 1;
  static constexpr size_t PanelRowBytes(size_t) { return 0; }
  static void PreparePanel(uint8_t *, const int8_t *, size_t, size_t, size_t) {}

  // A subgroup of a panel: 64 bytes for four elements of k, signed weights, then 16 multipliers of 16 bits.
  static constexpr size_t kStepBytes = 64;
  static constexpr size_t kMultiplierBytes = 32;
  static constexpr size_t PanelBytes(size_t depth) {
    return depth * c4::kTileChannels + depth / kSubgroup * kMultiplierBytes;
  }

  static void Unpack(uint8_t *panel, const Unpacking &from) {
    const uint8_t *weights = from.weights;
    for (size_t s = 0; s < from.groups * from.group_subgroups; ++s) {
      for (size_t row = 0; row < 4; ++row, weights += c4::kRowBytes, panel += 2 * kStepBytes) {
        ACORN_UNROLL
        for (size_t i = 0; i < 4; ++i) {
          const uint8x16_t packed = vld1q_u8(weights + 16 * i);
          vst1q_u8(panel + 16 * i, vsubq_u8(vandq_u8(packed, vdupq_n_u8(15)), vdupq_n_u8(8)));
          vst1q_u8(panel + kStepBytes + 16 * i, vsubq_u8(vshrq_n_u8(packed, 4), vdupq_n_u8(8)));
        }
      }
      const uint8x16_t bytes = vld1q_u8(from.multipliers + s / from.group_subgroups * c4::kTileChannels);
      uint16_t *out = reinterpret_cast<uint16_t *>(panel);
      vst1q_u16(out, vmovl_u8(vget_low_u8(bytes)));
      vst1q_u16(out + 8, vmovl_high_u8(bytes));
      panel += kMultiplierBytes;
    }
  }

  template <int kR>
  static void PanelBlock(const PanelJob &job) {
    int32x4_t acc[kR][4];
    const int8_t *x[kR];
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) {
      x[r] = job.x + static_cast<size_t>(r) * job.x_stride;
      const int32_t *from = job.acc + static_cast<size_t>(r) * job.acc_stride;
      ACORN_UNROLL
      for (int i = 0; i < 4; ++i) acc[r][i] = job.start == Start::kZero ? vdupq_n_s32(0) : vld1q_s32(from + 4 * i);
    }
    const uint8_t *panel = job.panel;
    const size_t subgroups = job.groups * job.group_subgroups;
    for (size_t s = 0; s < subgroups; ++s) {
      int16x8_t lanes[kR][4][2];
      ACORN_UNROLL
      for (int step = 0; step < 8; ++step, panel += kStepBytes) {
        const int8x16x4_t w = vld1q_s8_x4(reinterpret_cast<const int8_t *>(panel));
        ACORN_UNROLL
        for (int r = 0; r < kR; ++r) {
          const int8x16_t x4 = FourOf(x[r]);
          x[r] += 4;
          ACORN_UNROLL
          for (int i = 0; i < 4; ++i) {
            if (step == 0) {
              Multiply(lanes[r][i], w.val[i], x4);
            } else {
              Add(lanes[r][i], w.val[i], x4);
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
    }
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) {
      ACORN_UNROLL
      for (int i = 0; i < 4; ++i) vst1q_s32(job.acc + static_cast<size_t>(r) * job.acc_stride + 4 * i, acc[r][i]);
    }
  }

  static void Panel(const PanelJob &job, size_t rows) {
    if (rows == 1) return PanelBlock<1>(job);
    PanelBlock<2>(job);
  }
};

}  // namespace

size_t ScratchBytesNeon(size_t m, size_t k);
void RunNeon(const GemmArgs &args);

size_t ScratchBytesNeon(size_t m, size_t k) { return DriverArm<EngineNeon>::ScratchBytes(m, k); }
void RunNeon(const GemmArgs &args) { DriverArm<EngineNeon>::Run(args); }

}  // namespace acorn::gemm_s8_w4g
