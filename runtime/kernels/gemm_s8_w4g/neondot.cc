#include "kernels/gemm_s8_w4g/engine_dot.h"

namespace acorn::gemm_s8_w4g {
namespace {

// Panels: 3 rows x 16 channels, sums and dots in 24 registers. A nibble is unpacked to its signed weight, so dots need no start,
// and they are never set back: with D_g the sum of the dots of groups 0 to g, the sum of m_g * dot_g is that of
// (m_g - m_{g+1}) * D_g. It may wrap on the way and is exact at the end, being below 2^31.
struct EngineNeonDot {
  static constexpr size_t kStreamBlockRows = DotStream::kBlockRows;
  static constexpr size_t kStreamRows = 2 * DotStream::kBlockRows;
  static constexpr size_t StreamBytes(size_t k) { return DotStream::Bytes(k); }
  static void PrepareStream(uint8_t *to, const int8_t *x, size_t x_stride, size_t rows, size_t k) {
    DotStream::Prepare(to, x, x_stride, rows, k);
  }
  static void Stream(const StreamJob &job, size_t rows) { DotStream::Run(job, rows); }

  static constexpr size_t kPanelBlockRows = 3, kPanelUnit = 1;
  static constexpr size_t PanelRowBytes(size_t) { return 0; }
  static void PreparePanel(uint8_t *, const int8_t *, size_t, size_t, size_t) {}

  // A group of a panel: its rows, 64 bytes of low and 64 of high nibbles each, then m_g - m_{g+1} of 16 channels.
  static constexpr size_t kStepBytes = 64;
  static constexpr size_t PanelBytes(size_t depth) { return depth * c4::kTileChannels + depth / kSubgroup * kStepBytes; }

  static void Unpack(uint8_t *panel, const Unpacking &from) {
    const uint8_t *weights = from.weights, *multipliers = from.multipliers;
    for (size_t g = 0; g < from.groups; ++g, multipliers += c4::kTileChannels) {
      for (size_t row = 0; row < from.group_subgroups * 4; ++row, weights += c4::kRowBytes, panel += 2 * kStepBytes) {
        ACORN_UNROLL
        for (size_t i = 0; i < 4; ++i) {
          const uint8x16_t packed = vld1q_u8(weights + 16 * i);
          vst1q_u8(panel + 16 * i, vsubq_u8(vandq_u8(packed, vdupq_n_u8(15)), vdupq_n_u8(8)));
          vst1q_u8(panel + kStepBytes + 16 * i, vsubq_u8(vshrq_n_u8(packed, 4), vdupq_n_u8(8)));
        }
      }
      const uint8x16_t here = vld1q_u8(multipliers);
      const uint8x16_t next = g + 1 < from.groups ? vld1q_u8(multipliers + c4::kTileChannels) : vdupq_n_u8(0);
      const int16x8_t low = vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(here), vget_low_u8(next)));
      const int16x8_t high = vreinterpretq_s16_u16(vsubl_high_u8(here, next));
      int32_t *out = reinterpret_cast<int32_t *>(panel);
      vst1q_s32(out, vmovl_s16(vget_low_s16(low)));
      vst1q_s32(out + 4, vmovl_high_s16(low));
      vst1q_s32(out + 8, vmovl_s16(vget_low_s16(high)));
      vst1q_s32(out + 12, vmovl_high_s16(high));
      panel += kStepBytes;
    }
  }

  template <int kR, int kLane>
  static ACORN_INLINE void Step(int32x4_t (&dot)[kR][4], const uint8_t *panel, const int8x16_t (&x)[kR]) {
    const int8x16x4_t w = vld1q_s8_x4(reinterpret_cast<const int8_t *>(panel));
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) {
      ACORN_UNROLL
      for (int i = 0; i < 4; ++i) dot[r][i] = vdotq_laneq_s32(dot[r][i], w.val[i], x[r], kLane);
    }
  }

  template <int kR>
  static void Block(const PanelJob &job) {
    int32x4_t acc[kR][4], dot[kR][4];
    const int8_t *x[kR];
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) {
      x[r] = job.x + static_cast<size_t>(r) * job.x_stride;
      const int32_t *from = job.acc + static_cast<size_t>(r) * job.acc_stride;
      ACORN_UNROLL
      for (int i = 0; i < 4; ++i) {
        dot[r][i] = vdupq_n_s32(0);
        acc[r][i] = job.start == Start::kZero ? vdupq_n_s32(0) : vld1q_s32(from + 4 * i);
      }
    }
    const uint8_t *panel = job.panel;
    for (size_t g = 0; g < job.groups; ++g) {
      for (uint32_t s = 0; s < job.group_subgroups; ++s) {
        ACORN_UNROLL
        for (int half = 0; half < 2; ++half) {
          int8x16_t x16[kR];
          ACORN_UNROLL
          for (int r = 0; r < kR; ++r, x[r - 1] += 16) x16[r] = vld1q_s8(x[r]);
          Step<kR, 0>(dot, panel, x16);
          Step<kR, 1>(dot, panel + kStepBytes, x16);
          Step<kR, 2>(dot, panel + 2 * kStepBytes, x16);
          Step<kR, 3>(dot, panel + 3 * kStepBytes, x16);
          panel += 4 * kStepBytes;
        }
      }
      const int32x4x4_t multipliers = vld1q_s32_x4(reinterpret_cast<const int32_t *>(panel));
      panel += kStepBytes;
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) {
        ACORN_UNROLL
        for (int i = 0; i < 4; ++i) acc[r][i] = vmlaq_s32(acc[r][i], dot[r][i], multipliers.val[i]);
      }
    }
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) {
      ACORN_UNROLL
      for (int i = 0; i < 4; ++i) vst1q_s32(job.acc + static_cast<size_t>(r) * job.acc_stride + 4 * i, acc[r][i]);
    }
  }

  // More rows than are streamed, in blocks as equal as can be, are 2 or 3 a block.
  static void Panel(const PanelJob &job, size_t rows) {
    if (rows == 2) return Block<2>(job);
    Block<3>(job);
  }
};

}  // namespace

size_t ScratchBytesNeonDot(size_t m, size_t k);
void RunNeonDot(const GemmArgs &args);

size_t ScratchBytesNeonDot(size_t m, size_t k) { return DriverArm<EngineNeonDot>::ScratchBytes(m, k); }
void RunNeonDot(const GemmArgs &args) { DriverArm<EngineNeonDot>::Run(args); }

}  // namespace acorn::gemm_s8_w4g
