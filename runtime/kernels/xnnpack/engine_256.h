// Our kernels for both of XNNPACK's layouts with registers of 256 bits: a register is 4 channels x 8 k, a channel's sum two lanes.
// For the avx2.cc and avxvnni.cc of gemm_s8_w8 and gemm_s8_w4, each with a copy of its own (kernels/xnnpack/tiles.h).
//
// An Isa<format, layout> has
//   kRows                rows of its largest block
//   kFlip                what LoadRow flips in a byte of x: 0x80 makes it x + 128
//   Start(ksum)          what the sums of a channel start from
//   Unpack(parts, v, bytes)    a register of packed weights as kParts registers of 8-bit weights: the eights of k in it
//   Eight                the form of 8 values of x that Dot takes, from Load
//   Dot(sum, x, w)       sum + x * w, over the kParts eights
//   Finish(sum)
#pragma once

#include <immintrin.h>

#include "kernels/xnnpack/tiles.h"

namespace acorn {
namespace {

/// The eight values at `x`, four times.
inline __m256i BroadcastEight(const uint8_t *x) {
  long long eight;
  __builtin_memcpy(&eight, x, sizeof(eight));
  return _mm256_set1_epi64x(eight);
}

/// The weights of the low and the high nibbles of `bytes`.
template <Layout kLayout>
inline void DecodeNibbles(__m256i (&parts)[2], __m256i bytes) {
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i table = kLayout == Layout::kX16C8
                            ? _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1,  //
                                               0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1)
                            : _mm256_setr_epi8(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7,  //
                                               -8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
  parts[0] = _mm256_shuffle_epi8(table, _mm256_and_si256(bytes, nibble));
  parts[1] = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble));
}

template <typename Isa>
struct Engine256 {
  static constexpr WeightFormat kFormat = Isa::kFormat;
  static constexpr Layout kLayout = Isa::kLayout;
  static constexpr size_t kRows = Isa::kRows;
  static constexpr size_t kNr = XnnNr(kLayout);
  static constexpr size_t kParts = kFormat == WeightFormat::kW4 ? 2 : 1;
  static constexpr size_t kRowBytes = kNr * kXnnKr;
  static constexpr size_t kAhead = 2048;  // bytes from a load to what is prefetched

  static size_t Tiles(size_t rows) { return rows == 1 ? 2 : 1; }

  static void LoadRow(uint8_t *to, const int8_t *from, size_t k, size_t depth) {
    for (size_t i = 0; i < k; ++i) to[i] = static_cast<uint8_t>(from[i] ^ Isa::kFlip);
    for (size_t i = k; i < depth; ++i) to[i] = Isa::kFlip;
  }

  /// The channels of registers kFirst to kFirst + kV - 1 of a tile's row, of kT tiles.
  template <size_t kR, size_t kT, size_t kV, size_t kFirst>
  static void Sum(const TileBlock &block, size_t rows) {
    __m256i sum[kR][kT][kV];
    const uint8_t *w[kT];
    ACORN_UNROLL
    for (size_t t = 0; t < kT; ++t) {
      w[t] = block.w + t * block.w_step;
      ACORN_UNROLL
      for (size_t v = 0; v < kV; ++v) {
        const __m128i ksum = _mm_load_si128(reinterpret_cast<const __m128i *>(w[t]) + kFirst + v);
        const __m256i start = _mm256_cvtepu32_epi64(Isa::Start(ksum));
        ACORN_UNROLL
        for (size_t r = 0; r < kR; ++r) sum[r][t][v] = start;
      }
      w[t] += kNr * sizeof(int32_t);
    }
    const uint8_t *x = block.x;
    for (size_t k = 0; k < block.depth; k += kParts * kXnnKr, x += kParts * kXnnKr) {
      __m256i weights[kT][kV][kParts];
      ACORN_UNROLL
      for (size_t t = 0; t < kT; ++t) {
        ACORN_UNROLL
        for (size_t v = 0; v < kV; ++v) {
          Isa::Unpack(weights[t][v], _mm256_load_si256(reinterpret_cast<const __m256i *>(w[t]) + kFirst + v));
        }
        if (kR <= 2) {
          _mm_prefetch(reinterpret_cast<const char *>(w[t] + kAhead), _MM_HINT_T0);
          if (kRowBytes > 64) _mm_prefetch(reinterpret_cast<const char *>(w[t] + kAhead + 64), _MM_HINT_T0);
        }
        w[t] += kRowBytes;
      }
      ACORN_UNROLL
      for (size_t r = 0; r < kR; ++r) {
        const typename Isa::Eight eight(x + r * block.x_stride);
        ACORN_UNROLL
        for (size_t t = 0; t < kT; ++t) {
          ACORN_UNROLL
          for (size_t v = 0; v < kV; ++v) sum[r][t][v] = Isa::Dot(sum[r][t][v], eight, weights[t][v]);
        }
      }
    }
    ACORN_UNROLL
    for (size_t r = 0; r < kR; ++r) {
      if (r == rows) break;
      ACORN_UNROLL
      for (size_t t = 0; t < kT; ++t) {
        ACORN_UNROLL
        for (size_t v = 0; v < kV; v += 2) {
          const size_t first = (kFirst + v) * 4;
          if (first >= block.columns) break;
          const __m256i pairs = _mm256_hadd_epi32(sum[r][t][v], sum[r][t][v + 1]);
          Save(block, block.acc + r * block.acc_stride + t * block.acc_step + first, block.columns - first,
               Isa::Finish(_mm256_permute4x64_epi64(pairs, 0xd8)));
        }
      }
    }
  }

  static void Save(const TileBlock &block, int32_t *to, size_t columns, __m256i acc) {
    __m256i *const place = reinterpret_cast<__m256i *>(to);
    if (columns >= 8) {
      if (block.store == Store::kAdd) acc = _mm256_add_epi32(acc, _mm256_loadu_si256(place));
      _mm256_storeu_si256(place, acc);
    } else {
      const __m256i mask =
          _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(columns)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
      if (block.store == Store::kAdd) acc = _mm256_add_epi32(acc, _mm256_maskload_epi32(to, mask));
      _mm256_maskstore_epi32(to, mask, acc);
    }
  }

  /// More than two rows take a tile of 16 channels in halves: the sums have to stay in 16 registers.
  template <size_t kR>
  static void SumHalves(const TileBlock &block, size_t rows) {
    Sum<kR, 1, 2, 0>(block, rows);
    if (kNr == 16 && block.columns > 8) Sum<kR, 1, 2, kNr / 4 - 2>(block, rows);
  }

  static void Block(size_t rows, size_t tiles, const TileBlock &block) {
    if (rows == 1) return tiles == 2 ? Sum<1, 2, kNr / 4, 0>(block, rows) : Sum<1, 1, kNr / 4, 0>(block, rows);
    if (rows == 2) return Sum<2, 1, kNr / 4, 0>(block, rows);
    if (rows <= 4) return SumHalves<4>(block, rows);
    SumHalves<kRows>(block, rows);
  }
};

}  // namespace
}  // namespace acorn
