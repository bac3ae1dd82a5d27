// Our kernel for layout kX16C8 with AVX-512 VNNI: a row of a tile is two registers of 8 channels x 8 k, a channel's sum two lanes.
// vpdpbusd takes x + 128 as its unsigned operand; ksum starts the sums so that the 128 goes out again.
// For gemm_s8_w8/avx512vnni.cc and gemm_s8_w4/avx512vnni.cc, each with a copy of its own (kernels/xnnpack/tiles.h).
#pragma once

#include <immintrin.h>

#include "kernels/xnnpack/tiles.h"

namespace acorn {
namespace {

template <WeightFormat kWeights>
struct Avx512VnniEngine {
  static constexpr WeightFormat kFormat = kWeights;
  static constexpr Layout kLayout = Layout::kX16C8;
  static constexpr size_t kRows = 12;
  static constexpr size_t kAhead = 3072;  // bytes from a load to what is prefetched

  static size_t Tiles(size_t rows) { return rows <= 2 ? 4 : rows <= 6 ? 2 : 1; }

  static void LoadRow(uint8_t *to, const int8_t *from, size_t k, size_t depth) {
    const __m512i flip = _mm512_set1_epi8(-128);
    for (size_t i = 0; i < depth; i += 64) {
      const size_t left = k - i;
      const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
      _mm512_store_si512(to + i, _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, from + i), flip));
    }
  }

  static __m512i Broadcast(const uint8_t *x) {
    long long eight;
    __builtin_memcpy(&eight, x, sizeof(eight));
    return _mm512_set1_epi64(eight);
  }

  // kW4: a nibble is used in the top half of a byte, where it is 16 times itself; the sums are divided by 16 at the end.
  static constexpr size_t kParts = kWeights == WeightFormat::kW4 ? 2 : 1;

  template <int kR, int kT>
  static void Sum(const TileBlock &block, size_t rows) {
    const __m512i top = _mm512_set1_epi8(-16);
    __m512i sum[kR][kT][2];  // [rows, tiles, halves of the tile]: 8 channels, two lanes each
    const uint8_t *w[kT];
    ACORN_UNROLL
    for (int t = 0; t < kT; ++t) {
      w[t] = block.w + t * block.w_step;
      const __m512i start = _mm512_slli_epi32(_mm512_load_si512(w[t]), 7);
      w[t] += 64;
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) {
        sum[r][t][0] = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(start));
        sum[r][t][1] = _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(start, 1));
      }
    }
    const uint8_t *x = block.x;
    for (size_t k = 0; k < block.depth; k += kParts * kXnnKr, x += kParts * kXnnKr) {
      __m512i weights[kT][kParts][2];  // [tiles, eights of k, halves of the tile]
      ACORN_UNROLL
      for (int t = 0; t < kT; ++t) {
        const __m512i low = _mm512_load_si512(w[t]);
        const __m512i high = _mm512_load_si512(w[t] + 64);
        if (kWeights == WeightFormat::kW8) {
          weights[t][0][0] = low;
          weights[t][0][1] = high;
        } else {
          weights[t][0][0] = _mm512_and_si512(_mm512_slli_epi16(low, 4), top);
          weights[t][0][1] = _mm512_and_si512(_mm512_slli_epi16(high, 4), top);
          weights[t][kParts - 1][0] = _mm512_and_si512(low, top);
          weights[t][kParts - 1][1] = _mm512_and_si512(high, top);
        }
        if (kR <= 2) {
          _mm_prefetch(reinterpret_cast<const char *>(w[t] + kAhead), _MM_HINT_T1);
          _mm_prefetch(reinterpret_cast<const char *>(w[t] + kAhead + 64), _MM_HINT_T1);
        }
        w[t] += 128;
      }
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) {
        ACORN_UNROLL
        for (size_t part = 0; part < kParts; ++part) {
          const __m512i eight = Broadcast(x + r * block.x_stride + part * kXnnKr);
          ACORN_UNROLL
          for (int t = 0; t < kT; ++t) {
            sum[r][t][0] = _mm512_dpbusd_epi32(sum[r][t][0], eight, weights[t][part][0]);
            sum[r][t][1] = _mm512_dpbusd_epi32(sum[r][t][1], eight, weights[t][part][1]);
          }
        }
      }
    }
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __mmask16 mask = static_cast<__mmask16>((1u << block.columns) - 1);
    ACORN_UNROLL
    for (int r = 0; r < kR; ++r) {
      if (static_cast<size_t>(r) == rows) break;
      ACORN_UNROLL
      for (int t = 0; t < kT; ++t) {
        const __m512i low = _mm512_add_epi32(sum[r][t][0], _mm512_srli_epi64(sum[r][t][0], 32));
        const __m512i high = _mm512_add_epi32(sum[r][t][1], _mm512_srli_epi64(sum[r][t][1], 32));
        __m512i acc = _mm512_permutex2var_epi32(low, even, high);
        if (kWeights == WeightFormat::kW4) acc = _mm512_srai_epi32(acc, 4);
        int32_t *to = block.acc + r * block.acc_stride + t * block.acc_step;
        if (block.store == Store::kAdd) acc = _mm512_add_epi32(acc, _mm512_maskz_loadu_epi32(mask, to));
        _mm512_mask_storeu_epi32(to, mask, acc);
      }
    }
  }

  static void Block(size_t rows, size_t tiles, const TileBlock &block) {
    if (rows == 1) {
      if (tiles == 4) return Sum<1, 4>(block, rows);
      if (tiles == 2) return Sum<1, 2>(block, rows);
      return Sum<1, 1>(block, rows);
    }
    if (rows == 2) {
      if (tiles == 4) return Sum<2, 4>(block, rows);
      if (tiles == 2) return Sum<2, 2>(block, rows);
      return Sum<2, 1>(block, rows);
    }
    if (rows <= 4) return tiles == 2 ? Sum<4, 2>(block, rows) : Sum<4, 1>(block, rows);
    if (rows <= 6) return tiles == 2 ? Sum<6, 2>(block, rows) : Sum<6, 1>(block, rows);
    if (rows <= 8) return Sum<8, 1>(block, rows);
    Sum<12, 1>(block, rows);
  }
};

}  // namespace
}  // namespace acorn
