// E of a tile: 16 bytes for four keys: 4 high bytes, then 4 low bytes, as 16-bit values: 8-bit products would saturate in pairs.
// Keys lose their offset of 128 here, and a key takes the query's sign, so that pairs of 8-bit products fit 16 bits.
#include "kernels/attention/softmax256.h"

namespace acorn::attention {
namespace {

/// Scores of kPairCount pairs from `pair` on, over kTiles key tiles from `tile` of a run on.
template <int kBits, int kPairCount, int kTiles>
void ScoreBlock(const Pass &pass, const KeyRun &run, size_t pair, size_t tile) {
  constexpr int kHalves = 2 * kTiles;  // of eight keys
  const size_t tile_bytes = pass.tile_bytes;
  const uint8_t *k = run.k + tile * tile_bytes;
  const int8_t *q = pass.q + pair * pass.q_stride;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum[kPairCount][kHalves];
  for (auto &row : sum) {
    for (__m256i &s : row) s = _mm256_setzero_si256();
  }
  const auto add = [&](size_t d, const __m256i (&key)[kHalves]) {
    for (int p = 0; p < kPairCount; ++p) {
      const __m256i quad = _mm256_set1_epi32(LoadQuad(q + p * pass.q_stride + d));
      const __m256i magnitude = _mm256_abs_epi8(quad);
      for (int t = 0; t < kHalves; ++t) {
        const __m256i products = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(key[t], quad));
        sum[p][t] = _mm256_add_epi32(sum[p][t], _mm256_madd_epi16(products, ones));
      }
    }
  };
  for (size_t d = 0; d < pass.args.k_dim; d += 32 / kBits, k += 4 * kTileRows) {
    __m256i bytes[kHalves], key[kHalves];
    for (int t = 0; t < kHalves; ++t) {
      bytes[t] = _mm256_load_si256(At(k + t / 2 * tile_bytes + t % 2 * 32));
      if (t % 2 == 0) FetchAhead(k + t / 2 * tile_bytes);
    }
    if constexpr (kBits == 8) {
      for (int t = 0; t < kHalves; ++t) key[t] = _mm256_xor_si256(bytes[t], _mm256_set1_epi8(-128));
      add(d, key);
    } else {  // nibbles keep their offset: two products with a query fit 16 bits
      for (int t = 0; t < kHalves; ++t) key[t] = Nibbles<0>(bytes[t]);
      add(d, key);
      for (int t = 0; t < kHalves; ++t) key[t] = Nibbles<1>(bytes[t]);
      add(d + 4, key);
    }
  }
  uint8_t *out = pass.scores + pair * pass.score_stride + (run.tile + tile) * kTileScores;
  for (int p = 0; p < kPairCount; ++p) {
    for (int t = 0; t < kHalves; ++t) _mm256_store_si256(At(out + p * pass.score_stride + t * 32), sum[p][t]);
  }
}

template <int kBits, int kTiles>
void ScoreTiles(const Pass &pass, const KeyRun &run, size_t tile) {
  size_t pair = 0;
  for (; pair + 2 <= pass.pairs; pair += 2) ScoreBlock<kBits, 2, kTiles>(pass, run, pair, tile);
  if (pair < pass.pairs) ScoreBlock<kBits, 1, kTiles>(pass, run, pair, tile);
}

/// Four values of a head, from the d-th of sixteen on, of four rows; v: the sixteen.
template <int kBits>
__m256i LoadValues(const int8_t *v, size_t d) {
  if constexpr (kBits == 8) return _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i *>(v + 4 * d)));
  const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i *>(v + d % 8 * 4));
  const __m128i nibbles = _mm_and_si128(_mm_srl_epi16(bytes, _mm_cvtsi32_si128(d < 8 ? 0 : 4)), _mm_set1_epi8(15));
  return _mm256_sub_epi16(_mm256_cvtepu8_epi16(nibbles), _mm256_set1_epi16(kv_cache::kNibbleOffset));
}

/// Sums of E times V over 4 * kVectors values of a head from `d` on, for kPairCount pairs, and their normalised output.
template <int kBits, int kPairCount, int kVectors>
void ValueBlock(const Pass &pass, const Normaliser *normalisers, size_t pair, size_t d) {
  const Args &args = pass.args;
  const size_t row_bytes = pass.tile_bytes / 4;  // of four cache rows
  const uint8_t *e = pass.scores + pair * pass.score_stride;
  __m256i high[kPairCount][kVectors], low[kPairCount][kVectors];  // two partial sums for each value
  for (int p = 0; p < kPairCount; ++p) {
    for (int i = 0; i < kVectors; ++i) high[p][i] = low[p][i] = _mm256_setzero_si256();
  }
  for (size_t run = 0; run < pass.run_count; ++run) {
    const int8_t *v = pass.runs[run].v + d / 16 * 8 * kBits;
    for (size_t quad = 0; quad < 4 * pass.runs[run].tiles(); ++quad, e += 16) {
      __m256i value[kVectors];
      for (int i = 0; i < kVectors; ++i) value[i] = LoadValues<kBits>(v, d % 16 + 4 * static_cast<size_t>(i));
      FetchAhead(v);
      v += row_bytes;
      for (int p = 0; p < kPairCount; ++p) {
        int64_t words[2];
        __builtin_memcpy(words, e + p * pass.score_stride, sizeof(words));
        const __m256i e_high = _mm256_set1_epi64x(words[0]), e_low = _mm256_set1_epi64x(words[1]);
        for (int i = 0; i < kVectors; ++i) {
          high[p][i] = _mm256_add_epi32(high[p][i], _mm256_madd_epi16(value[i], e_high));
          low[p][i] = _mm256_add_epi32(low[p][i], _mm256_madd_epi16(value[i], e_low));
        }
      }
    }
  }
  for (int p = 0; p < kPairCount; ++p) {
    for (int i = 0; i < kVectors; i += 2) {
      const size_t at = d + 4 * static_cast<size_t>(i);
      if (at >= args.v_dim) break;
      const __m256i num_high = _mm256_permute4x64_epi64(_mm256_hadd_epi32(high[p][i], high[p][i + 1]), 0xd8);
      const __m256i num_low = _mm256_permute4x64_epi64(_mm256_hadd_epi32(low[p][i], low[p][i + 1]), 0xd8);
      StoreOutputs(pass, normalisers[pair + p], pair + p, at, num_high, num_low);
    }
  }
}

template <int kBits>
struct Engine {
  static constexpr bool kWholeVectors = false;
  static constexpr int32_t kKeyOffset = kBits == 8 ? 0 : kv_cache::kNibbleOffset;

  static void Queries(const Pass &) {}

  static void Scores(const Pass &pass, const KeyRun &run) {
    const size_t tiles = run.tiles();
    size_t tile = 0;
    for (; tile + 2 <= tiles; tile += 2) ScoreTiles<kBits, 2>(pass, run, tile);
    for (; tile < tiles; ++tile) ScoreTiles<kBits, 1>(pass, run, tile);
  }

  static int32_t Largest(const Pass &pass, size_t pair) { return LargestOf(pass, pair); }

  static uint64_t Exponentials(const Pass &pass, size_t pair, int32_t largest) {
    return ExponentialsOf<Engine>(pass, pair, largest);
  }

  static __m128i QuadBytes() { return _mm_setr_epi8(1, -1, 5, -1, 9, -1, 13, -1, 0, -1, 4, -1, 8, -1, 12, -1); }

  static void Values(const Pass &pass, const Normaliser *normalisers) {
    size_t pair = 0;
    for (; pair + 2 <= pass.pairs; pair += 2) {
      for (size_t d = 0; d < pass.args.v_dim; d += 8) ValueBlock<kBits, 2, 2>(pass, normalisers, pair, d);
    }
    if (pair == pass.pairs) return;
    for (size_t d = 0; d < pass.args.v_dim; d += 16) ValueBlock<kBits, 1, 4>(pass, normalisers, pair, d);
  }
};

}  // namespace

void RunAvx2(const Args &args) { RunEngine<Engine>(args); }
void ScorePartAvx2(const Args &args) { ScorePart<Engine>(args); }
void ValuePartAvx2(const Args &args) { ValuePart<Engine>(args); }

}  // namespace acorn::attention
