// The engine of cores with dot product instructions (driver_arm.h).
#pragma once

#include "kernels/grouped/engine_dot.h"

namespace acorn::grouped {
namespace {

// Panels: 3 rows x 16 channels, sums and dots in 24 registers.
template <typename Codes>
struct EngineNeonDot : DotStream<Codes> {
  static constexpr size_t kStreamRows = 2 * DotStream<Codes>::kStreamBlockRows;

  static constexpr size_t kPanelBlockRows = 3, kPanelUnit = 1;
  static constexpr size_t PanelRowBytes(size_t) { return 0; }

  // A subgroup of a panel: 64 bytes for four elements of k, then the steps of the multipliers.
  static constexpr size_t kStepBytes = 64;
  static constexpr size_t PanelBytes(size_t depth) { return depth * c4::kTileChannels + depth / kSubgroup * kStepBytes; }

  static void Unpack(uint8_t *to, const Packed &packed) {
    const uint8_t *weights = packed.weights;
    for (size_t s = 0; s < packed.subgroups; ++s) {
      UnpackSubgroup<Codes>(to, weights);
      const MultiplierSteps multipliers(packed, s);
      ACORN_UNROLL
      for (int i = 0; i < 4; ++i) vst1q_s32(reinterpret_cast<int32_t *>(to) + 4 * i, multipliers.channels[i]);
      to += kStepBytes;
    }
  }

  template <int kLane, int kR>
  static ACORN_INLINE void Step(int32x4_t (&dot)[kR][4], const uint8_t *&panel, const int8x16_t (&x)[kR]) {
    const uint8x16x4_t w = Take64(panel);
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) {
      ACORN_UNROLL
      for (int i = 0; i < 4; ++i) dot[r][i] = vdotq_laneq_s32(dot[r][i], vreinterpretq_s8_u8(w.val[i]), x[r], kLane);
    }
  }

  template <int kR>
  static ACORN_NOINLINE void Block(const PanelJob &job) {
    int32x4_t dot[kR][4] = {};
    PanelSubgroups<kR>(job, [&dot](int32x4_t (&acc)[kR][4], const int8_t *(&x)[kR], const uint8_t *&panel) {
      ACORN_UNROLL
      for (int half = 0; half < 2; ++half) {
        int8x16_t x16[kR];
        ACORN_UNROLL
        for (int r = 0; r < kR; ++r) x16[r] = Take16(x[r]);
        Step<0>(dot, panel, x16);
        Step<1>(dot, panel, x16);
        Step<2>(dot, panel, x16);
        Step<3>(dot, panel, x16);
      }
      const uint8x16x4_t multipliers = Take64(panel);
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) {
        ACORN_UNROLL
        for (int i = 0; i < 4; ++i) acc[r][i] = AddWrapping(acc[r][i], dot[r][i], multipliers.val[i]);
      }
    });
  }

  // More rows than are streamed, in blocks as equal as can be, are 2 or 3 a block.
  static void Panel(const PanelJob &job, size_t rows) {
    if (rows == 2) return Block<2>(job);
    Block<3>(job);
  }
};

}  // namespace
}  // namespace acorn::grouped
