// Our kernels for layout kX16C8 with Advanced SIMD alone: a register of the tile, 2 channels x 8 k, times 8 values of x in both
// halves. Products are added in 16 bits as long as they fit: two of kW8 (2 * 127 * 127 < 2^15), 32 of kW4 (32 * 127 * 8 < 2^15).
// For neon.cc of gemm_s8_w8 and gemm_s8_w4, each with a copy of its own (kernels/xnnpack/tiles.h).
#pragma once

#include "kernels/xnnpack/neon_tile.h"

namespace acorn {
namespace {

/// kUnpacked: nibbles were unpacked to bytes, for all rows at once.
template <WeightFormat kWeights, bool kUnpacked>
struct NeonRows {
  static constexpr WeightFormat kFormat = kWeights;
  static constexpr size_t kRows = 2;
  static constexpr size_t kRowUnit = 1;
  static constexpr size_t kUnit = kXnnKr;
  static constexpr size_t kCopies = 1;
  static constexpr size_t kStep = kWeights == WeightFormat::kW4 ? 2 * kXnnKr : kXnnKr;
  static constexpr bool kUnpacks = kUnpacked;

  static size_t Tiles(size_t) { return 1; }

  static void Unpack(uint8_t *to, const uint8_t *w, size_t depth) { UnpackTile<Plain>(to, w, depth); }

  /// kR rows of x with registers kFirst to kFirst + kV - 1 of a tile's rows; 8 lanes of 16 bits for each channel.
  template <size_t kR, size_t kV>
  using Parts = int16x8_t[kR][kV][2];
  template <size_t kR, size_t kV>
  using Sums = int32x4_t[kR][kV][2];

  /// The empty asm keeps GCC from loading each half of a register on its own, for each use.
  static void LoadTwo(int8x16_t (&two)[2], const uint8_t *w) {
    two[0] = vld1q_s8(reinterpret_cast<const int8_t *>(w));
    two[1] = vld1q_s8(reinterpret_cast<const int8_t *>(w + 16));
    __asm__("" : "+w"(two[0]), "+w"(two[1]));
  }

  /// kW8: two registers of a row of a tile and, with kBoth, of the row after it.
  template <size_t kR, size_t kV, bool kBoth>
  static void AddBytes(Sums<kR, kV> &sum, size_t first, const uint8_t *w, const int8x16_t (&x0)[kR],
                       const int8x16_t (&x1)[kR]) {
    int8x16_t w0[2], w1[2];
    LoadTwo(w0, w + 16 * first);
    if (kBoth) LoadTwo(w1, w + kTileRowBytes + 16 * first);
    ACORN_UNROLL
    for (size_t i = 0; i < 2; ++i) {
      ACORN_UNROLL
      for (size_t r = 0; r < kR; ++r) {
        int16x8_t low = vmull_s8(vget_low_s8(w0[i]), vget_low_s8(x0[r]));
        int16x8_t high = vmull_high_s8(w0[i], x0[r]);
        if (kBoth) {
          low = vmlal_s8(low, vget_low_s8(w1[i]), vget_low_s8(x1[r]));
          high = vmlal_high_s8(high, w1[i], x1[r]);
        }
        sum[r][first + i][0] = vpadalq_s16(sum[r][first + i][0], low);
        sum[r][first + i][1] = vpadalq_s16(sum[r][first + i][1], high);
      }
    }
  }

  template <size_t kR>
  static void TakeEights(int8x16_t (&eights)[kR], const uint8_t *&x) {
    ACORN_UNROLL
    for (size_t r = 0; r < kR; ++r) eights[r] = TakeEightTwice(x);
  }

  template <size_t kR, size_t kV, bool kBoth>
  static void AddRows(Sums<kR, kV> &sum, const uint8_t *w, const uint8_t *&x) {
    int8x16_t x0[kR], x1[kR];
    TakeEights(x0, x);
    if (kBoth) TakeEights(x1, x);
    ACORN_UNROLL
    for (size_t i = 0; i < kV; i += 2) AddBytes<kR, kV, kBoth>(sum, i, w, x0, x1);
  }

  template <size_t kR, size_t kV>
  static void SumBytes(Sums<kR, kV> &sum, const uint8_t *w, const uint8_t *x, size_t depth) {
    for (size_t pairs = depth / (2 * kXnnKr); pairs != 0; --pairs, w += 2 * kTileRowBytes) AddRows<kR, kV, true>(sum, w, x);
    if (depth % (2 * kXnnKr) != 0) AddRows<kR, kV, false>(sum, w, x);
  }

  template <size_t kR, size_t kV>
  static void AddProducts(Parts<kR, kV> &part, size_t first, const int8x16_t (&two)[2], const int8x16_t (&x)[kR]) {
    ACORN_UNROLL
    for (size_t i = 0; i < 2; ++i) {
      ACORN_UNROLL
      for (size_t r = 0; r < kR; ++r) {
        part[r][first + i][0] = vmlal_s8(part[r][first + i][0], vget_low_s8(two[i]), vget_low_s8(x[r]));
        part[r][first + i][1] = vmlal_high_s8(part[r][first + i][1], two[i], x[r]);
      }
    }
  }

  /// kW4: 16 k of two registers.
  template <size_t kR, size_t kV>
  static void AddNibbles(Parts<kR, kV> &part, size_t first, const uint8_t *w, const int8x16_t (&x0)[kR],
                         const int8x16_t (&x1)[kR]) {
    int8x16_t low[2], high[2];
    LoadTwo(low, w + 16 * first);
    if (kUnpacked) {
      LoadTwo(high, w + kTileRowBytes + 16 * first);
    } else {
      ACORN_UNROLL
      for (size_t i = 0; i < 2; ++i) {
        high[i] = Plain::High(low[i]);
        low[i] = Plain::Low(low[i]);
      }
    }
    AddProducts<kR, kV>(part, first, low, x0);
    AddProducts<kR, kV>(part, first, high, x1);
  }

  /// kW4: 256 k at a time, 32 products in a lane of 16 bits.
  template <size_t kR, size_t kV>
  static void SumNibbles(Sums<kR, kV> &sum, const uint8_t *w, const uint8_t *x, size_t depth) {
    for (size_t begin = 0; begin < depth; begin += 256) {
      Parts<kR, kV> part;
      ACORN_UNROLL
      for (size_t i = 0; i < kR * kV * 2; ++i) part[i / (kV * 2)][i / 2 % kV][i % 2] = vdupq_n_s16(0);
      const uint8_t *const end = x + kR * (depth - begin < 256 ? depth - begin : 256);
      do {
        int8x16_t x0[kR], x1[kR];
        TakeEights(x0, x);
        TakeEights(x1, x);
        ACORN_UNROLL
        for (size_t i = 0; i < kV; i += 2) AddNibbles<kR, kV>(part, i, w, x0, x1);
        w += (kUnpacked ? 2 : 1) * kTileRowBytes;
      } while (x != end);
      ACORN_UNROLL
      for (size_t i = 0; i < kR * kV * 2; ++i) {
        int32x4_t &to = sum[i / (kV * 2)][i / 2 % kV][i % 2];
        to = vpadalq_s16(to, part[i / (kV * 2)][i / 2 % kV][i % 2]);
      }
    }
  }

  template <size_t kR, size_t kV, size_t kFirst>
  static void Sum(const TileBlock &block) {
    if (block.columns <= 2 * kFirst) return;
    Sums<kR, kV> sum;
    ACORN_UNROLL
    for (size_t i = 0; i < kR * kV * 2; ++i) sum[i / (kV * 2)][i / 2 % kV][i % 2] = vdupq_n_s32(0);
    if (kWeights == WeightFormat::kW8) {
      SumBytes<kR, kV>(sum, block.w + 16 * kFirst, block.x, block.depth);
    } else {
      SumNibbles<kR, kV>(sum, block.w + 16 * kFirst, block.x, block.depth);
    }
    ACORN_UNROLL
    for (size_t r = 0; r < kR; ++r) {
      int32x4_t sums[kV / 2];
      ACORN_UNROLL
      for (size_t i = 0; i < kV / 2; ++i) {
        const int32x4_t even = vpaddq_s32(sum[r][2 * i][0], sum[r][2 * i][1]);
        sums[i] = vpaddq_s32(even, vpaddq_s32(sum[r][2 * i + 1][0], sum[r][2 * i + 1][1]));
      }
      SaveSums(block.acc + r * block.acc_stride + 2 * kFirst, sums, block.columns - 2 * kFirst, block.store);
    }
  }

  static void Block(size_t rows, size_t, const TileBlock &block) {
    if (rows == 1) return Sum<1, 8, 0>(block);
    Sum<2, 4, 0>(block);
    Sum<2, 4, 4>(block);
  }
};

template <WeightFormat kFormat>
struct NeonKernel {
  static constexpr size_t kMany = 3;  // rows from which on nibbles are unpacked once for all of them
  using Few = TileMajorDriver<NeonRows<kFormat, false>>;
  using Many = TileMajorDriver<NeonRows<kFormat, kFormat == WeightFormat::kW4>>;

  static size_t ScratchBytes(size_t m, size_t k) { return m < kMany ? Few::ScratchBytes(m, k) : Many::ScratchBytes(m, k); }
  static void Run(const GemmArgs &args) { args.m < kMany ? Few::Run(args) : Many::Run(args); }
};

}  // namespace
}  // namespace acorn
