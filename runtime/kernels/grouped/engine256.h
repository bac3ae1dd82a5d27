// The 256-bit engine (driver.h) of AVX2 and AVX-VNNI: a tile is two strips of 8 channels. Ops is what differs:
//   Start(pairs)          four groups' lanes for a dot to start from, out of their sums (of elements 0 and 1 of 4, of 2 and 3)
//   Dot(dot, w, x)        adds 4 products a channel, w unsigned
//   LoadMultipliers(from) 8 multipliers as Scale wants them
//   Scale(acc, dot, m)    acc + m * dot
// Codes256 of 4 or of 2 bits says how bytes are split, and what a dot of codes starts from.
#pragma once

#include <immintrin.h>

#include "kernels/grouped/driver.h"
#include "kernels/inline.h"

namespace acorn::grouped {
namespace {

ACORN_INLINE __m256i Load256(const void *from) { return _mm256_loadu_si256(static_cast<const __m256i *>(from)); }

// Four bytes, of x or of sums, for every channel.
ACORN_INLINE __m256i Broadcast4(const void *from) {
  int32_t four;
  __builtin_memcpy(&four, from, 4);
  return _mm256_set1_epi32(four);
}

ACORN_INLINE __m256i MultipliersAsS32(const uint8_t *from) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(from)));
}

// Lanes below `count` are ones.
ACORN_INLINE __m256i FirstLanes(int32_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/// Nibbles are w + 8: a dot starts from -8 times the sum of x.
struct Nibbles256 {
  static constexpr uint32_t kBits = 4;
  static constexpr int kParts = 2;
  static ACORN_INLINE void Split(__m256i (&w)[kParts], __m256i packed) {
    const __m256i mask = _mm256_set1_epi8(15);
    w[0] = _mm256_and_si256(packed, mask);
    w[1] = _mm256_and_si256(_mm256_srli_epi16(packed, 4), mask);
  }
  static ACORN_INLINE __m128i Start(__m128i sums) { return _mm_sub_epi16(_mm_setzero_si128(), _mm_slli_epi16(sums, 3)); }
};

/// Doubled codes of 2 bits are w + 3: a dot starts from -3 times the sum of x.
struct Crumbs256 {
  static constexpr uint32_t kBits = 2;
  static constexpr int kParts = 4;
  static ACORN_INLINE void Split(__m256i (&w)[kParts], __m256i packed) {
    const __m256i mask = _mm256_set1_epi8(6);
    w[0] = _mm256_and_si256(_mm256_slli_epi16(packed, 1), mask);
    w[1] = _mm256_and_si256(_mm256_srli_epi16(packed, 1), mask);
    w[2] = _mm256_and_si256(_mm256_srli_epi16(packed, 3), mask);
    w[3] = _mm256_and_si256(_mm256_srli_epi16(packed, 5), mask);
  }
  static ACORN_INLINE __m128i Start(__m128i sums) { return _mm_sub_epi16(sums, _mm_slli_epi16(sums, 2)); }
};

template <typename Ops, typename Codes>
struct Engine256 {
  static constexpr uint32_t kBits = Codes::kBits;
  static constexpr int kParts = Codes::kParts;
  static constexpr size_t kRows = 3;  // 3 rows x 2 strips: 12 registers of sums, 3 or 4 of operands
  static constexpr size_t kTiles = 1;
  static constexpr size_t kPrefetchBytes = 4096;
  static constexpr size_t kStripChannels = 8;
  static constexpr size_t kStripBytes = 32;  // of a row of 64
  // An unpacked group of a tile: 8 rows of four elements of k, then the multipliers of both strips as Scale wants them.
  static constexpr size_t kGroupBytes = 8 * 64 + 64;

  // Two rows of two tiles need more registers than there are; their sums are spilled, once a group, and two streams from memory
  // still win (11.6 GB/s to 9.5 on a Sapphire Rapids core that reads 12.3).
  static constexpr size_t StreamTiles(size_t rows) { return rows <= 2 ? 2 : 1; }

  static void Sums(uint8_t *line, const int8_t *x, size_t depth) {
    for (size_t k = 0; k < kPanelDepth; k += 4 * kSubgroup, line += 16) {
      __m256i v[4];
      ACORN_UNROLL
      for (size_t g = 0; g < 4; ++g) {
        const bool inside = k + g * kSubgroup < depth;
        v[g] = inside ? _mm256_maddubs_epi16(_mm256_set1_epi8(1), Load256(x + k + g * kSubgroup)) : _mm256_setzero_si256();
      }
      // Adds the eight 32-bit lanes of each register, as pairs of 16 bits: lane g of the result is group g.
      const __m256i v01 = _mm256_add_epi16(_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
      const __m256i v23 = _mm256_add_epi16(_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
      const __m256i halves = _mm256_add_epi16(_mm256_unpacklo_epi64(v01, v23), _mm256_unpackhi_epi64(v01, v23));
      const __m128i pairs = _mm_add_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
      _mm_store_si128(reinterpret_cast<__m128i *>(line),
                      Ops::Start(Codes::Start(pairs)));
    }
  }

  template <int kR, int kS>
  static void Store(const __m256i (&acc)[kR][kS], const Tiles &tiles, int first_strip) {
    ACORN_UNROLL
    for (int s = 0; s < kS; ++s) {
      const size_t tile = static_cast<size_t>(first_strip + s) / 2, half = static_cast<size_t>(first_strip + s) % 2;
      const int32_t columns = static_cast<int32_t>(tiles.columns[tile]) - static_cast<int32_t>(half * kStripChannels);
      const __m256i mask = FirstLanes(columns);
      int32_t *out = tiles.acc[tile] + half * kStripChannels;
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) _mm256_maskstore_epi32(out + static_cast<size_t>(r) * tiles.acc_stride, mask, acc[r][s]);
    }
  }

  // kS strips from strip `first_strip` of the tiles on.
  template <int kR, int kS>
  static void StreamBlock(const Rows &rows, const Tiles &tiles, const Depth &depth, int first_strip) {
    __m256i acc[kR][kS];
    const uint8_t *multipliers[kS], *weights[kS];
    ACORN_UNROLL
    for (int s = 0; s < kS; ++s) {
      const size_t tile = static_cast<size_t>(first_strip + s) / 2, half = static_cast<size_t>(first_strip + s) % 2;
      multipliers[s] = tiles.packed[tile] + half * kStripChannels;
      weights[s] = tiles.packed[tile] + depth.header_bytes + half * kStripBytes;
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) acc[r][s] = _mm256_setzero_si256();
    }
    const size_t groups = depth.k / kSubgroup, next_tile = FirstAhead<Codes>(groups, kPrefetchBytes);
    const int8_t *x = rows.x;
    size_t prefetch = kPrefetchBytes;
    for (size_t g = 0; g < groups; ++g) {
      if (g == next_tile) prefetch += depth.skipped_bytes;
      const uint8_t *sums = rows.sums + g / kPanelGroups * rows.sums_stride + g % kPanelGroups * 4;
      __m256i dot[kR][kS];
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) {
        ACORN_UNROLL
        for (int s = 0; s < kS; ++s) dot[r][s] = Broadcast4(sums + static_cast<size_t>(r) * kLineBytes);
      }
      ACORN_UNROLL
      for (int j = 0; j < kSubgroupRows<Codes>; ++j) {
        ACORN_UNROLL
        for (int s = 0; s < kS; ++s) {
          const __m256i packed = Load256(weights[s]);
          if (s % 2 == 0) _mm_prefetch(reinterpret_cast<const char *>(weights[s] + prefetch), _MM_HINT_T0);
          weights[s] += c4::kRowBytes;
          __m256i w[kParts];
          Codes::Split(w, packed);
          ACORN_UNROLL
          for (int r = 0; r < kR; ++r) {
            const int8_t *at = x + static_cast<size_t>(r) * rows.x_stride + j * 4 * kParts;
            ACORN_UNROLL
            for (int p = 0; p < kParts; ++p) dot[r][s] = Ops::Dot(dot[r][s], w[p], Broadcast4(at + 4 * p));
          }
        }
      }
      x += kSubgroup;
      ACORN_UNROLL
      for (int s = 0; s < kS; ++s) {
        const __m256i m = Ops::LoadMultipliers(multipliers[s] + (g >> depth.group_shift) * c4::kTileChannels);
        ACORN_UNROLL
        for (int r = 0; r < kR; ++r) acc[r][s] = Ops::Scale(acc[r][s], dot[r][s], m);
      }
    }
    Store<kR, kS>(acc, tiles, first_strip);
  }

  static void Unpack(uint8_t *panel, const Tiles &tiles, size_t, const Depth &depth, size_t k, size_t panel_depth) {
    const uint8_t *weights = tiles.packed[0] + depth.header_bytes + k / c4::RowDepth(kBits) * c4::kRowBytes;
    for (size_t g = 0; g < panel_depth / kSubgroup; ++g, panel += kGroupBytes) {
      __m256i *out = reinterpret_cast<__m256i *>(panel);
      ACORN_UNROLL
      for (int j = 0; j < kSubgroupRows<Codes>; ++j, weights += c4::kRowBytes) {
        __m256i first[kParts], second[kParts];
        Codes::Split(first, Load256(weights));
        Codes::Split(second, Load256(weights + kStripBytes));
        ACORN_UNROLL
        for (int p = 0; p < kParts; ++p, out += 2) {
          _mm256_store_si256(out, first[p]);
          _mm256_store_si256(out + 1, second[p]);
        }
      }
      const uint8_t *m = tiles.packed[0] + ((k / kSubgroup + g) >> depth.group_shift) * c4::kTileChannels;
      _mm256_store_si256(out, Ops::LoadMultipliers(m));
      _mm256_store_si256(out + 1, Ops::LoadMultipliers(m + kStripChannels));
    }
  }

  template <int kR>
  static void PanelBlock(const Rows &rows, const Tiles &tiles, const uint8_t *panel, size_t groups, Start start) {
    __m256i acc[kR][2];
    ACORN_UNROLL
    for (int s = 0; s < 2; ++s) {
      const int32_t columns = static_cast<int32_t>(tiles.columns[0]) - s * static_cast<int32_t>(kStripChannels);
      const __m256i mask = FirstLanes(start == Start::kAcc ? columns : 0);
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) {
        const int32_t *from =
            tiles.acc[0] + static_cast<size_t>(r) * tiles.acc_stride + static_cast<size_t>(s) * kStripChannels;
        acc[r][s] = _mm256_maskload_epi32(from, mask);
      }
    }
    const int8_t *x = rows.x;
    const uint8_t *sums = rows.sums;
    for (size_t g = 0; g < groups; ++g, x += kSubgroup, panel += kGroupBytes) {
      __m256i dot[kR][2];
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) dot[r][0] = dot[r][1] = Broadcast4(sums + static_cast<size_t>(r) * kLineBytes);
      ACORN_UNROLL
      for (int j = 0; j < 8; ++j) {
        const __m256i first = Load256(panel + 64 * j), second = Load256(panel + 64 * j + 32);
        ACORN_UNROLL
        for (int r = 0; r < kR; ++r) {
          const __m256i x4 = Broadcast4(x + static_cast<size_t>(r) * rows.x_stride + j * 4);
          dot[r][0] = Ops::Dot(dot[r][0], first, x4);
          dot[r][1] = Ops::Dot(dot[r][1], second, x4);
        }
      }
      const __m256i first = Load256(panel + 512), second = Load256(panel + 512 + 32);
      ACORN_UNROLL
      for (int r = 0; r < kR; ++r) {
        acc[r][0] = Ops::Scale(acc[r][0], dot[r][0], first);
        acc[r][1] = Ops::Scale(acc[r][1], dot[r][1], second);
      }
      sums = NextSums(rows, sums, g);
    }
    Store<kR, 2>(acc, tiles, 0);
  }

  static void Stream(size_t row_count, size_t count, const Rows &rows, const Tiles &tiles, const Depth &depth) {
    switch (row_count) {
      case 1:
        return count == 2 ? StreamBlock<1, 4>(rows, tiles, depth, 0) : StreamBlock<1, 2>(rows, tiles, depth, 0);
      case 2:
        return count == 2 ? StreamBlock<2, 4>(rows, tiles, depth, 0) : StreamBlock<2, 2>(rows, tiles, depth, 0);
      default:  // one strip at a time: two would not fit the registers while unpacking
        StreamBlock<3, 1>(rows, tiles, depth, 0);
        StreamBlock<3, 1>(rows, tiles, depth, 1);
    }
  }

  // More than kInlineRowBlocks blocks as equal as can be have 2 or 3 rows. There are too few registers to unpack beside multiplying.
  template <bool kIsFirst>
  static void Panel(size_t row_count, size_t count, const Rows &rows, const Tiles &tiles, uint8_t *panel, const Depth &depth,
                    size_t k, size_t groups, Start start) {
    if constexpr (kIsFirst) Unpack(panel, tiles, count, depth, k, groups * kSubgroup);
    if (row_count == 2) return PanelBlock<2>(rows, tiles, panel, groups, start);
    PanelBlock<3>(rows, tiles, panel, groups, start);
  }
};

}  // namespace
}  // namespace acorn::grouped
