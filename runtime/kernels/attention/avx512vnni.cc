// E of a tile: 16 bytes for four keys: 4 high bytes, 4 low bytes, 8 unused. Quads are the unsigned operands of dot products.
#include "kernels/attention/pass.h"
#include "kernels/simd_avx512.h"

namespace acorn::attention {
namespace {

/// The low or the high nibbles of bytes.
template <int kHigh>
__m512i Nibbles(__m512i bytes) {
  return _mm512_and_si512(kHigh ? _mm512_srli_epi16(bytes, 4) : bytes, _mm512_set1_epi8(15));
}

/// Sixteen values of a head, a multiple of sixteen from its first, of four rows.
template <int kBits>
__m512i LoadValues(const int8_t *v) {
  if constexpr (kBits == 8) return _mm512_load_si512(v);
  const __m256i bytes = _mm256_load_si256(reinterpret_cast<const __m256i *>(v));
  const __m512i nibbles = _mm512_inserti64x4(_mm512_castsi256_si512(bytes), _mm256_srli_epi16(bytes, 4), 1);
  return _mm512_sub_epi8(Nibbles<0>(nibbles), _mm512_set1_epi8(kv_cache::kNibbleOffset));
}

/// Scores of kPairCount pairs from `pair` on, over kTiles key tiles from `tile` of a run on.
template <int kBits, int kPairCount, int kTiles>
void ScoreBlock(const Pass &pass, const KeyRun &run, size_t pair, size_t tile) {
  const size_t tile_bytes = pass.tile_bytes;
  const uint8_t *k = run.k + tile * tile_bytes;
  const int8_t *q = pass.q + pair * pass.q_stride;
  __m512i sum[kPairCount][kTiles];
  for (auto &row : sum) {
    for (__m512i &s : row) s = _mm512_setzero_si512();
  }
  const auto add = [&](size_t d, const __m512i (&key)[kTiles]) {
    for (int p = 0; p < kPairCount; ++p) {
      const __m512i quad = _mm512_set1_epi32(LoadQuad(q + p * pass.q_stride + d));
      for (int t = 0; t < kTiles; ++t) sum[p][t] = _mm512_dpbusd_epi32(sum[p][t], key[t], quad);
    }
  };
  for (size_t d = 0; d < pass.args.k_dim; d += 32 / kBits, k += 4 * kTileRows) {
    __m512i key[kTiles];
    for (int t = 0; t < kTiles; ++t) {
      key[t] = _mm512_load_si512(k + t * tile_bytes);
      FetchAhead(k + t * tile_bytes);
    }
    if constexpr (kBits == 8) {
      add(d, key);
    } else {
      __m512i nibbles[kTiles];
      for (int t = 0; t < kTiles; ++t) nibbles[t] = Nibbles<0>(key[t]);
      add(d, nibbles);
      for (int t = 0; t < kTiles; ++t) nibbles[t] = Nibbles<1>(key[t]);
      add(d + 4, nibbles);
    }
  }
  uint8_t *out = pass.scores + pair * pass.score_stride + (run.tile + tile) * kTileScores;
  for (int p = 0; p < kPairCount; ++p) {
    for (int t = 0; t < kTiles; ++t) _mm512_store_si512(out + p * pass.score_stride + t * kTileScores, sum[p][t]);
  }
}

template <int kBits, int kTiles>
void ScoreTiles(const Pass &pass, const KeyRun &run, size_t tile) {
  size_t pair = 0;
  for (; pair + 4 <= pass.pairs; pair += 4) ScoreBlock<kBits, 4, kTiles>(pass, run, pair, tile);
  switch (pass.pairs - pair) {
    case 3:
      return ScoreBlock<kBits, 3, kTiles>(pass, run, pair, tile);
    case 2:
      return ScoreBlock<kBits, 2, kTiles>(pass, run, pair, tile);
    case 1:
      return ScoreBlock<kBits, 1, kTiles>(pass, run, pair, tile);
    default:
      return;
  }
}

/// What turns a score into E.
struct Exponential {
  Exponential(int32_t multiplier, int32_t shift, int32_t max)
      : round(shift),
        factor(_mm512_set1_epi64(multiplier)),
        maximum(_mm512_set1_epi32(max)),
        furthest(_mm512_set1_epi32(FurthestDifference(multiplier, shift))) {}

  __m512i operator()(__m512i score) const {
    const __m512i difference = _mm512_min_epu32(_mm512_sub_epi32(maximum, score), furthest);
    const __m512i t = Join(round(MultiplyAll(difference, factor)));
    const __m512i i = _mm512_srli_epi32(t, 15);
    // (f * c) >> 15 as the high half of 16-bit (2 f) * c; the upper half of each lane stays 0.
    const __m512i f2 = _mm512_and_si512(_mm512_add_epi32(t, t), _mm512_set1_epi32(0xfffe));
    __m512i p = _mm512_mulhi_epu16(f2, _mm512_set1_epi32(2598));
    p = _mm512_mulhi_epu16(f2, _mm512_sub_epi32(_mm512_set1_epi32(15162), p));
    p = _mm512_mulhi_epu16(f2, _mm512_sub_epi32(_mm512_set1_epi32(45332), p));
    p = _mm512_sub_epi32(_mm512_set1_epi32(65535), p);
    // rs(p, i) for i >= 1; i = 0 adds nothing; from i = 17 on, shifts beyond 31 included, the result is 0.
    const __m512i half = _mm512_srli_epi32(_mm512_sllv_epi32(_mm512_set1_epi32(1), i), 1);
    return _mm512_srlv_epi32(_mm512_add_epi32(p, half), i);
  }

  Rounder round;
  __m512i factor, maximum, furthest;
};

/// The lanes of a tile whose keys are in [first, last).
inline __mmask16 Seen(size_t tile, size_t first, size_t last) {
  const size_t begin = tile * kTileRows;
  if (first <= begin && last >= begin + kTileRows) return 0xffff;
  const __mmask16 below = Mask16(first > begin ? first - begin : 0);
  return static_cast<__mmask16>(Mask16(last > begin ? last - begin : 0) & ~below);
}

inline __m512i LargestLanes(__m512i max, const uint8_t *scores, size_t first, size_t last) {
  for (size_t tile = first / kTileRows; tile * kTileRows < last; ++tile) {
    max = _mm512_mask_max_epi32(max, Seen(tile, first, last), max, _mm512_load_si512(scores + tile * kTileScores));
  }
  return max;
}

inline int32_t LargestOf(const Pass &pass, size_t pair) {
  const uint8_t *scores = pass.scores + pair * pass.score_stride;
  const __m512i max = LargestLanes(_mm512_set1_epi32(INT32_MIN), scores, 0, pass.args.sinks);
  return _mm512_reduce_max_epi32(LargestLanes(max, scores, pass.first[pair], pass.last[pair]));
}

/// Turns the scores of one pair into the bytes of E, 0 for keys that it does not see; returns the sum of E.
uint64_t ExponentialsOf(const Pass &pass, size_t pair, int32_t largest) {
  uint8_t *scores = pass.scores + pair * pass.score_stride;
  const size_t first = pass.first[pair], last = pass.last[pair], head = pass.head[pair];
  const Exponential exponential(pass.args.exp_multiplier[head], pass.args.exp_shift, largest);
  const __m512i quads = _mm512_broadcast_i32x4(_mm_setr_epi8(1, 5, 9, 13, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1));
  // Memory has nothing else to do: a line of values comes with each tile (1.06 of the speed of exponentials and sums; two: 1.0).
  const int8_t *values = pass.runs[pass.run_count - 1].v + pair * pass.tiles * 64;
  __m512i sum = _mm512_setzero_si512();  // a lane holds one value of a tile, at most 65535: a pair sees keys of some 4100 tiles
  for (size_t tile = 0; tile < pass.tiles; ++tile, values += 64) {
    uint8_t *at = scores + tile * kTileScores;
    __builtin_prefetch(values, 0, 2);
    const __mmask16 seen = tile < pass.sink_tiles ? Seen(tile, 0, pass.args.sinks) : Seen(tile, first, last);
    const __m512i e = seen == 0 ? _mm512_setzero_si512() : _mm512_maskz_mov_epi32(seen, exponential(_mm512_load_si512(at)));
    sum = _mm512_add_epi32(sum, e);
    _mm512_store_si512(at, _mm512_shuffle_epi8(e, quads));
  }
  const __m512i low = _mm512_and_si512(sum, _mm512_set1_epi64(0xffffffff));
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(_mm512_add_epi64(low, _mm512_srli_epi64(sum, 32))));
}

inline void StoreNum(int64_t *num, Wide v) {
  const __m512i first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), second = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
  _mm512_store_si512(num, _mm512_permutex2var_epi64(v.even, first, v.odd));
  _mm512_store_si512(num + 8, _mm512_permutex2var_epi64(v.even, second, v.odd));
}

/// Sums of E times V over 16 * kVectors values of a head from `d` on, for kPairCount pairs, and their normalised output.
template <int kBits, int kPairCount, int kVectors>
void ValueBlock(const Pass &pass, const Normaliser *normalisers, size_t pair, size_t d) {
  const Args &args = pass.args;
  const size_t row_bytes = pass.tile_bytes / 4;  // of four cache rows
  const uint8_t *e = pass.scores + pair * pass.score_stride;
  __m512i high[kPairCount][kVectors], low[kPairCount][kVectors];
  for (int p = 0; p < kPairCount; ++p) {
    for (int i = 0; i < kVectors; ++i) high[p][i] = low[p][i] = _mm512_setzero_si512();
  }
  for (size_t run = 0; run < pass.run_count; ++run) {
    const int8_t *v = pass.runs[run].v + d * kBits / 2;
    for (size_t quad = 0; quad < 4 * pass.runs[run].tiles(); ++quad, e += 16) {
      __m512i value[kVectors];
      for (int i = 0; i < kVectors; ++i) {
        value[i] = LoadValues<kBits>(v + 8 * kBits * i);
        FetchAhead(v + 8 * kBits * i);
      }
      v += row_bytes;
      for (int p = 0; p < kPairCount; ++p) {
        const uint8_t *bytes = e + p * pass.score_stride;
        const __m512i e_high = _mm512_set1_epi32(LoadQuad(bytes)), e_low = _mm512_set1_epi32(LoadQuad(bytes + 4));
        for (int i = 0; i < kVectors; ++i) {
          high[p][i] = _mm512_dpbusd_epi32(high[p][i], e_high, value[i]);
          low[p][i] = _mm512_dpbusd_epi32(low[p][i], e_low, value[i]);
        }
      }
    }
  }
  for (int p = 0; p < kPairCount; ++p) {
    const Normaliser &normaliser = normalisers[pair + p];
    const Rounder round(normaliser.shift);
    const __m512i factor = _mm512_set1_epi64(normaliser.multiplier);
    int8_t *y = pass.y[pair + p];
    for (int i = 0; i < kVectors; ++i) {
      const size_t at = d + 16 * static_cast<size_t>(i);
      if (at >= args.v_dim) break;
      const Wide from_high = MultiplyAll(high[p][i], factor), from_low = MultiplyAll(low[p][i], factor);
      const Wide product = {_mm512_add_epi64(_mm512_slli_epi64(from_high.even, 8), from_low.even),
                            _mm512_add_epi64(_mm512_slli_epi64(from_high.odd, 8), from_low.odd)};
      if (pass.num != nullptr) {
        StoreNum(pass.Num(pair + p, at), product);
      } else {
        Finish<StoreS8, Range::k64Bits>(y + at, Mask16(args.v_dim - at), round(product), args.zero_point);
      }
    }
  }
}

/// Pairs times vectors at most 12: 24 sums in registers, and enough of them to hide the latency of the dot product. Values of 64
/// dimensions are then read in one piece for up to three pairs.
template <int kBits, int kPairCount>
void ValuesOf(const Pass &pass, const Normaliser *normalisers, size_t pair) {
  constexpr int kMostVectors = kPairCount <= 3 ? 4 : 2;
  const size_t vectors = kv_cache::PaddedDim(pass.args.v_dim) / 16;
  size_t i = 0;
  for (; i + kMostVectors <= vectors; i += kMostVectors) {
    ValueBlock<kBits, kPairCount, kMostVectors>(pass, normalisers, pair, 16 * i);
  }
  for (; i < vectors; ++i) ValueBlock<kBits, kPairCount, 1>(pass, normalisers, pair, 16 * i);
}

/// So few pairs wait for keys, which come from memory fastest in the order of their addresses: 0.78 of a plain read loop's speed
/// against 0.52 for four tiles side by side (Zen 5, 3 pairs, 8,000 keys).
constexpr size_t kPairsInOrder = 4;

template <int kBits>
struct Engine {
  static constexpr bool kWholeVectors = false;
  static constexpr int32_t kKeyOffset = kBits == 8 ? 128 : kv_cache::kNibbleOffset;

  static void Queries(const Pass &) {}

  static void Scores(const Pass &pass, const KeyRun &run) {
    const size_t tiles = run.tiles();
    size_t tile = 0;
    if (pass.pairs > kPairsInOrder) {
      for (; tile + 4 <= tiles; tile += 4) ScoreTiles<kBits, 4>(pass, run, tile);
      for (; tile + 2 <= tiles; tile += 2) ScoreTiles<kBits, 2>(pass, run, tile);
    }
    for (; tile < tiles; ++tile) ScoreTiles<kBits, 1>(pass, run, tile);
  }

  static int32_t Largest(const Pass &pass, size_t pair) { return LargestOf(pass, pair); }

  static uint64_t Exponentials(const Pass &pass, size_t pair, int32_t largest) { return ExponentialsOf(pass, pair, largest); }

  static void Values(const Pass &pass, const Normaliser *normalisers) {
    size_t pair = 0;
    for (; pair + 4 <= pass.pairs; pair += 4) ValuesOf<kBits, 4>(pass, normalisers, pair);
    switch (pass.pairs - pair) {
      case 3:
        return ValuesOf<kBits, 3>(pass, normalisers, pair);
      case 2:
        return ValuesOf<kBits, 2>(pass, normalisers, pair);
      case 1:
        return ValuesOf<kBits, 1>(pass, normalisers, pair);
      default:
        return;
    }
  }
};

}  // namespace

void RunAvx512Vnni(const Args &args) { RunEngine<Engine>(args); }
void ScorePartAvx512Vnni(const Args &args) { ScorePart<Engine>(args); }
void ValuePartAvx512Vnni(const Args &args) { ValuePart<Engine>(args); }

}  // namespace acorn::attention
