// E of a tile: 16 bytes for four keys: 4 high bytes, 4 low bytes, 8 unused. Quads are the unsigned operands of dot products.
#include <type_traits>

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

constexpr size_t kFewPairs = 4;
constexpr size_t kAheadInHalves = 1024;

/// Few pairs wait for keys and values, which come from memory faster in two streams than in one: both halves of a run side by side.
/// Attention behind 500 to 8,000 tokens is 1.03 to 1.13 times as fast, SmolLM2, and 1.11 to 1.27 where one pair reads rows of 128
/// values in one piece too, OLMoE's geometry (Zen 4; not measured elsewhere). There lines need not be asked for; it costs 0 to 2 %.
/// Caches of 4 bits, which keep the core busy: 0.81 to 0.95.
inline bool WaitsForMemory(const Pass &pass) { return pass.pairs <= kFewPairs && pass.args.bits == 8; }

/// Scores of kPairCount pairs from `pair` on, over kTiles key tiles of a run from `tile` on, `apart` tiles from one to the next.
template <int kBits, int kPairCount, int kTiles>
void ScoreBlock(const Pass &pass, const KeyRun &run, size_t pair, size_t tile, size_t apart) {
  const size_t step = apart * pass.tile_bytes, ahead = WaitsForMemory(pass) ? kAheadInHalves : kAheadInOrder;
  const uint8_t *k = run.k + tile * pass.tile_bytes;
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
      key[t] = _mm512_load_si512(k + t * step);
      FetchAhead(k + t * step, ahead);
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
    for (int t = 0; t < kTiles; ++t) _mm512_store_si512(out + p * pass.score_stride + t * apart * kTileScores, sum[p][t]);
  }
}

template <int kBits, int kTiles>
void ScoreTiles(const Pass &pass, const KeyRun &run, size_t tile, size_t apart = 1) {
  size_t pair = 0;
  for (; pair + 4 <= pass.pairs; pair += 4) ScoreBlock<kBits, 4, kTiles>(pass, run, pair, tile, apart);
  switch (pass.pairs - pair) {
    case 3:
      return ScoreBlock<kBits, 3, kTiles>(pass, run, pair, tile, apart);
    case 2:
      return ScoreBlock<kBits, 2, kTiles>(pass, run, pair, tile, apart);
    case 1:
      return ScoreBlock<kBits, 1, kTiles>(pass, run, pair, tile, apart);
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
    // (f * c) >> 15 as the high half of 16-bit (2 f) * c. The upper half of a lane is multiplied by 0.
    const __m512i f2 = _mm512_slli_epi16(t, 1);
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

/// Sums of so many vectors of values, 16 each, are kept for each of so many pairs: pairs times vectors at most 12, 24 sums in
/// registers, and enough of them to hide the latency of the dot product.
constexpr int MostVectors(size_t pairs) { return pairs == 1 ? 8 : pairs <= 3 ? 4 : 2; }

/// Whether both halves of the values are read side by side: not where their rows are read in pieces.
inline bool ReadsHalves(const Pass &pass) {
  const auto most = static_cast<size_t>(MostVectors(pass.pairs)), vectors = kv_cache::PaddedDim(pass.args.v_dim) / 16;
  return WaitsForMemory(pass) && (vectors == most || (vectors == 4 && most == 8));
}

/// Turns the scores of one pair into the bytes of E, 0 for keys that it does not see; returns the sum of E.
uint64_t ExponentialsOf(const Pass &pass, size_t pair, int32_t largest) {
  uint8_t *scores = pass.scores + pair * pass.score_stride;
  const size_t first = pass.first[pair], last = pass.last[pair], head = pass.head[pair];
  const Exponential exponential(pass.args.exp_multiplier[head], pass.args.exp_shift, largest);
  const __m512i quads = _mm512_broadcast_i32x4(_mm_setr_epi8(1, 5, 9, 13, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1));
  // Memory has nothing else to do: a line of values comes with each tile (1.06 of the speed of exponentials and sums; two: 1.0), of
  // both halves in turn where they are read side by side.
  const KeyRun &newest = pass.runs[pass.run_count - 1];
  const bool halves = ReadsHalves(pass);
  const size_t pitch = halves ? 64 : 128, apart = halves ? newest.tiles() / 2 * pass.tile_bytes : 64;  // of pairs of lines, in them
  const int8_t *values = newest.v + pair * pass.tiles / 2 * pitch;
  __m512i sum = _mm512_setzero_si512();  // a lane holds one value of a tile, at most 65535: a pair sees keys of some 4100 tiles
  for (size_t tile = 0; tile < pass.tiles; ++tile) {
    uint8_t *at = scores + tile * kTileScores;
    __builtin_prefetch(values + tile / 2 * pitch + tile % 2 * apart, 0, 2);
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

constexpr __mmask16 kHighBytes = 0x1111;

/// The words of a tile, each of 4 high or 4 low bytes, in which any of kPairCount pairs has a bit.
template <int kPairCount>
__mmask16 SomeBytes(const Pass &pass, const uint8_t *e) {
  __m512i some = _mm512_load_si512(e);
  for (int p = 1; p < kPairCount; ++p) some = _mm512_or_si512(some, _mm512_load_si512(e + p * pass.score_stride));
  return _mm512_test_epi32_mask(some, some);
}

/// Sums of E times V over 16 * kVectors values of a head from `d` on, for kPairCount pairs, and their normalised output.
template <int kBits, int kPairCount, int kVectors>
void ValueBlock(const Pass &pass, const Normaliser *normalisers, size_t pair, size_t d) {
  const Args &args = pass.args;
  const size_t row_bytes = pass.tile_bytes / 4;  // of four cache rows
  const uint8_t *e = pass.scores + pair * pass.score_stride;
  const bool halves = ReadsHalves(pass);
  const size_t ahead = halves ? kAheadInHalves : kAheadInOrder;
  // Far from the likeliest key E has no high bytes, or is 0 (8 rows and heads behind 7,000 tokens of text: 6 and 1 of 10 tiles). Of
  // few keys to look costs what it saves, and where there is one pass alone it waits for memory either way.
  constexpr size_t kManyTiles = 32;
  const bool skips = args.m * args.heads > kPairs && pass.tiles > kManyTiles;
  __m512i high[kPairCount][kVectors], low[kPairCount][kVectors];
  for (int p = 0; p < kPairCount; ++p) {
    for (int i = 0; i < kVectors; ++i) high[p][i] = low[p][i] = _mm512_setzero_si512();
  }
  for (size_t run = 0; run < pass.run_count; ++run) {
    const int8_t *v = pass.runs[run].v + d * kBits / 2;
    const size_t tiles = pass.runs[run].tiles();
    const auto add = [&](size_t quad, auto with_high) {
      __m512i value[kVectors];
      for (int i = 0; i < kVectors; ++i) {
        const int8_t *at = v + quad * row_bytes + 8 * kBits * i;
        value[i] = LoadValues<kBits>(at);
        FetchAhead(at, ahead);
      }
      for (int p = 0; p < kPairCount; ++p) {
        const uint8_t *bytes = e + p * pass.score_stride + 16 * quad;
        const __m512i e_high = _mm512_set1_epi32(LoadQuad(bytes)), e_low = _mm512_set1_epi32(LoadQuad(bytes + 4));
        for (int i = 0; i < kVectors; ++i) {
          if constexpr (with_high) high[p][i] = _mm512_dpbusd_epi32(high[p][i], e_high, value[i]);
          low[p][i] = _mm512_dpbusd_epi32(low[p][i], e_low, value[i]);
        }
      }
    };
    const size_t half = halves ? 4 * (tiles / 2) : 0;
    for (size_t quad = 0; quad < half; ++quad) {
      add(quad, std::true_type());
      add(quad + half, std::true_type());
    }
    for (size_t tile = half / 2; tile < tiles; ++tile) {
      const __mmask16 some = skips ? SomeBytes<kPairCount>(pass, e + tile * kTileScores) : kHighBytes;
      if (some == 0) continue;
      for (size_t quad = 4 * tile; quad < 4 * tile + 4; ++quad) {
        (some & kHighBytes) != 0 ? add(quad, std::true_type()) : add(quad, std::false_type());
      }
    }
    e += tiles * kTileScores;
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

template <int kBits, int kPairCount>
void ValuesOf(const Pass &pass, const Normaliser *normalisers, size_t pair) {
  constexpr int kMostVectors = MostVectors(kPairCount);
  const size_t vectors = kv_cache::PaddedDim(pass.args.v_dim) / 16;
  size_t i = 0;
  for (; i + kMostVectors <= vectors; i += kMostVectors) {
    ValueBlock<kBits, kPairCount, kMostVectors>(pass, normalisers, pair, 16 * i);
  }
  if constexpr (kMostVectors == 8) {
    for (; i + 4 <= vectors; i += 4) ValueBlock<kBits, kPairCount, 4>(pass, normalisers, pair, 16 * i);
  }
  for (; i < vectors; ++i) ValueBlock<kBits, kPairCount, 1>(pass, normalisers, pair, 16 * i);
}

template <int kBits>
struct Engine {
  static constexpr bool kWholeVectors = false;
  static constexpr int32_t kKeyOffset = kBits == 8 ? 128 : kv_cache::kNibbleOffset;

  static void Queries(const Pass &) {}

  static void Scores(const Pass &pass, const KeyRun &run) {
    const size_t tiles = run.tiles();
    size_t tile = 0;
    if (WaitsForMemory(pass)) {
      const size_t half = tiles / 2;
      for (; tile < half; ++tile) ScoreTiles<kBits, 2>(pass, run, tile, half);
      tile = 2 * half;
    } else if (pass.pairs > kFewPairs) {
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
