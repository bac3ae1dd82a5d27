// Two passes over the keys for up to kPairs (row, head) pairs: scores into scratch, then, a pair at a time, scores into the two
// bytes of E in place, then sums of E times values in registers. Sums are exact, so the order of keys does not show.
#include "kernels/attention/kernel.h"
#include "kernels/simd_avx512.h"

namespace acorn::attention {
namespace {

using kv_cache::kTileRows;

constexpr size_t kTileScores = 64;  // bytes of a pair's 16 scores; then 16 high bytes of E, 16 low bytes, and 32 unused

/// Pairs of one pass: consecutive in (row, head) order.
struct Pass {
  const Args &args;
  size_t first_pair, pairs;
  size_t tiles;         // key tiles that the last pair sees
  size_t score_stride;  // bytes from pair to pair
  size_t q_stride;      // bytes from pair to pair
  uint8_t *scores;      // [pairs, tiles, kTileScores]
  int8_t *q;            // [pairs, q_stride], padded with zeros to a multiple of 4

  size_t Row(size_t pair) const { return (first_pair + pair) / args.heads; }
  size_t Head(size_t pair) const { return (first_pair + pair) % args.heads; }
  size_t Keys(size_t pair) const { return args.first_position + Row(pair) + 1; }
};

int32_t LoadQuad(const void *p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return quad;
}

void CopyQueries(const Pass &pass) {
  const size_t head_dim = pass.args.head_dim;
  for (size_t pair = 0; pair < pass.pairs; ++pair) {
    const int8_t *from = pass.args.q + pass.Row(pair) * pass.args.q_stride + pass.Head(pair) * head_dim;
    int8_t *to = pass.q + pair * pass.q_stride;
    for (size_t d = 0; d < head_dim; d += 64) {
      const __mmask64 mask = head_dim - d >= 64 ? ~uint64_t{0} : (uint64_t{1} << (head_dim - d)) - 1;
      _mm512_storeu_si512(to + d, _mm512_maskz_loadu_epi8(mask, from + d));
    }
  }
}

/// Scores of kPairCount pairs from `pair` on, over kTiles key tiles from `tile` on.
template <int kPairCount, int kTiles>
void ScoreBlock(const Pass &pass, size_t pair, size_t tile) {
  const size_t tile_bytes = kTileRows * kv_cache::PaddedDim(pass.args.head_dim);
  const uint8_t *k = pass.args.k + tile * tile_bytes;
  const int8_t *q = pass.q + pair * pass.q_stride;
  __m512i sum[kPairCount][kTiles];
  for (auto &row : sum) {
    for (__m512i &s : row) s = _mm512_setzero_si512();
  }
  for (size_t d = 0; d < pass.args.head_dim; d += 4) {
    __m512i key[kTiles];
    for (int t = 0; t < kTiles; ++t) key[t] = _mm512_load_si512(k + t * tile_bytes + d * kTileRows);
    for (int p = 0; p < kPairCount; ++p) {
      const __m512i quad = _mm512_set1_epi32(LoadQuad(q + p * pass.q_stride + d));
      for (int t = 0; t < kTiles; ++t) sum[p][t] = _mm512_dpbusd_epi32(sum[p][t], key[t], quad);
    }
  }
  uint8_t *out = pass.scores + pair * pass.score_stride + tile * kTileScores;
  for (int p = 0; p < kPairCount; ++p) {
    for (int t = 0; t < kTiles; ++t) _mm512_store_si512(out + p * pass.score_stride + t * kTileScores, sum[p][t]);
  }
}

template <int kTiles>
void ScoreTiles(const Pass &pass, size_t tile) {
  size_t pair = 0;
  for (; pair + 4 <= pass.pairs; pair += 4) ScoreBlock<4, kTiles>(pass, pair, tile);
  switch (pass.pairs - pair) {
    case 3: return ScoreBlock<3, kTiles>(pass, pair, tile);
    case 2: return ScoreBlock<2, kTiles>(pass, pair, tile);
    case 1: return ScoreBlock<1, kTiles>(pass, pair, tile);
    default: return;
  }
}

void Scores(const Pass &pass) {
  size_t tile = 0;
  for (; tile + 4 <= pass.tiles; tile += 4) ScoreTiles<4>(pass, tile);
  for (; tile < pass.tiles; ++tile) ScoreTiles<1>(pass, tile);
}

/// What turns a difference of scores into E.
struct Exponential {
  Exponential(int32_t multiplier, int32_t shift, int32_t max)
      : round(shift), factor(_mm512_set1_epi64(multiplier)), maximum(_mm512_set1_epi32(max)) {
    // E is 0 from 17 octaves on. The least difference that far keeps the product's rounded shift inside 32 bits.
    const uint64_t octaves = uint64_t{17} << 15;
    uint64_t far = 0x7fffffff;
    const auto m = static_cast<uint64_t>(multiplier);
    if (m != 0 && shift < 44 && ((octaves << shift) + m - 1) / m < far) far = ((octaves << shift) + m - 1) / m;
    furthest = _mm512_set1_epi32(static_cast<int32_t>(far));
  }

  __m512i operator()(__m512i score) const {
    const __m512i difference = _mm512_min_epu32(_mm512_sub_epi32(maximum, score), furthest);
    const Wide wide = round(MultiplyAll(difference, factor));
    const __m512i t = _mm512_mask_mov_epi32(wide.even, 0xaaaa, _mm512_slli_epi64(wide.odd, 32));
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

/// Turns the scores of one pair into the bytes of E, 0 for keys that it does not see; returns the sum of E.
uint64_t Exponentials(const Pass &pass, size_t pair) {
  uint8_t *scores = pass.scores + pair * pass.score_stride;
  const size_t keys = pass.Keys(pair), head = pass.Head(pair);
  const size_t whole = keys / kTileRows;
  const __mmask16 rest = Mask16(keys % kTileRows);
  __m512i max = _mm512_set1_epi32(INT32_MIN);
  for (size_t tile = 0; tile < whole; ++tile) max = _mm512_max_epi32(max, _mm512_load_si512(scores + tile * kTileScores));
  if (rest != 0) max = _mm512_mask_max_epi32(max, rest, max, _mm512_load_si512(scores + whole * kTileScores));

  const Exponential exponential(pass.args.exp_multiplier[head], pass.args.exp_shift, _mm512_reduce_max_epi32(max));
  __m512i sum = _mm512_setzero_si512();  // a lane holds at most 4096 values of 65535
  for (size_t tile = 0; tile < pass.tiles; ++tile) {
    uint8_t *at = scores + tile * kTileScores;
    __m512i e = _mm512_setzero_si512();
    if (tile < whole) {
      e = exponential(_mm512_load_si512(at));
    } else if (tile == whole && rest != 0) {
      e = _mm512_maskz_mov_epi32(rest, exponential(_mm512_load_si512(at)));
    }
    sum = _mm512_add_epi32(sum, e);
    _mm_store_si128(reinterpret_cast<__m128i *>(at), _mm512_cvtepi32_epi8(_mm512_srli_epi32(e, 8)));
    _mm_store_si128(reinterpret_cast<__m128i *>(at + 16), _mm512_cvtepi32_epi8(e));
  }
  const __m512i low = _mm512_and_si512(sum, _mm512_set1_epi64(0xffffffff));
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(_mm512_add_epi64(low, _mm512_srli_epi64(sum, 32))));
}

/// Sums of E times V over 16 * kVectors values of a head from `d` on, for kPairCount pairs, and their normalised output.
template <int kPairCount, int kVectors>
void ValueBlock(const Pass &pass, const Normaliser *normalisers, size_t pair, size_t d) {
  const Args &args = pass.args;
  const size_t row_bytes = 4 * kv_cache::PaddedDim(args.head_dim);  // of four cache rows
  const uint8_t *e = pass.scores + pair * pass.score_stride;
  const int8_t *v = args.v + 4 * d;
  __m512i high[kPairCount][kVectors], low[kPairCount][kVectors];
  for (int p = 0; p < kPairCount; ++p) {
    for (int i = 0; i < kVectors; ++i) high[p][i] = low[p][i] = _mm512_setzero_si512();
  }
  for (size_t tile = 0; tile < pass.tiles; ++tile) {
    for (size_t quad = 0; quad < kTileRows; quad += 4) {
      __m512i value[kVectors];
      for (int i = 0; i < kVectors; ++i) value[i] = _mm512_load_si512(v + 64 * i);
      v += row_bytes;
      for (int p = 0; p < kPairCount; ++p) {
        const uint8_t *bytes = e + p * pass.score_stride + quad;
        const __m512i e_high = _mm512_set1_epi32(LoadQuad(bytes)), e_low = _mm512_set1_epi32(LoadQuad(bytes + 16));
        for (int i = 0; i < kVectors; ++i) {
          high[p][i] = _mm512_dpbusd_epi32(high[p][i], e_high, value[i]);
          low[p][i] = _mm512_dpbusd_epi32(low[p][i], e_low, value[i]);
        }
      }
    }
    e += kTileScores;
  }
  const __m512i zero_point = _mm512_set1_epi64(args.zero_point);
  for (int p = 0; p < kPairCount; ++p) {
    const Normaliser &normaliser = normalisers[pair + p];
    const Rounder round(normaliser.shift);
    const __m512i multiplier = _mm512_set1_epi64(normaliser.multiplier);
    int8_t *y = args.y + pass.Row(pair + p) * args.y_stride + pass.Head(pair + p) * args.head_dim + d;
    for (int i = 0; i < kVectors; ++i) {
      Wide num;  // 256 * high + low
      num.even = _mm512_add_epi64(_mm512_slli_epi64(_mm512_srai_epi64(_mm512_slli_epi64(high[p][i], 32), 32), 8),
                                  _mm512_srai_epi64(_mm512_slli_epi64(low[p][i], 32), 32));
      num.odd = _mm512_add_epi64(_mm512_slli_epi64(_mm512_srai_epi64(high[p][i], 32), 8), _mm512_srai_epi64(low[p][i], 32));
      num = round({_mm512_mullo_epi64(num.even, multiplier), _mm512_mullo_epi64(num.odd, multiplier)});
      const size_t at = static_cast<size_t>(i) * 16;
      if (d + at < args.head_dim) StoreS8::Store(y + at, Mask16(args.head_dim - d - at), AddAll(num, zero_point));
    }
  }
}

template <int kPairCount>
void Values(const Pass &pass, const Normaliser *normalisers, size_t pair) {
  const size_t padded = kv_cache::PaddedDim(pass.args.head_dim);
  size_t d = 0;
  for (; d + 64 <= padded; d += 64) ValueBlock<kPairCount, 4>(pass, normalisers, pair, d);
  if (d + 32 <= padded) {
    ValueBlock<kPairCount, 2>(pass, normalisers, pair, d);
    d += 32;
  }
  if (d < padded) ValueBlock<kPairCount, 1>(pass, normalisers, pair, d);
}

void RunPass(const Pass &pass) {
  CopyQueries(pass);
  Scores(pass);
  Normaliser normalisers[kPairs];
  for (size_t pair = 0; pair < pass.pairs; ++pair) {
    const uint64_t den = Exponentials(pass, pair);
    normalisers[pair] = Normalise(den, pass.args.out_multiplier[pass.Head(pair)], pass.args.out_shift);
  }
  size_t pair = 0;
  for (; pass.pairs - pair > 4 || pass.pairs - pair == 3; pair += 3) Values<3>(pass, normalisers, pair);
  for (; pass.pairs - pair >= 2; pair += 2) Values<2>(pass, normalisers, pair);
  if (pair < pass.pairs) Values<1>(pass, normalisers, pair);
}

}  // namespace

void RunAvx512Vnni(const Args &args) {
  const size_t rows = kv_cache::PaddedRows(args.first_position + args.m);
  const size_t all = args.m * args.heads;
  for (size_t first = 0; first < all; first += kPairs) {
    const size_t pairs = all - first < kPairs ? all - first : kPairs;
    const size_t keys = args.first_position + (first + pairs - 1) / args.heads + 1;
    const size_t q_stride = AlignUp(args.head_dim, 64);
    RunPass({args, first, pairs, kv_cache::PaddedRows(keys) / kTileRows, 4 * rows, q_stride, args.scratch,
             reinterpret_cast<int8_t *>(args.scratch + kPairs * 4 * rows)});
  }
}

}  // namespace acorn::attention
