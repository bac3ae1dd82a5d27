// What the 256-bit variants of attention share beside pass.h: scores to E, and sums to outputs. In an anonymous namespace, like
// simd_avx2.h.
#pragma once

#include "kernels/attention/pass.h"
#include "kernels/simd_avx2.h"

namespace acorn::attention {
namespace {

inline __m256i *At(uint8_t *p) { return reinterpret_cast<__m256i *>(p); }
inline const __m256i *At(const uint8_t *p) { return reinterpret_cast<const __m256i *>(p); }

/// The low or the high nibbles of bytes.
template <int kHigh>
inline __m256i Nibbles(__m256i bytes) {
  return _mm256_and_si256(kHigh ? _mm256_srli_epi16(bytes, 4) : bytes, _mm256_set1_epi8(15));
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

/// All ones in the lanes of keys in [first, last), of the eight keys from `begin` on.
inline __m256i Seen(size_t begin, size_t first, size_t last) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const auto lanes_below = [&](size_t key) {
    const auto below = static_cast<int32_t>(key <= begin ? 0 : key - begin >= 8 ? 8 : key - begin);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(below), lanes);
  };
  return _mm256_andnot_si256(lanes_below(first), lanes_below(last));
}

inline bool SeesAll(size_t begin, size_t first, size_t last) { return first <= begin && begin + 8 <= last; }

inline __m256i LargestLanes(__m256i max, const uint8_t *scores, size_t first, size_t last) {
  for (size_t begin = first / 8 * 8; begin < last; begin += 8) {
    const __m256i score = _mm256_load_si256(At(scores + 4 * begin));
    const __m256i larger = _mm256_max_epi32(max, score);
    max = SeesAll(begin, first, last) ? larger : _mm256_blendv_epi8(max, larger, Seen(begin, first, last));
  }
  return max;
}

inline int32_t LargestLane(__m256i max) {
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}

inline int32_t LargestOf(const Pass &pass, size_t pair) {
  const uint8_t *scores = pass.scores + pair * pass.score_stride;
  const __m256i max = LargestLanes(_mm256_set1_epi32(INT32_MIN), scores, 0, pass.args.sinks);
  return LargestLane(LargestLanes(max, scores, pass.first[pair], pass.last[pair]));
}

/// Turns the scores of one pair into E, 0 for keys that it does not see; returns the sum of E. What becomes of the bytes of four
/// 32-bit E is the variant's choice: Engine::QuadBytes() is their shuffle.
template <typename Engine>
uint64_t ExponentialsOf(const Pass &pass, size_t pair, int32_t largest) {
  uint8_t *scores = pass.scores + pair * pass.score_stride;
  const size_t sinks = pass.args.sinks, head = pass.head[pair];
  const Exponential exponential(pass.args.exp_multiplier[head], pass.args.exp_shift, largest);
  const __m256i quads = _mm256_broadcastsi128_si256(Engine::QuadBytes());
  __m256i sum = _mm256_setzero_si256();  // a lane holds two values of a tile, at most 65535: a pair sees keys of some 4100 tiles
  for (size_t begin = 0; begin < pass.tiles * kTileRows; begin += 8) {
    const bool is_sink = begin < pass.sink_tiles * kTileRows;
    const size_t first = is_sink ? 0 : pass.first[pair], last = is_sink ? sinks : pass.last[pair];
    __m256i *at = At(scores + 4 * begin);
    __m256i e = exponential(_mm256_load_si256(at));
    if (!SeesAll(begin, first, last)) e = _mm256_and_si256(e, Seen(begin, first, last));
    sum = _mm256_add_epi32(sum, e);
    _mm256_store_si256(at, _mm256_shuffle_epi8(e, quads));
  }
  const __m256i wide = _mm256_add_epi64(_mm256_and_si256(sum, _mm256_set1_epi64x(0xffffffff)), _mm256_srli_epi64(sum, 32));
  const __m128i half = _mm_add_epi64(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(half)) + static_cast<uint64_t>(_mm_extract_epi64(half, 1));
}

inline void StoreNum(int64_t *num, Wide v) {
  const __m256i low = _mm256_unpacklo_epi64(v.even, v.odd), high = _mm256_unpackhi_epi64(v.even, v.odd);
  _mm256_store_si256(reinterpret_cast<__m256i *>(num), _mm256_permute2x128_si256(low, high, 0x20));
  _mm256_store_si256(reinterpret_cast<__m256i *>(num + 4), _mm256_permute2x128_si256(low, high, 0x31));
}

/// Eight outputs of a pair from d on, or those that v_dim leaves: num = 256 * high + low.
inline void StoreOutputs(const Pass &pass, const Normaliser &normaliser, size_t pair, size_t d, __m256i high, __m256i low) {
  const Rounder round(normaliser.shift);
  const __m256i factor = _mm256_set1_epi64x(normaliser.multiplier);
  const Wide from_high = MultiplyAll(high, factor), from_low = MultiplyAll(low, factor);
  const Wide product = {_mm256_add_epi64(_mm256_slli_epi64(from_high.even, 8), from_low.even),
                        _mm256_add_epi64(_mm256_slli_epi64(from_high.odd, 8), from_low.odd)};
  if (pass.num != nullptr) return StoreNum(pass.Num(pair, d), product);
  Finish<StoreS8, Range::k64Bits>(pass.y[pair] + d, pass.args.v_dim - d, round(product), pass.args.zero_point);
}

}  // namespace
}  // namespace acorn::attention
