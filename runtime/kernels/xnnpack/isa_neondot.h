// Our kernels for layout kX16C8 with dot products (sdot). Few rows use a register of the tile as it lies, against 8 values of x
// in both halves, which are laid out so once for all tiles: a channel's sum is two lanes, added at the end. For many rows a tile
// is unpacked once to 16 channels x 4 k, the order in which sdot takes 4 values of x from a lane: a channel's sum is one lane,
// and a load of x serves four times as many.
// For neondot.cc and i8mm.cc of gemm_s8_w8 and gemm_s8_w4, each with a copy of its own (kernels/xnnpack/tiles.h).
#pragma once

#include "kernels/xnnpack/neon_tile.h"

namespace acorn {
namespace {

template <WeightFormat kWeights>
struct NeonDotFew {
  static constexpr WeightFormat kFormat = kWeights;
  static constexpr size_t kRows = kWeights == WeightFormat::kW8 ? 3 : 4;
  static constexpr size_t kRowUnit = 1;
  static constexpr size_t kUnit = kXnnKr;
  static constexpr size_t kCopies = 2;
  static constexpr size_t kStep = 2 * kXnnKr;  // of kW8 two rows of a tile: behind the last one its scales and biases, times 0
  static constexpr bool kUnpacks = false;

  static size_t Tiles(size_t rows) { return rows == 1 ? 2 : 1; }

  /// Registers kFirst to kFirst + kV - 1 of a tile's rows, 4 or all 8, for kR rows and kT tiles.
  template <size_t kR, size_t kT, size_t kV, size_t kFirst>
  static void Sum(const TileBlock &block) {
    if (block.columns <= 2 * kFirst) return;
    Sums<kR, kT, kV> sum;
    const uint8_t *w[kT];
    ACORN_UNROLL
    for (size_t t = 0; t < kT; ++t) {
      w[t] = block.w + t * block.w_step + 16 * kFirst;
      ACORN_UNROLL
      for (size_t r = 0; r < kR; ++r) {
        ACORN_UNROLL
        for (size_t i = 0; i < kV; ++i) sum[r][t][i] = vdupq_n_s32(0);
      }
    }
    const uint8_t *x = block.x;
    const uint8_t *const end = x + kCopies * kR * block.depth;
    do {
      ACORN_UNROLL
      for (size_t row = 0; row < 2 / kParts; ++row) AddRow<kR, kT, kV>(sum, w, x);
    } while (x != end);
    ACORN_UNROLL
    for (size_t r = 0; r < kR; ++r) {
      ACORN_UNROLL
      for (size_t t = 0; t < kT; ++t) {
        int32x4_t sums[kV / 2];
        ACORN_UNROLL
        for (size_t i = 0; i < kV / 2; ++i) sums[i] = FinishSum<kFormat>(vpaddq_s32(sum[r][t][2 * i], sum[r][t][2 * i + 1]));
        SaveSums(block.acc + r * block.acc_stride + t * block.acc_step + 2 * kFirst, sums, block.columns - 2 * kFirst,
                 block.store);
      }
    }
  }

  static void Block(size_t rows, size_t tiles, const TileBlock &block) {
    if (rows == 1) return tiles == 2 ? Sum<1, 2, 8, 0>(block) : Sum<1, 1, 8, 0>(block);
    if (rows == 2) return Sum<2, 1, 8, 0>(block);
    if constexpr (kWeights == WeightFormat::kW8) {
      Sum<3, 1, 8, 0>(block);
    } else {
      // 24 sums leave no registers for the nibbles.
      rows == 3 ? SumHalves<3>(block) : SumHalves<4>(block);
    }
  }

 private:
  static constexpr size_t kParts = kWeights == WeightFormat::kW4 ? 2 : 1;  // eights of k in a row of a tile

  template <size_t kR, size_t kT, size_t kV>
  using Sums = int32x4_t[kR][kT][kV];

  template <size_t kR>
  static void SumHalves(const TileBlock &block) {
    Sum<kR, 1, 4, 0>(block);
    Sum<kR, 1, 4, 4>(block);
  }

  /// Part kPart of a register of tile t, to sum `i`.  x: [kR]
  template <size_t kPart, size_t kR, size_t kT, size_t kV>
  static void Add(Sums<kR, kT, kV> &sum, size_t t, size_t i, int8x16_t bytes, const int8x16_t *x) {
    const int8x16_t w = kParts == 1 ? bytes : kPart == 0 ? SixteenFold::Low(bytes) : SixteenFold::High(bytes);
    ACORN_UNROLL
    for (size_t r = 0; r < kR; ++r) sum[r][t][i] = vdotq_s32(sum[r][t][i], w, x[r]);
  }

  /// Four registers of a row of tile t, to the sums from `first` on.
  template <size_t kR, size_t kT>
  static void AddHalf(Sums<kR, kT, 8> &sum, size_t t, size_t first, const int8x16_t (&four)[4],
                      const int8x16_t (&x)[kParts * kR]) {
    ACORN_UNROLL
    for (size_t i = 0; i < 4; ++i) {
      Add<0, kR, kT, 8>(sum, t, first + i, four[i], x);
      if constexpr (kParts == 2) Add<1, kR, kT, 8>(sum, t, first + i, four[i], x + kR);
    }
  }

  /// A row of each tile.
  template <size_t kR, size_t kT, size_t kV>
  static void AddRow(Sums<kR, kT, kV> &sum, const uint8_t *(&w)[kT], const uint8_t *&x) {
    if constexpr (kV == 4) {
      int8x16_t four[4];
      Take(four, w[0]);
      StepOver(w[0], kTileRowBytes / 2);
      int8x16_t eights[kR];  // one part after the other: were both there, GCC would copy the first out of the second's way
      Take(eights, x);
      ACORN_UNROLL
      for (size_t i = 0; i < 4; ++i) Add<0, kR, kT, kV>(sum, 0, i, four[i], eights);
      Take(eights, x);
      ACORN_UNROLL
      for (size_t i = 0; i < 4; ++i) Add<1, kR, kT, kV>(sum, 0, i, four[i], eights);
    } else {
      int8x16_t eights[kParts * kR], even[4], odd[4];
      Take(eights, x);
      // Each half of a row is loaded ahead of its use, for cores that work in order; three rows leave no registers for that.
      Take(even, w[0]);
      if constexpr (kR < 3) Take(odd, w[0]);
      AddHalf<kR, kT>(sum, 0, 0, even, eights);
      if constexpr (kR == 3) Take(odd, w[0]);
      if constexpr (kT == 2) Take(even, w[1]);
      AddHalf<kR, kT>(sum, 0, 4, odd, eights);
      if constexpr (kT == 2) {
        Take(odd, w[1]);
        AddHalf<kR, kT>(sum, 1, 0, even, eights);
        AddHalf<kR, kT>(sum, 1, 4, odd, eights);
      }
    }
  }
};

template <WeightFormat kWeights>
struct NeonDotMany {
  static constexpr WeightFormat kFormat = kWeights;
  static constexpr size_t kRows = 4;
  static constexpr size_t kRowUnit = 1;
  static constexpr size_t kUnit = 16;
  static constexpr size_t kCopies = 1;
  static constexpr size_t kStep = 16;
  static constexpr bool kUnpacks = true;

  static size_t Tiles(size_t) { return 1; }

  /// 2 channels x 8 k, four times, to half of two rows of 16 channels x 4 k at `to`.
  static void StoreQuads(uint8_t *to, const int8x16_t (&half)[4]) {
    ACORN_UNROLL
    for (size_t i = 0; i < 2; ++i) {
      const int32x4_t a = vreinterpretq_s32_s8(half[2 * i]), b = vreinterpretq_s32_s8(half[2 * i + 1]);
      vst1q_s32(reinterpret_cast<int32_t *>(to + 16 * i), vuzp1q_s32(a, b));
      vst1q_s32(reinterpret_cast<int32_t *>(to + 64 + 16 * i), vuzp2q_s32(a, b));
    }
  }

  /// To [depth / 4, 16 channels, 4 k], depth rounded up to 16 with zeros.
  static void Unpack(uint8_t *to, const uint8_t *w, size_t depth) {
    for (size_t k = 0; k < depth; k += kParts * kXnnKr, to += kParts * kTileRowBytes) {
      ACORN_UNROLL
      for (size_t half = 0; half < 2; ++half) {
        int8x16_t low[4], high[4];
        Take(low, w);
        if (kParts == 2) {
          ACORN_UNROLL
          for (size_t i = 0; i < 4; ++i) {
            high[i] = SixteenFold::High(low[i]);
            low[i] = SixteenFold::Low(low[i]);
          }
          StoreQuads(to + kTileRowBytes + 32 * half, high);
        }
        StoreQuads(to + 32 * half, low);
      }
    }
    if (depth % kStep != 0) __builtin_memset(to, 0, kTileRowBytes);
  }

  template <size_t kR>
  static void Sum(const TileBlock &block) {
    int32x4_t sum[kR][4];
    ACORN_UNROLL
    for (size_t r = 0; r < kR; ++r) {
      ACORN_UNROLL
      for (size_t i = 0; i < 4; ++i) sum[r][i] = vdupq_n_s32(0);
    }
    const uint8_t *w = block.w;
    const uint8_t *x = block.x;
    const uint8_t *const end = x + kR * block.depth;
    do {
      int8x16_t sixteens[kR], even[4], odd[4];  // four registers of weights ahead, as above
      Take(sixteens, x);
      Take(even, w);
      Take(odd, w);
      AddQuad<kR, 0>(sum, even, sixteens);
      Take(even, w);
      AddQuad<kR, 1>(sum, odd, sixteens);
      Take(odd, w);
      AddQuad<kR, 2>(sum, even, sixteens);
      AddQuad<kR, 3>(sum, odd, sixteens);
    } while (x != end);
    ACORN_UNROLL
    for (size_t r = 0; r < kR; ++r) {
      ACORN_UNROLL
      for (size_t i = 0; i < 4; ++i) sum[r][i] = FinishSum<kFormat>(sum[r][i]);
      SaveSums(block.acc + r * block.acc_stride, sum[r], block.columns, block.store);
    }
  }

  static void Block(size_t rows, size_t, const TileBlock &block) {
    if (rows == 4) return Sum<4>(block);
    if (rows == 3) return Sum<3>(block);
    if (rows == 2) return Sum<2>(block);
    Sum<1>(block);
  }

 private:
  static constexpr size_t kParts = kWeights == WeightFormat::kW4 ? 2 : 1;

  template <size_t kR, int kLane>
  static void AddQuad(int32x4_t (&sum)[kR][4], const int8x16_t (&quads)[4], const int8x16_t (&x)[kR]) {
    ACORN_UNROLL
    for (size_t r = 0; r < kR; ++r) {
      ACORN_UNROLL
      for (size_t i = 0; i < 4; ++i) sum[r][i] = vdotq_laneq_s32(sum[r][i], quads[i], x[r], kLane);
    }
  }
};

template <WeightFormat kFormat>
struct NeonDotKernel {
  // Rows from which on a tile is unpacked. Counted, 9 is where it begins to pay for kW4 and 26 for kW8; but from 16 on it costs
  // 5 % at most, and leaves more of a small cache to others than rows that lie twice.
  static constexpr size_t kMany = kFormat == WeightFormat::kW8 ? 16 : 9;
  using Few = TileMajorDriver<NeonDotFew<kFormat>>;
  using Many = TileMajorDriver<NeonDotMany<kFormat>>;

  static size_t ScratchBytes(size_t m, size_t k) { return m < kMany ? Few::ScratchBytes(m, k) : Many::ScratchBytes(m, k); }
  static void Run(const GemmArgs &args) { args.m < kMany ? Few::Run(args) : Many::Run(args); }
};

}  // namespace
}  // namespace acorn
