// Our kernels for layout kX16C8 with matrix products (smmla): a register of the tile, 2 channels x 8 k, times 8 values of two
// rows of x gives the four sums. One row has no use for that and takes sdot (kernels/xnnpack/isa_neondot.h).
// For i8mm.cc of gemm_s8_w8 and gemm_s8_w4, each with a copy of its own (kernels/xnnpack/tiles.h).
#pragma once

#include "kernels/xnnpack/isa_neondot.h"

namespace acorn {
namespace {

/// kUnpacked: nibbles were unpacked to bytes, for all rows at once.
template <WeightFormat kWeights, bool kUnpacked>
struct I8mmPairs {
  static constexpr WeightFormat kFormat = kWeights;
  static constexpr size_t kRows = 6;
  static constexpr size_t kRowUnit = 2;
  static constexpr size_t kUnit = kXnnKr;
  static constexpr size_t kCopies = 1;
  static constexpr size_t kStep = kWeights == WeightFormat::kW4 ? 2 * kXnnKr : kXnnKr;
  static constexpr bool kUnpacks = kUnpacked;

  static size_t Tiles(size_t) { return 1; }

  static void Unpack(uint8_t *to, const uint8_t *w, size_t depth) { UnpackTile<SixteenFold>(to, w, depth); }

  /// Registers kFirst to kFirst + kV - 1 of a tile's rows, kV a multiple of 4, for kP pairs of rows.
  template <size_t kP, size_t kV, size_t kFirst>
  static void Sum(const TileBlock &block, size_t rows) {
    int32x4_t sum[kP][kV];  // of row 0: channel 0, channel 1; of row 1: the same
    ACORN_UNROLL
    for (size_t p = 0; p < kP; ++p) {
      ACORN_UNROLL
      for (size_t i = 0; i < kV; ++i) sum[p][i] = vdupq_n_s32(0);
    }
    const uint8_t *w = block.w + 16 * kFirst;
    const uint8_t *x = block.x;
    const uint8_t *const end = x + 2 * kP * block.depth;
    do {
      int8x16_t pairs[kParts][kP];
      ACORN_UNROLL
      for (size_t part = 0; part < kParts; ++part) Take(pairs[part], x);
      ACORN_UNROLL
      for (size_t i = 0; i < kV; i += 4) {
        int8x16_t four[4];
        Take(four, w);
        ACORN_UNROLL
        for (size_t j = 0; j < 4; ++j) {
          const int8x16_t first = kParts == 2 ? SixteenFold::Low(four[j]) : four[j];
          ACORN_UNROLL
          for (size_t p = 0; p < kP; ++p) sum[p][i + j] = vmmlaq_s32(sum[p][i + j], pairs[0][p], first);
          if (kParts == 2) {
            const int8x16_t second = SixteenFold::High(four[j]);
            ACORN_UNROLL
            for (size_t p = 0; p < kP; ++p) sum[p][i + j] = vmmlaq_s32(sum[p][i + j], pairs[kParts - 1][p], second);
          }
        }
      }
      w += kTileRowBytes - 16 * kV;
    } while (x != end);
    if (block.columns <= 2 * kFirst) return;
    ACORN_UNROLL
    for (size_t p = 0; p < kP; ++p) {
      int32x4_t even[kV / 2], odd[kV / 2];
      ACORN_UNROLL
      for (size_t i = 0; i < kV / 2; ++i) {
        const int64x2_t a = vreinterpretq_s64_s32(sum[p][2 * i]), b = vreinterpretq_s64_s32(sum[p][2 * i + 1]);
        even[i] = FinishSum<kFormat>(vreinterpretq_s32_s64(vzip1q_s64(a, b)));
        odd[i] = FinishSum<kFormat>(vreinterpretq_s32_s64(vzip2q_s64(a, b)));
      }
      int32_t *to = block.acc + 2 * p * block.acc_stride + 2 * kFirst;
      SaveSums(to, even, block.columns - 2 * kFirst, block.store);
      if (2 * p + 1 < rows) SaveSums(to + block.acc_stride, odd, block.columns - 2 * kFirst, block.store);
    }
  }

  static void Block(size_t rows, size_t, const TileBlock &block) {
    if (rows <= 2) return Sum<1, 8, 0>(block, rows);
    if (rows <= 4) return Sum<2, 8, 0>(block, rows);
    if (kParts == 1) return Sum<3, 8, 0>(block, rows);
    // 24 sums leave no registers for the nibbles.
    Sum<3, 4, 0>(block, rows);
    Sum<3, 4, 4>(block, rows);
  }

 private:
  static constexpr size_t kParts = kWeights == WeightFormat::kW4 && !kUnpacked ? 2 : 1;  // eights of k in what it reads as a row
};

template <WeightFormat kFormat>
struct I8mmKernel {
  using One = TileMajorDriver<NeonDotFew<kFormat>>;
  using Few = TileMajorDriver<I8mmPairs<kFormat, false>>;
  using Many = TileMajorDriver<I8mmPairs<kFormat, kFormat == WeightFormat::kW4>>;
  static constexpr size_t kMany = 7;  // more than one block of rows

  static size_t ScratchBytes(size_t m, size_t k) {
    return m == 1 ? One::ScratchBytes(m, k) : m < kMany ? Few::ScratchBytes(m, k) : Many::ScratchBytes(m, k);
  }
  static void Run(const GemmArgs &args) { args.m == 1 ? One::Run(args) : args.m < kMany ? Few::Run(args) : Many::Run(args); }
};

}  // namespace
}  // namespace acorn
