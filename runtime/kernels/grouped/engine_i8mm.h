// The engine of i8mm cores (driver_arm.h).
#pragma once

#include "kernels/grouped/engine_dot.h"

namespace acorn::grouped {
namespace {

// Panels: 8 rows x 4 channels in squares of 2 x 2, which is what smmla adds to; sums and dots in 16 registers.
template <typename Codes>
struct EngineI8mm : DotStream<Codes> {
  // Streamed with sdot: up to 3 rows cost less than unpacking and smmla.
  static constexpr size_t kStreamRows = DotStream<Codes>::kStreamBlockRows;

  static constexpr size_t kPanelBlockRows = 8, kPanelUnit = 2;
  static constexpr size_t PanelRowBytes(size_t depth) { return depth; }

  // To [depth / 8, pairs, 2 rows, 8 elements]. The last row of an odd number is its own partner. Of 16 elements of k numbers 0-3
  // and 8-11 come first, then 4-7 and 12-15: the low and the high nibbles of two rows of a tile, zipped before they are unpacked.
  static void PreparePanel(uint8_t *to, const int8_t *x, size_t x_stride, size_t rows, size_t depth) {
    if (rows > 6) return PreparePairs<4>(to, x, x_stride, rows, depth);
    if (rows > 4) return PreparePairs<3>(to, x, x_stride, rows, depth);
    PreparePairs<2>(to, x, x_stride, rows, depth);
  }

  template <int kP>
  static void PreparePairs(uint8_t *to, const int8_t *x, size_t x_stride, size_t rows, size_t depth) {
    const int8_t *row[2 * kP];
    ACORN_UNROLL
    for (int r = 0; r < 2 * kP; ++r) row[r] = x + (static_cast<size_t>(r) < rows ? static_cast<size_t>(r) : rows - 1) * x_stride;
    int32_t *out = reinterpret_cast<int32_t *>(to);
    for (size_t k = 0; k < depth; k += 16, out += 8 * kP) {
      ACORN_UNROLL
      for (int p = 0; p < kP; ++p) {
        const int32x4_t a = vreinterpretq_s32_s8(vld1q_s8(row[2 * p] + k));
        const int32x4_t b = vreinterpretq_s32_s8(vld1q_s8(row[2 * p + 1] + k));
        vst1q_s32(out + 4 * p, vuzp1q_s32(a, b));
        vst1q_s32(out + 4 * (kP + p), vuzp2q_s32(a, b));
      }
    }
  }

  // A panel is four strips of 4 channels. A subgroup of a strip: 32 bytes for 8 elements of k, [4 channels, 8 elements], then the
  // steps of the multipliers as smmla leaves the dots: of channels 0 1 0 1 and 2 3 2 3.
  static constexpr size_t kStrips = 4;
  static constexpr size_t kStepBytes = 32;
  static constexpr size_t kSubgroupBytes = 5 * kStepBytes;
  static constexpr size_t PanelBytes(size_t depth) { return depth / kSubgroup * kSubgroupBytes * kStrips; }

  static void Unpack(uint8_t *to, const Packed &packed) {
    const uint8_t *weights = packed.weights;
    const size_t strip_bytes = packed.subgroups * kSubgroupBytes;
    for (size_t s = 0; s < packed.subgroups; ++s) {
      ACORN_UNROLL
      for (int half = 0; half < 2; ++half, to += 2 * kStepBytes) {
        int8x16x4_t strips[kStrips];
        Codes::UnpackStrips(strips, weights);
        ACORN_UNROLL
        for (size_t i = 0; i < kStrips; ++i) vst1q_s8_x4(reinterpret_cast<int8_t *>(to + i * strip_bytes), strips[i]);
      }
      const MultiplierSteps multipliers(packed, s);
      ACORN_UNROLL
      for (size_t i = 0; i < kStrips; ++i) {
        const int64x2_t pairs = vreinterpretq_s64_s32(multipliers.channels[i]);
        int64_t *out = reinterpret_cast<int64_t *>(to + i * strip_bytes);
        vst1q_s64(out, vzip1q_s64(pairs, pairs));
        vst1q_s64(out + 2, vzip2q_s64(pairs, pairs));
      }
      to += kStepBytes;
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

  template <int kP>
  static ACORN_INLINE auto TakePairs(const uint8_t *&x) {
    if constexpr (kP == 4) {
      return Take64(x);
    } else if constexpr (kP == 3) {
      return Take48(x);
    } else {
      return Take32(x);
    }
  }

  // Eight elements of k.
  template <int kP>
  static ACORN_INLINE void Step(int32x4_t (&dot)[kP][2], const uint8_t *&x, uint8x16_t w0, uint8x16_t w1) {
    const auto pairs = TakePairs<kP>(x);
    ACORN_UNROLL
    for (int p = 0; p < kP; ++p) {
      const int8x16_t pair = vreinterpretq_s8_u8(pairs.val[p]);
      dot[p][0] = vmmlaq_s32(dot[p][0], pair, vreinterpretq_s8_u8(w0));
      dot[p][1] = vmmlaq_s32(dot[p][1], pair, vreinterpretq_s8_u8(w1));
    }
  }

  // kP pairs of rows. `last_stride` is 0 where the last row is its own partner.
  template <int kP>
  static ACORN_NOINLINE void Block(const PanelJob &job, size_t last_stride) {
    const uint8_t *panel = job.panel;
    const size_t subgroups = job.subgroups, stride = job.acc_stride;
    const Start start = job.start;
    int32_t *rows[kP];  // the first of each pair
    ACORN_UNROLL
    for (int p = 0; p < kP; ++p) rows[p] = job.acc + static_cast<size_t>(2 * p) * stride;
    for (size_t strip = kStrips; strip != 0; --strip) {
      int32x4_t acc[kP][2] = {}, dot[kP][2] = {};
      if (start == Start::kAcc) {
        ACORN_UNROLL
        for (int p = 0; p < kP; ++p) Load(acc[p], rows[p], rows[p] + (p + 1 == kP ? last_stride : stride));
      }
      const uint8_t *x = job.prepared;
      size_t s = subgroups;
      do {
        ACORN_UNROLL
        for (int half = 0; half < 2; ++half) {
          const uint8x16x4_t w = Take64(panel);
          Step<kP>(dot, x, w.val[0], w.val[1]);
          Step<kP>(dot, x, w.val[2], w.val[3]);
        }
        const uint8x16x2_t multipliers = Take32(panel);
        ACORN_UNROLL
        for (int p = 0; p < kP; ++p) {
          acc[p][0] = AddWrapping(acc[p][0], dot[p][0], multipliers.val[0]);
          acc[p][1] = AddWrapping(acc[p][1], dot[p][1], multipliers.val[1]);
        }
      } while (--s != 0);
      ACORN_UNROLL
      for (int p = 0; p < kP; ++p) {
        Store(rows[p], rows[p] + (p + 1 == kP ? last_stride : stride), acc[p]);
        rows[p] += 4;
      }
    }
  }

  // More rows than are streamed, in blocks as equal as can be, are 2 to 4 pairs a block.
  static void Panel(const PanelJob &job, size_t rows) {
    const size_t last_stride = rows % 2 == 0 ? job.acc_stride : 0;
    if (rows > 6) return Block<4>(job, last_stride);
    if (rows > 4) return Block<3>(job, last_stride);
    Block<2>(job, last_stride);
  }
};

}  // namespace
}  // namespace acorn::grouped
