// Helpers of the files that are compiled for AVX2: eight 32-bit values become two vectors of 64-bit products, are rounded as
// RoundShift does, and become eight 8-bit or 16-bit values again. All in an anonymous namespace, so that no other file can end
// up with this instruction set's copy. A file need not use all of them.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace acorn {
namespace {

/// The 64-bit companions of eight 32-bit lanes: those of even lanes, those of odd lanes.
struct Wide {
  __m256i even, odd;
};

/// Rounding shift by one amount for all lanes. AVX2 shifts 64-bit lanes as unsigned numbers only: 2^63 is added before the shift
/// (no sum overflows by contract) and what became of it taken off after.
struct Rounder {
  explicit Rounder(int shift)
      : half(_mm256_set1_epi64x(static_cast<int64_t>((uint64_t{1} << 63) + (uint64_t{1} << (shift - 1))))),
        bias(_mm256_set1_epi64x(static_cast<int64_t>(uint64_t{1} << (63 - shift)))),
        count(_mm_cvtsi32_si128(shift)) {}
  __m256i operator()(__m256i v) const { return _mm256_sub_epi64(_mm256_srl_epi64(_mm256_add_epi64(v, half), count), bias); }
  Wide operator()(Wide v) const { return {(*this)(v.even), (*this)(v.odd)}; }
  __m256i half, bias;
  __m128i count;
};

/// min(n, 8) values, zeros behind them; reads nothing else.
inline __m128i LoadRaw(const int16_t *p, size_t n) {
  if (n >= 8) return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
  alignas(16) int16_t values[8] = {};
  __builtin_memcpy(values, p, n * sizeof(int16_t));
  return _mm_load_si128(reinterpret_cast<const __m128i *>(values));
}

inline __m256i LoadS16(const int16_t *p, size_t n) { return _mm256_cvtepi16_epi32(LoadRaw(p, n)); }

/// min(n, 8) values, zeros behind them; reads nothing else.
inline __m256i LoadS32(const int32_t *p, size_t n) {
  if (n >= 8) return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
  alignas(32) int32_t values[8] = {};
  __builtin_memcpy(values, p, n * sizeof(int32_t));
  return _mm256_load_si256(reinterpret_cast<const __m256i *>(values));
}

/// Eight low halves and eight high halves of 32-bit lanes, from 16-bit values.
inline __m256i Pair(__m128i low, __m128i high) {
  return _mm256_or_si256(_mm256_cvtepu16_epi32(low), _mm256_slli_epi32(_mm256_cvtepu16_epi32(high), 16));
}

inline Wide Multiply(__m256i a, __m256i b) {
  return {_mm256_mul_epi32(a, b), _mm256_mul_epi32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32))};
}

/// `factor` holds the multiplier in the low half of each 64-bit lane.
inline Wide MultiplyAll(__m256i a, __m256i factor) {
  return {_mm256_mul_epi32(a, factor), _mm256_mul_epi32(_mm256_srli_epi64(a, 32), factor)};
}

inline Wide Add(Wide a, Wide b) { return {_mm256_add_epi64(a.even, b.even), _mm256_add_epi64(a.odd, b.odd)}; }
inline Wide AddAll(Wide a, __m256i b) { return {_mm256_add_epi64(a.even, b), _mm256_add_epi64(a.odd, b)}; }

inline __m256i Clamp64(__m256i v, __m256i low, __m256i high) {
  v = _mm256_blendv_epi8(v, low, _mm256_cmpgt_epi64(low, v));
  return _mm256_blendv_epi8(v, high, _mm256_cmpgt_epi64(v, high));
}

/// Eight 32-bit lanes in order, of values that fit.
inline __m256i Join(Wide v) { return _mm256_blend_epi32(v.even, _mm256_slli_epi64(v.odd, 32), 0xaa); }

/// Clamped to [low, high], which fit 16 bits; lanes in order.
inline __m128i NarrowS16(Wide v, int64_t low, int64_t high) {
  const __m256i l = _mm256_set1_epi64x(low), h = _mm256_set1_epi64x(high);
  const __m256i joined = Join({Clamp64(v.even, l, h), Clamp64(v.odd, l, h)});
  return _mm_packs_epi32(_mm256_castsi256_si128(joined), _mm256_extracti128_si256(joined, 1));
}

template <typename T>
inline void StoreBytes(T *p, size_t n, __m128i v) {
  if (n >= 8) {
    if (sizeof(T) == 2) {
      _mm_storeu_si128(reinterpret_cast<__m128i *>(p), v);
    } else {
      _mm_storel_epi64(reinterpret_cast<__m128i *>(p), v);
    }
    return;
  }
  alignas(16) T values[16 / sizeof(T)];
  _mm_store_si128(reinterpret_cast<__m128i *>(values), v);
  __builtin_memcpy(p, values, n * sizeof(T));
}

/// Output types: clamp and store min(n, 8) values, from 64-bit lanes or from 32-bit lanes in order.
template <typename T, int kLow, int kHigh>
struct StoreWords {
  using Type = T;
  static void Store(Type *p, size_t n, Wide v) { Pack(p, n, NarrowS16(v, kLow, kHigh)); }
  static void Store(Type *p, size_t n, __m256i v) {
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    Pack(p, n, _mm_min_epi16(_mm_max_epi16(words, _mm_set1_epi16(kLow)), _mm_set1_epi16(kHigh)));
  }
  static void Pack(Type *p, size_t n, __m128i words) {
    StoreBytes(p, n, sizeof(T) == 1 ? _mm_packs_epi16(words, words) : words);
  }
};
using StoreS8 = StoreWords<int8_t, -127, 127>;
using StoreS15 = StoreWords<int16_t, -16320, 16319>;
using StoreS16 = StoreWords<int16_t, -32767, 32767>;

/// What is known of rounded values: |v| <= 2^30, or nothing.
enum class Range { k31Bits, k64Bits };

/// The last steps of an operator: add the zero point, saturate, store min(n, 8) values.
template <typename Output, Range kRange>
inline void Finish(typename Output::Type *p, size_t n, Wide v, int32_t zero_point) {
  if constexpr (kRange == Range::k31Bits) {
    Output::Store(p, n, _mm256_add_epi32(Join(v), _mm256_set1_epi32(zero_point)));
  } else {
    Output::Store(p, n, AddAll(v, _mm256_set1_epi64x(zero_point)));
  }
}

}  // namespace
}  // namespace acorn
