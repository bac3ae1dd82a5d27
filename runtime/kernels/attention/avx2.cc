// E of a tile: 16 high bytes, then 16 low bytes, as 16-bit values: 8-bit products with four values would saturate in pairs.
// Keys lose their offset of 128 here, and a key takes the query's sign, so that pairs of 8-bit products fit 16 bits.
#include "kernels/attention/pass.h"
#include "kernels/simd_avx2.h"

namespace acorn::attention {
namespace {

__m256i *At(uint8_t *p) { return reinterpret_cast<__m256i *>(p); }
const __m256i *At(const uint8_t *p) { return reinterpret_cast<const __m256i *>(p); }

/// Scores of kPairCount pairs from `pair` on, over kTiles key tiles from `tile` on.
template <int kPairCount, int kTiles>
void ScoreBlock(const Pass &pass, size_t pair, size_t tile) {
  constexpr int kHalves = 2 * kTiles;  // of eight keys
  const size_t tile_bytes = pass.TileBytes();
  const uint8_t *k = pass.args.k + tile * tile_bytes;
  const int8_t *q = pass.q + pair * pass.q_stride;
  const __m256i ones = _mm256_set1_epi16(1), offset = _mm256_set1_epi8(-128);
  __m256i sum[kPairCount][kHalves];
  for (auto &row : sum) {
    for (__m256i &s : row) s = _mm256_setzero_si256();
  }
  for (size_t d = 0; d < pass.args.head_dim; d += 4) {
    __m256i key[kHalves];
    for (int t = 0; t < kHalves; ++t) {
      key[t] = _mm256_xor_si256(_mm256_load_si256(At(k + t / 2 * tile_bytes + d * kTileRows + t % 2 * 32)), offset);
    }
    for (int p = 0; p < kPairCount; ++p) {
      const __m256i quad = _mm256_set1_epi32(LoadQuad(q + p * pass.q_stride + d));
      const __m256i magnitude = _mm256_abs_epi8(quad);
      for (int t = 0; t < kHalves; ++t) {
        const __m256i products = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(key[t], quad));
        sum[p][t] = _mm256_add_epi32(sum[p][t], _mm256_madd_epi16(products, ones));
      }
    }
  }
  uint8_t *out = pass.scores + pair * pass.score_stride + tile * kTileScores;
  for (int p = 0; p < kPairCount; ++p) {
    for (int t = 0; t < kHalves; ++t) _mm256_store_si256(At(out + p * pass.score_stride + t * 32), sum[p][t]);
  }
}

template <int kTiles>
void ScoreTiles(const Pass &pass, size_t tile) {
  size_t pair = 0;
  for (; pair + 2 <= pass.pairs; pair += 2) ScoreBlock<2, kTiles>(pass, pair, tile);
  if (pair < pass.pairs) ScoreBlock<1, kTiles>(pass, pair, tile);
}

/// What turns a score into E.
struct Exponential {
  Exponential(int32_t multiplier, int32_t shift, int32_t max)
      : round(shift),
        factor(_mm256_set1_epi64x(multiplier)),
        maximum(_mm256_set1_epi32(max)),
        furthest(_mm256_set1_epi32(FurthestDifference(multiplier, shift))) {}

  __m256i operator()(__m256i score) const {
    const __m256i difference = _mm256_min_epu32(_mm256_sub_epi32(maximum, score), furthest);
    const __m256i t = Join(round(MultiplyAll(difference, factor)));
    const __m256i i = _mm256_srli_epi32(t, 15);
    // (f * c) >> 15 as the high half of 16-bit (2 f) * c; the upper half of each lane stays 0.
    const __m256i f2 = _mm256_and_si256(_mm256_add_epi32(t, t), _mm256_set1_epi32(0xfffe));
    __m256i p = _mm256_mulhi_epu16(f2, _mm256_set1_epi32(2598));
    p = _mm256_mulhi_epu16(f2, _mm256_sub_epi32(_mm256_set1_epi32(15162), p));
    p = _mm256_mulhi_epu16(f2, _mm256_sub_epi32(_mm256_set1_epi32(45332), p));
    p = _mm256_sub_epi32(_mm256_set1_epi32(65535), p);
    // rs(p, i) for i >= 1; i = 0 adds nothing; from i = 17 on, shifts beyond 31 included, the result is 0.
    const __m256i half = _mm256_srli_epi32(_mm256_sllv_epi32(_mm256_set1_epi32(1), i), 1);
    return _mm256_srlv_epi32(_mm256_add_epi32(p, half), i);
  }

  Rounder round;
  __m256i factor, maximum, furthest;
};

/// All ones in the lanes of keys below `keys`, of the eight keys from `first` on.
__m256i Seen(size_t first, size_t keys) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const auto seen = static_cast<int32_t>(keys <= first ? 0 : keys - first >= 8 ? 8 : keys - first);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(seen), lanes);
}

int32_t Largest(const uint8_t *scores, size_t keys) {
  const __m256i least = _mm256_set1_epi32(INT32_MIN);
  __m256i max = least;
  for (size_t first = 0; first < keys; first += 8) {
    const __m256i score = _mm256_load_si256(At(scores + 4 * first));
    max = _mm256_max_epi32(max, first + 8 <= keys ? score : _mm256_blendv_epi8(least, score, Seen(first, keys)));
  }
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}

/// Sums of E times V over 4 * kVectors values of a head from `d` on, for kPairCount pairs, and their normalised output.
template <int kPairCount, int kVectors>
void ValueBlock(const Pass &pass, const Normaliser *normalisers, size_t pair, size_t d) {
  const Args &args = pass.args;
  const size_t row_bytes = 4 * kv_cache::PaddedDim(args.head_dim);  // of four cache rows
  const uint8_t *e = pass.scores + pair * pass.score_stride;
  const int8_t *v = args.v + 4 * d;
  __m256i high[kPairCount][kVectors], low[kPairCount][kVectors];  // two partial sums for each value
  for (int p = 0; p < kPairCount; ++p) {
    for (int i = 0; i < kVectors; ++i) high[p][i] = low[p][i] = _mm256_setzero_si256();
  }
  for (size_t tile = 0; tile < pass.tiles; ++tile) {
    for (size_t quad = 0; quad < kTileRows; quad += 4) {
      __m256i value[kVectors];
      for (int i = 0; i < kVectors; ++i) {
        value[i] = _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i *>(v + 16 * i)));
      }
      v += row_bytes;
      for (int p = 0; p < kPairCount; ++p) {
        int64_t words[2];
        __builtin_memcpy(&words[0], e + p * pass.score_stride + 2 * quad, 8);
        __builtin_memcpy(&words[1], e + p * pass.score_stride + 2 * quad + 32, 8);
        const __m256i e_high = _mm256_set1_epi64x(words[0]), e_low = _mm256_set1_epi64x(words[1]);
        for (int i = 0; i < kVectors; ++i) {
          high[p][i] = _mm256_add_epi32(high[p][i], _mm256_madd_epi16(value[i], e_high));
          low[p][i] = _mm256_add_epi32(low[p][i], _mm256_madd_epi16(value[i], e_low));
        }
      }
    }
    e += kTileScores;
  }
  const __m256i zero_point = _mm256_set1_epi64x(args.zero_point);
  for (int p = 0; p < kPairCount; ++p) {
    const Normaliser &normaliser = normalisers[pair + p];
    const Rounder round(normaliser.shift);
    const __m256i factor = _mm256_set1_epi64x(normaliser.multiplier);
    int8_t *y = pass.Output(pair + p);
    for (int i = 0; i < kVectors; i += 2) {
      const size_t at = d + 4 * static_cast<size_t>(i);
      if (at >= args.head_dim) break;
      const __m256i num_high = _mm256_permute4x64_epi64(_mm256_hadd_epi32(high[p][i], high[p][i + 1]), 0xd8);
      const __m256i num_low = _mm256_permute4x64_epi64(_mm256_hadd_epi32(low[p][i], low[p][i + 1]), 0xd8);
      const Wide from_high = MultiplyAll(num_high, factor), from_low = MultiplyAll(num_low, factor);
      const Wide product = {_mm256_add_epi64(_mm256_slli_epi64(from_high.even, 8), from_low.even),
                            _mm256_add_epi64(_mm256_slli_epi64(from_high.odd, 8), from_low.odd)};
      StoreS8::Store(y + at, args.head_dim - at, AddAll(round(product), zero_point));
    }
  }
}

struct Engine {
  static void Scores(const Pass &pass) {
    size_t tile = 0;
    for (; tile + 2 <= pass.tiles; tile += 2) ScoreTiles<2>(pass, tile);
    for (; tile < pass.tiles; ++tile) ScoreTiles<1>(pass, tile);
  }

  /// Turns the scores of one pair into E, 0 for keys that it does not see; returns the sum of E.
  static uint64_t Exponentials(const Pass &pass, size_t pair) {
    uint8_t *scores = pass.scores + pair * pass.score_stride;
    const size_t keys = pass.Keys(pair), head = pass.Head(pair);
    const Exponential exponential(pass.args.exp_multiplier[head], pass.args.exp_shift, Largest(scores, keys));
    __m256i sum = _mm256_setzero_si256();  // a lane holds at most 8192 values of 65535
    for (size_t tile = 0; tile < pass.tiles; ++tile) {
      uint8_t *at = scores + tile * kTileScores;
      __m256i e[2];
      for (size_t half = 0; half < 2; ++half) {
        const size_t first = tile * kTileRows + half * 8;
        e[half] = exponential(_mm256_load_si256(At(at + 32 * half)));
        if (first + 8 > keys) e[half] = _mm256_and_si256(e[half], Seen(first, keys));
        sum = _mm256_add_epi32(sum, e[half]);
      }
      const __m256i byte = _mm256_set1_epi32(255);
      const __m256i high = _mm256_packus_epi32(_mm256_srli_epi32(e[0], 8), _mm256_srli_epi32(e[1], 8));
      const __m256i low = _mm256_packus_epi32(_mm256_and_si256(e[0], byte), _mm256_and_si256(e[1], byte));
      _mm256_store_si256(At(at), _mm256_permute4x64_epi64(high, 0xd8));
      _mm256_store_si256(At(at + 32), _mm256_permute4x64_epi64(low, 0xd8));
    }
    const __m256i wide = _mm256_add_epi64(_mm256_and_si256(sum, _mm256_set1_epi64x(0xffffffff)), _mm256_srli_epi64(sum, 32));
    const __m128i half = _mm_add_epi64(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    return static_cast<uint64_t>(_mm_cvtsi128_si64(half)) + static_cast<uint64_t>(_mm_extract_epi64(half, 1));
  }

  static void Values(const Pass &pass, const Normaliser *normalisers) {
    size_t pair = 0;
    for (; pair + 2 <= pass.pairs; pair += 2) {
      for (size_t d = 0; d < pass.args.head_dim; d += 8) ValueBlock<2, 2>(pass, normalisers, pair, d);
    }
    if (pair == pass.pairs) return;
    for (size_t d = 0; d < pass.args.head_dim; d += 16) ValueBlock<1, 4>(pass, normalisers, pair, d);
  }
};

}  // namespace

void RunAvx2(const Args &args) { RunPasses<Engine>(args); }

}  // namespace acorn::attention
