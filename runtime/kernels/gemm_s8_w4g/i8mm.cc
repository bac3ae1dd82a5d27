#include "kernels/gemm_s8_w4g/engine_dot.h"

namespace acorn::gemm_s8_w4g {
namespace {

// Panels: 8 rows x 4 channels in blocks of 2 x 2, sums and dots in 16 registers. Rows are prepared in pairs, 8 elements of each:
// what smmla takes. Signed weights and dots that are never set back as in neondot.cc.
struct EngineI8mm {
  // Streamed with sdot: 4 rows cost what unpacking and smmla cost.
  static constexpr size_t kStreamBlockRows = DotStream::kBlockRows;
  static constexpr size_t kStreamRows = 4;
  static constexpr size_t StreamBytes(size_t k) { return DotStream::Bytes(k); }
  static void PrepareStream(uint8_t *to, const int8_t *x, size_t x_stride, size_t rows, size_t k) {
    DotStream::Prepare(to, x, x_stride, rows, k);
  }
  static void Stream(const StreamJob &job, size_t rows) { DotStream::Run(job, rows); }

  static constexpr size_t kPanelBlockRows = 8, kPanelUnit = 2;
  static constexpr size_t PanelRowBytes(size_t depth) { return depth; }

  // To [depth / 8, pairs, 2 rows, 8]. The last row of an odd number is its own partner.
  static void PreparePanel(uint8_t *to, const int8_t *x, size_t x_stride, size_t rows, size_t depth) {
    const size_t pairs = (rows + 1) / 2;
    int8_t *out = reinterpret_cast<int8_t *>(to);
    for (size_t p = 0; p < pairs; ++p) {
      const int8_t *first = x + 2 * p * x_stride, *second = 2 * p + 1 < rows ? first + x_stride : first;
      for (size_t k = 0; k < depth; k += 16) {
        const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(first + k)), b = vreinterpretq_s64_s8(vld1q_s8(second + k));
        vst1q_s8(out + (k / 8 * pairs + p) * 16, vreinterpretq_s8_s64(vzip1q_s64(a, b)));
        vst1q_s8(out + ((k / 8 + 1) * pairs + p) * 16, vreinterpretq_s8_s64(vzip2q_s64(a, b)));
      }
    }
  }

  // A panel is four strips of 4 channels. A group of a strip: 32 bytes for 8 elements of k, [channels, 8], then m_g - m_{g+1} as
  // smmla leaves the dots: of channels 0 1 0 1 and 2 3 2 3.
  static constexpr size_t kStrips = 4;
  static constexpr size_t kStepBytes = 32;
  static constexpr size_t PanelBytes(size_t depth) { return depth * c4::kTileChannels + depth / kSubgroup * kStrips * kStepBytes; }
  static constexpr size_t StripBytes(const size_t groups, size_t group_subgroups) {
    return groups * (group_subgroups * 4 + 1) * kStepBytes;
  }

  static void Unpack(uint8_t *panel, const Unpacking &from) {
    const uint8_t *weights = from.weights, *multipliers = from.multipliers;
    const size_t strip_bytes = StripBytes(from.groups, from.group_subgroups);
    for (size_t g = 0; g < from.groups; ++g, multipliers += c4::kTileChannels) {
      for (size_t row = 0; row < from.group_subgroups * 4; ++row, weights += c4::kRowBytes, panel += kStepBytes) {
        ACORN_UNROLL
        for (size_t i = 0; i < kStrips; ++i) {
          const uint8x16_t packed = vld1q_u8(weights + 16 * i);
          const uint32x4_t low = vreinterpretq_u32_u8(vsubq_u8(vandq_u8(packed, vdupq_n_u8(15)), vdupq_n_u8(8)));
          const uint32x4_t high = vreinterpretq_u32_u8(vsubq_u8(vshrq_n_u8(packed, 4), vdupq_n_u8(8)));
          vst1q_u8(panel + i * strip_bytes, vreinterpretq_u8_u32(vzip1q_u32(low, high)));
          vst1q_u8(panel + i * strip_bytes + 16, vreinterpretq_u8_u32(vzip2q_u32(low, high)));
        }
      }
      const uint8x16_t here = vld1q_u8(multipliers);
      const uint8x16_t next = g + 1 < from.groups ? vld1q_u8(multipliers + c4::kTileChannels) : vdupq_n_u8(0);
      const int16x8_t low = vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(here), vget_low_u8(next)));
      const int16x8_t high = vreinterpretq_s16_u16(vsubl_high_u8(here, next));
      const int32x4_t steps[kStrips] = {vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)),
                                        vmovl_high_s16(high)};
      ACORN_UNROLL
      for (size_t i = 0; i < kStrips; ++i) {
        const int64x2_t pairs = vreinterpretq_s64_s32(steps[i]);
        int64_t *out = reinterpret_cast<int64_t *>(panel + i * strip_bytes);
        vst1q_s64(out, vzip1q_s64(pairs, pairs));
        vst1q_s64(out + 2, vzip2q_s64(pairs, pairs));
      }
      panel += kStepBytes;
    }
  }

  // Two rows of 4 channels in two registers of 2 x 2, and back.
  static ACORN_INLINE void Load(int32x4_t (&acc)[2], const int32_t *first, const int32_t *second) {
    const int64x2_t a = vreinterpretq_s64_s32(vld1q_s32(first)), b = vreinterpretq_s64_s32(vld1q_s32(second));
    acc[0] = vreinterpretq_s32_s64(vzip1q_s64(a, b));
    acc[1] = vreinterpretq_s32_s64(vzip2q_s64(a, b));
  }
  static ACORN_INLINE void Store(int32_t *first, int32_t *second, const int32x4_t (&acc)[2]) {
    const int64x2_t a = vreinterpretq_s64_s32(acc[0]), b = vreinterpretq_s64_s32(acc[1]);
    vst1q_s32(second, vreinterpretq_s32_s64(vzip2q_s64(a, b)));
    vst1q_s32(first, vreinterpretq_s32_s64(vzip1q_s64(a, b)));
  }

  // Eight elements of k.
  template <int kP>
  static ACORN_INLINE void Step(int32x4_t (&dot)[kP][2], const int8_t *x, int8x16_t w0, int8x16_t w1) {
    ACORN_UNROLL
    for (int p = 0; p < kP; ++p) {
      const int8x16_t pair = vld1q_s8(x + 16 * p);
      dot[p][0] = vmmlaq_s32(dot[p][0], pair, w0);
      dot[p][1] = vmmlaq_s32(dot[p][1], pair, w1);
    }
  }

  // kP pairs of rows and one strip. `last_stride` is 0 where the last row is its own partner.
  template <int kP>
  static void Strip(const PanelJob &job, const uint8_t *panel, int32_t *out, size_t last_stride) {
    int32x4_t acc[kP][2], dot[kP][2];
    ACORN_UNROLL
    for (int p = 0; p < kP; ++p) {
      dot[p][0] = dot[p][1] = acc[p][0] = acc[p][1] = vdupq_n_s32(0);
    }
    if (job.start == Start::kAcc) {
      ACORN_UNROLL
      for (int p = 0; p < kP; ++p) {
        const int32_t *first = out + static_cast<size_t>(2 * p) * job.acc_stride;
        Load(acc[p], first, first + (p + 1 == kP ? last_stride : job.acc_stride));
      }
    }
    const int8_t *x = reinterpret_cast<const int8_t *>(job.prepared);
    for (size_t g = 0; g < job.groups; ++g) {
      for (uint32_t s = 0; s < job.group_subgroups; ++s) {
        ACORN_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int8x16x4_t w = vld1q_s8_x4(reinterpret_cast<const int8_t *>(panel));
          Step<kP>(dot, x, w.val[0], w.val[1]);
          Step<kP>(dot, x + 16 * kP, w.val[2], w.val[3]);
          panel += 2 * kStepBytes;
          x += 32 * kP;
        }
      }
      const int32x4x2_t multipliers = vld1q_s32_x2(reinterpret_cast<const int32_t *>(panel));
      panel += kStepBytes;
      ACORN_UNROLL
      for (int p = 0; p < kP; ++p) {
        acc[p][0] = vmlaq_s32(acc[p][0], dot[p][0], multipliers.val[0]);
        acc[p][1] = vmlaq_s32(acc[p][1], dot[p][1], multipliers.val[1]);
      }
    }
    ACORN_UNROLL
    for (int p = 0; p < kP; ++p) {
      int32_t *first = out + static_cast<size_t>(2 * p) * job.acc_stride;
      Store(first, first + (p + 1 == kP ? last_stride : job.acc_stride), acc[p]);
    }
  }

  template <int kP>
  static void Block(const PanelJob &job, size_t last_stride) {
    const size_t strip_bytes = StripBytes(job.groups, job.group_subgroups);
    for (size_t i = 0; i < kStrips; ++i) Strip<kP>(job, job.panel + i * strip_bytes, job.acc + 4 * i, last_stride);
  }

  // More rows than are streamed, in blocks as equal as can be, are 3 or 4 pairs a block.
  static void Panel(const PanelJob &job, size_t rows) {
    const size_t last_stride = rows % 2 == 0 ? job.acc_stride : 0;
    if (rows > 6) return Block<4>(job, last_stride);
    if (rows > 4) return Block<3>(job, last_stride);
    Block<2>(job, last_stride);
  }
};

}  // namespace

size_t ScratchBytesI8mm(size_t m, size_t k);
void RunI8mm(const GemmArgs &args);

size_t ScratchBytesI8mm(size_t m, size_t k) { return DriverArm<EngineI8mm>::ScratchBytes(m, k); }
void RunI8mm(const GemmArgs &args) { DriverArm<EngineI8mm>::Run(args); }

}  // namespace acorn::gemm_s8_w4g
