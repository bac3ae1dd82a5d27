// E of a tile: 16 bytes for four keys: 4 high bytes, 4 low bytes, 8 unused. Quads are the unsigned operands of dot products.
#include "kernels/attention/softmax256.h"

namespace acorn::attention {
namespace {

/// Scores of kPairCount pairs from `pair` on, over kTiles key tiles from `tile` of a run on.
template <int kBits, int kPairCount, int kTiles>
void ScoreBlock(const Pass &pass, const KeyRun &run, size_t pair, size_t tile) {
  constexpr int kHalves = 2 * kTiles;  // of eight keys
  const uint8_t *k = run.k + tile * pass.tile_bytes;
  const int8_t *q = pass.q + pair * pass.q_stride;
  __m256i sum[kPairCount][kHalves];
  for (auto &row : sum) {
    for (__m256i &s : row) s = _mm256_setzero_si256();
  }
  const auto add = [&](size_t d, const __m256i (&key)[kHalves]) {
    for (int p = 0; p < kPairCount; ++p) {
      const __m256i quad = _mm256_set1_epi32(LoadQuad(q + p * pass.q_stride + d));
      for (int t = 0; t < kHalves; ++t) sum[p][t] = _mm256_dpbusd_avx_epi32(sum[p][t], key[t], quad);
    }
  };
  for (size_t d = 0; d < pass.args.k_dim; d += 32 / kBits, k += 4 * kTileRows) {
    __m256i key[kHalves];
    for (int t = 0; t < kHalves; ++t) {
      key[t] = _mm256_load_si256(At(k + t / 2 * pass.tile_bytes + t % 2 * 32));
      if (t % 2 == 0) FetchAhead(k + t / 2 * pass.tile_bytes);
    }
    if constexpr (kBits == 8) {
      add(d, key);
    } else {
      __m256i nibbles[kHalves];
      for (int t = 0; t < kHalves; ++t) nibbles[t] = Nibbles<0>(key[t]);
      add(d, nibbles);
      for (int t = 0; t < kHalves; ++t) nibbles[t] = Nibbles<1>(key[t]);
      add(d + 4, nibbles);
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

/// Sums of E times V over sixteen values of a head from `d` on, for kPairCount pairs, and their normalised output.
template <int kBits, int kPairCount>
void ValueBlock(const Pass &pass, const Normaliser *normalisers, size_t pair, size_t d) {
  constexpr int kVectors = 2;  // of eight values
  const size_t row_bytes = pass.tile_bytes / 4;  // of four cache rows
  const uint8_t *e = pass.scores + pair * pass.score_stride;
  __m256i high[kPairCount][kVectors], low[kPairCount][kVectors];
  for (int p = 0; p < kPairCount; ++p) {
    for (int i = 0; i < kVectors; ++i) high[p][i] = low[p][i] = _mm256_setzero_si256();
  }
  for (size_t run = 0; run < pass.run_count; ++run) {
    const auto *v = reinterpret_cast<const uint8_t *>(pass.runs[run].v + d * kBits / 2);
    for (size_t quad = 0; quad < 4 * pass.runs[run].tiles(); ++quad, e += 16) {
      __m256i value[kVectors];
      if constexpr (kBits == 8) {
        for (int i = 0; i < kVectors; ++i) value[i] = _mm256_load_si256(At(v + 32 * i));
      } else {
        const __m256i bytes = _mm256_load_si256(At(v)), offset = _mm256_set1_epi8(kv_cache::kNibbleOffset);
        value[0] = _mm256_sub_epi8(Nibbles<0>(bytes), offset);
        value[1] = _mm256_sub_epi8(Nibbles<1>(bytes), offset);
      }
      FetchAhead(v);
      v += row_bytes;
      for (int p = 0; p < kPairCount; ++p) {
        const uint8_t *bytes = e + p * pass.score_stride;
        const __m256i e_high = _mm256_set1_epi32(LoadQuad(bytes)), e_low = _mm256_set1_epi32(LoadQuad(bytes + 4));
        for (int i = 0; i < kVectors; ++i) {
          high[p][i] = _mm256_dpbusd_avx_epi32(high[p][i], e_high, value[i]);
          low[p][i] = _mm256_dpbusd_avx_epi32(low[p][i], e_low, value[i]);
        }
      }
    }
  }
  for (int p = 0; p < kPairCount; ++p) {
    for (int i = 0; i < kVectors; ++i) {
      const size_t at = d + 8 * static_cast<size_t>(i);
      if (at < pass.args.v_dim) StoreOutputs(pass, normalisers[pair + p], pair + p, at, high[p][i], low[p][i]);
    }
  }
}

template <int kBits>
struct Engine {
  static constexpr bool kWholeVectors = false;
  static constexpr int32_t kKeyOffset = kBits == 8 ? 128 : kv_cache::kNibbleOffset;

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

  static __m128i QuadBytes() { return _mm_setr_epi8(1, 5, 9, 13, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1); }

  static void Values(const Pass &pass, const Normaliser *normalisers) {
    size_t pair = 0;
    for (; pair + 2 <= pass.pairs; pair += 2) {
      for (size_t d = 0; d < pass.args.v_dim; d += 16) ValueBlock<kBits, 2>(pass, normalisers, pair, d);
    }
    if (pair == pass.pairs) return;
    for (size_t d = 0; d < pass.args.v_dim; d += 16) ValueBlock<kBits, 1>(pass, normalisers, pair, d);
  }
};

}  // namespace

void RunAvxVnni(const Args &args) { RunEngine<Engine>(args); }
void ScorePartAvxVnni(const Args &args) { ScorePart<Engine>(args); }
void ValuePartAvxVnni(const Args &args) { ValuePart<Engine>(args); }

}  // namespace acorn::attention
