// The AVX-512 VNNI engine (driver.h). A group's dot starts at minus kZero times the sum of x, so that codes stay unsigned;
// vpdpbusd adds the products; one vpdpwssd with the multiplier in the low half adds multiplier * dot, the dot fitting in 16 bits.
// Codes is the variant's way to split a register of packed weights.
#pragma once

#include <immintrin.h>

#include "kernels/grouped/driver.h"
#include "kernels/inline.h"

namespace acorn::grouped {
namespace {

// Four elements of x for every channel.
ACORN_INLINE __m512i BroadcastX(const int8_t *x) {
  int32_t four;
  __builtin_memcpy(&four, x, 4);
  return _mm512_set1_epi32(four);
}

ACORN_INLINE __m512i BroadcastS32(const uint8_t *from) {
  int32_t value;
  __builtin_memcpy(&value, from, 4);
  return _mm512_set1_epi32(value);
}

ACORN_INLINE __m512i LoadMultipliers(const uint8_t *from) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
}

ACORN_INLINE __mmask16 FirstLanes(uint32_t count) { return static_cast<__mmask16>((1u << count) - 1); }

/// What nibbles, w + 8, and doubled codes of 2 bits, w + 3, have in common for all variants.
struct NibbleCodes512 {
  static constexpr uint32_t kBits = 4;
  static constexpr int kParts = 2;
  static ACORN_INLINE __m512i Start(__m512i sums) {
    return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sums, 3));
  }
};
struct CrumbCodes512 {
  static constexpr uint32_t kBits = 2;
  static constexpr int kParts = 4;
  static ACORN_INLINE __m512i Start(__m512i sums) { return _mm512_sub_epi32(sums, _mm512_slli_epi32(sums, 2)); }
};

template <typename Codes>
struct Engine512 {
  static constexpr uint32_t kBits = Codes::kBits;
  static constexpr int kParts = Codes::kParts;
  static constexpr size_t kRows = 6;  // 6 x 2: 12 chains of vpdpbusd hide its latency, 24 registers of sums
  static constexpr size_t kTiles = 2;
  // To the second cache: a Zen 4 decodes 1.2 to 1.36 times as fast as with the first, where lines asked for take the place of those
  // that are waited for. 1 KiB: a loop there that reads four streams and multiplies as here does 29.3 GB/s, with 2 KiB 24.4. 1 to
  // 4 KiB are alike on a Sapphire Rapids, 8 KiB costs a tenth.
  static constexpr size_t kPrefetchBytes = 1024;
  // An unpacked group of a tile: 8 rows of four elements of k, then the multipliers as s32.
  static constexpr size_t kGroupBytes = 8 * 64 + 64;

  // Measured with one row: on one core of a Sapphire Rapids 1, 2, 4, 8 streams read 10.9, 13.0, 13.9, 14.3 GB/s; on a Zen 5 decode
  // is 1.03 to 1.08 times as fast with 4 as with 8 (one thread; 1.02 to 1.05 with two), and with 2 0.98 to 1.09.
  static constexpr size_t StreamTiles(size_t rows) { return rows <= 3 ? 4 : 2; }

  // line[g] = -kZero * sum of x over group g, by a tree of pairwise adds over eight registers.
  static void Sums(uint8_t *line, const int8_t *x, size_t depth) {
    const __m512i ones8 = _mm512_set1_epi8(1), ones16 = _mm512_set1_epi16(1), zero = _mm512_setzero_si512();
    __m512i v[8];
    ACORN_UNROLL
    for (size_t i = 0; i < 8; ++i) {
      const size_t left = depth > 64 * i ? depth - 64 * i : 0;
      const __mmask64 mask = left >= 64 ? ~__mmask64{0} : left >= 32 ? __mmask64{0xffffffff} : 0;
      v[i] = _mm512_dpbusd_epi32(zero, ones8, _mm512_maskz_loadu_epi8(mask, x + 64 * i));  // sums of 4
    }
    ACORN_UNROLL
    for (size_t i = 0; i < 4; ++i) v[i] = _mm512_madd_epi16(_mm512_packs_epi32(v[2 * i], v[2 * i + 1]), ones16);  // of 8
    ACORN_UNROLL
    for (size_t i = 0; i < 2; ++i) v[i] = _mm512_madd_epi16(_mm512_packs_epi32(v[2 * i], v[2 * i + 1]), ones16);  // of 16
    // 128-bit lane l of v[0] now has the sums of the l-th 16 elements of the first four loads, v[1] of the last four.
    const __m512i even = _mm512_shuffle_i32x4(v[0], v[1], 0x88), odd = _mm512_shuffle_i32x4(v[0], v[1], 0xdd);
    const __m512i sums = _mm512_add_epi32(even, odd);  // lanes: group 2i of loads 0-3, 2i + 1 of loads 0-3, then of loads 4-7
    const __m512i order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    _mm512_store_si512(line, Codes::Start(_mm512_permutexvar_epi32(order, sums)));
  }

  template <int kR, int kT>
  static void StreamBlock(const Rows &rows, const Tiles &tiles, const Depth &depth) {
    __m512i acc[kR][kT];
    const uint8_t *tile[kT];
    ACORN_UNROLL
    for (int t = 0; t < kT; ++t) {
      tile[t] = tiles.packed[t];
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) acc[r][t] = _mm512_setzero_si512();
    }
    const size_t groups = depth.k / kSubgroup, next_tile = FirstAhead<Codes>(groups, kPrefetchBytes);
    // The next tile's multipliers are asked for line by line, each time as many of this tile's have been used.
    const size_t header_line = size_t{4} << depth.group_shift;
    size_t next_header = depth.header_bytes + groups * kSubgroupRows<Codes> * c4::kRowBytes + depth.skipped_bytes;
    const int8_t *x = rows.x;
    size_t weight_offset = depth.header_bytes, prefetch = kPrefetchBytes;
    for (size_t g = 0; g < groups; ++g) {
      if (g == next_tile) prefetch += depth.skipped_bytes + depth.header_bytes;
      if ((g & (header_line - 1)) == 0) {
        ACORN_UNROLL
        for (int t = 0; t < kT; ++t) _mm_prefetch(reinterpret_cast<const char *>(tile[t] + next_header), _MM_HINT_T1);
        next_header += kLineBytes;
      }
      const uint8_t *sums = rows.sums + g / kPanelGroups * rows.sums_stride + g % kPanelGroups * 4;
      __m512i dot[kR][kT];
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) {
        ACORN_UNROLL
        for (int t = 0; t < kT; ++t) dot[r][t] = BroadcastS32(sums + r * kLineBytes);
      }
      ACORN_UNROLL
      for (int j = 0; j < kSubgroupRows<Codes>; ++j) {
        ACORN_UNROLL
        for (int t = 0; t < kT; ++t) {
          const uint8_t *weights = tile[t] + weight_offset + j * 64;
          const __m512i packed = _mm512_load_si512(weights);
          _mm_prefetch(reinterpret_cast<const char *>(weights + prefetch), _MM_HINT_T1);
          __m512i w[kParts];
          Codes::Split(w, packed);
          ACORN_UNROLL
          for (int r = 0; r < kR; ++r) {
            const int8_t *at = x + r * rows.x_stride + j * 4 * kParts;
            ACORN_UNROLL
            for (int p = 0; p < kParts; ++p) dot[r][t] = _mm512_dpbusd_epi32(dot[r][t], w[p], BroadcastX(at + 4 * p));
          }
        }
      }
      x += kSubgroup;
      weight_offset += kSubgroupRows<Codes> * c4::kRowBytes;
      ACORN_UNROLL
      for (int t = 0; t < kT; ++t) {
        const __m512i multipliers = LoadMultipliers(tile[t] + (g >> depth.group_shift) * 16);
        ACORN_UNROLL
        for (int r = 0; r < kR; ++r) acc[r][t] = _mm512_dpwssd_epi32(acc[r][t], dot[r][t], multipliers);
      }
    }
    ACORN_UNROLL
    for (int t = 0; t < kT; ++t) {
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) {
        _mm512_mask_storeu_epi32(tiles.acc[t] + r * tiles.acc_stride, FirstLanes(tiles.columns[t]), acc[r][t]);
      }
    }
  }

  // Where the next group of a panel is unpacked from.
  struct Packed {
    const uint8_t *weights[kTiles];      // of the group
    const uint8_t *multipliers[kTiles];  // of the tile
    size_t group;                        // of the tile: k / kSubgroup

    Packed(const Tiles &tiles, size_t count, const Depth &depth, size_t k) : group(k / kSubgroup) {
      for (size_t t = 0; t < count; ++t) {
        multipliers[t] = tiles.packed[t];
        weights[t] = multipliers[t] + depth.header_bytes + k / c4::RowDepth(kBits) * c4::kRowBytes;
      }
    }
  };

  // Goes on to the next group.
  template <int kT>
  static ACORN_INLINE void UnpackGroup(uint8_t *out, Packed *packed, const Depth &depth) {
    ACORN_UNROLL
    for (int t = 0; t < kT; ++t, out += kGroupBytes) {
      ACORN_UNROLL
      for (int j = 0; j < kSubgroupRows<Codes>; ++j, packed->weights[t] += c4::kRowBytes) {
        __m512i w[kParts];
        Codes::Split(w, _mm512_loadu_si512(packed->weights[t]));
        ACORN_UNROLL
        for (int p = 0; p < kParts; ++p) _mm512_store_si512(out + 64 * (kParts * j + p), w[p]);
      }
      _mm512_store_si512(out + 512, LoadMultipliers(packed->multipliers[t] + (packed->group >> depth.group_shift) * 16));
    }
    ++packed->group;
  }

  // The first block of a panel writes it, a group while the one before is multiplied, which hides half of that work: prefill of 32
  // tokens of SmolLM2 is 1.02 times as fast, of 128 1.005 (Zen 5).
  template <int kR, int kT, bool kIsFirst>
  static void PanelBlock(const Rows &rows, const Tiles &tiles, uint8_t *panel, const Depth &depth, size_t k, size_t groups,
                         Start start) {
    __m512i acc[kR][kT];
    ACORN_UNROLL
    for (int t = 0; t < kT; ++t) {
      const __mmask16 mask = start == Start::kAcc ? FirstLanes(tiles.columns[t]) : 0;
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) acc[r][t] = _mm512_maskz_loadu_epi32(mask, tiles.acc[t] + r * tiles.acc_stride);
    }
    Packed packed(tiles, kIsFirst ? kT : 0, depth, k);
    if constexpr (kIsFirst) UnpackGroup<kT>(panel, &packed, depth);
    const int8_t *x = rows.x;
    const uint8_t *sums = rows.sums;
    for (size_t g = 0; g < groups; ++g) {
      if constexpr (kIsFirst) {
        if (g + 1 < groups) UnpackGroup<kT>(panel + kT * kGroupBytes, &packed, depth);
      }
      __m512i dot[kR][kT];
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) {
        ACORN_UNROLL
        for (int t = 0; t < kT; ++t) dot[r][t] = BroadcastS32(sums + r * kLineBytes);
      }
      ACORN_UNROLL
      for (int j = 0; j < 8; ++j) {
        __m512i w[kT];
        ACORN_UNROLL
        for (int t = 0; t < kT; ++t) w[t] = _mm512_load_si512(panel + t * kGroupBytes + 64 * j);
        ACORN_UNROLL
        for (int r = 0; r < kR; ++r) {
          const __m512i x4 = BroadcastX(x + r * rows.x_stride + j * 4);
          ACORN_UNROLL
          for (int t = 0; t < kT; ++t) dot[r][t] = _mm512_dpbusd_epi32(dot[r][t], w[t], x4);
        }
      }
      ACORN_UNROLL
      for (int t = 0; t < kT; ++t) {
        const __m512i multipliers = _mm512_load_si512(panel + t * kGroupBytes + 512);
        ACORN_UNROLL
        for (int r = 0; r < kR; ++r) acc[r][t] = _mm512_dpwssd_epi32(acc[r][t], dot[r][t], multipliers);
      }
      x += kSubgroup;
      sums = NextSums(rows, sums, g);
      panel += kT * kGroupBytes;
    }
    ACORN_UNROLL
    for (int t = 0; t < kT; ++t) {
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) {
        _mm512_mask_storeu_epi32(tiles.acc[t] + r * tiles.acc_stride, FirstLanes(tiles.columns[t]), acc[r][t]);
      }
    }
  }

  template <int kR>
  static void StreamRows(size_t count, const Rows &rows, const Tiles &tiles, const Depth &depth) {
    if constexpr (kR <= 3) {
      if (count == 4) return StreamBlock<kR, 4>(rows, tiles, depth);
    }
    if (count == 2) return StreamBlock<kR, 2>(rows, tiles, depth);
    StreamBlock<kR, 1>(rows, tiles, depth);
  }

  static void Stream(size_t row_count, size_t count, const Rows &rows, const Tiles &tiles, const Depth &depth) {
    switch (row_count) {
      case 1:
        return StreamRows<1>(count, rows, tiles, depth);
      case 2:
        return StreamRows<2>(count, rows, tiles, depth);
      case 3:
        return StreamRows<3>(count, rows, tiles, depth);
      case 4:
        return StreamRows<4>(count, rows, tiles, depth);
      case 5:
        return StreamRows<5>(count, rows, tiles, depth);
      default:
        return StreamRows<6>(count, rows, tiles, depth);
    }
  }

  template <int kR, bool kIsFirst>
  static void PanelRows(size_t count, const Rows &rows, const Tiles &tiles, uint8_t *panel, const Depth &depth, size_t k,
                        size_t groups, Start start) {
    if (count == 2) return PanelBlock<kR, 2, kIsFirst>(rows, tiles, panel, depth, k, groups, start);
    PanelBlock<kR, 1, kIsFirst>(rows, tiles, panel, depth, k, groups, start);
  }

  // More than kInlineRowBlocks blocks as equal as can be have 5 or 6 rows each, or 13 to 15 rows in three: 4 or 5.
  template <bool kIsFirst>
  static void Panel(size_t row_count, size_t count, const Rows &rows, const Tiles &tiles, uint8_t *panel, const Depth &depth,
                    size_t k, size_t groups, Start start) {
    switch (row_count) {
      case 4:
        return PanelRows<4, kIsFirst>(count, rows, tiles, panel, depth, k, groups, start);
      case 5:
        return PanelRows<5, kIsFirst>(count, rows, tiles, panel, depth, k, groups, start);
      default:
        return PanelRows<6, kIsFirst>(count, rows, tiles, panel, depth, k, groups, start);
    }
  }
};

}  // namespace
}  // namespace acorn::grouped
