// Helpers of the files that are compiled for AVX-512 (F, BW, DQ, VL): sixteen 32-bit values become two vectors of 64-bit
// products, are rounded as RoundShift does, and become sixteen 8-bit or 16-bit values again. All in an anonymous namespace,
// so that no other file can end up with this instruction set's copy.
#pragma once

// GCC 12 takes the "any value" operand of its own intrinsics for a mistake (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif

#include <cstddef>
#include <cstdint>

namespace acorn {
namespace {

/// The 64-bit companions of sixteen 32-bit lanes: those of even lanes, those of odd lanes.
struct Wide {
  __m512i even, odd;
};

/// Rounding shift by one amount for all lanes.
struct Rounder {
  explicit Rounder(int shift) : half(_mm512_set1_epi64(int64_t{1} << (shift - 1))), count(_mm_cvtsi32_si128(shift)) {}
  __m512i operator()(__m512i v) const { return _mm512_sra_epi64(_mm512_add_epi64(v, half), count); }
  Wide operator()(Wide v) const { return {(*this)(v.even), (*this)(v.odd)}; }
  __m512i half;
  __m128i count;
};

/// Mask of the first min(n, 16) lanes.
inline __mmask16 Mask16(size_t n) { return static_cast<__mmask16>(n >= 16 ? 0xffff : (1u << n) - 1); }

inline __m512i LoadS16(const int16_t *p, __mmask16 mask) { return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, p)); }

/// Sixteen low halves and sixteen high halves of 32-bit lanes, from 16-bit values.
inline __m512i Pair(__m256i low, __m256i high) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}

inline Wide Multiply(__m512i a, __m512i b) {
  return {_mm512_mul_epi32(a, b), _mm512_mul_epi32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32))};
}

/// `factor` holds the multiplier in the low half of each 64-bit lane.
inline Wide MultiplyAll(__m512i a, __m512i factor) {
  return {_mm512_mul_epi32(a, factor), _mm512_mul_epi32(_mm512_srli_epi64(a, 32), factor)};
}

inline Wide Add(Wide a, Wide b) { return {_mm512_add_epi64(a.even, b.even), _mm512_add_epi64(a.odd, b.odd)}; }
inline Wide AddAll(Wide a, __m512i b) { return {_mm512_add_epi64(a.even, b), _mm512_add_epi64(a.odd, b)}; }

/// To [-32768, 32767], lanes in order.
inline __m256i NarrowS16(Wide v) {
  const __m128i even = _mm512_cvtsepi64_epi16(v.even), odd = _mm512_cvtsepi64_epi16(v.odd);
  return _mm256_set_m128i(_mm_unpackhi_epi16(even, odd), _mm_unpacklo_epi16(even, odd));
}

/// Sixteen 32-bit lanes in order, of values that fit.
inline __m512i Join(Wide v) {
  const __m512i order = _mm512_set_epi32(30, 14, 28, 12, 26, 10, 24, 8, 22, 6, 20, 4, 18, 2, 16, 0);
  return _mm512_permutex2var_epi32(v.even, order, v.odd);
}

/// Output types: saturate and store the lanes of the mask.
struct StoreS8 {
  using Type = int8_t;
  static void Store(Type *p, __mmask16 mask, __m128i v) { _mm_mask_storeu_epi8(p, mask, _mm_max_epi8(v, _mm_set1_epi8(-127))); }
  static void Store(Type *p, __mmask16 mask, __m512i v) { Store(p, mask, _mm512_cvtsepi32_epi8(v)); }
  static void Store(Type *p, __mmask16 mask, Wide v) {
    Store(p, mask, _mm_unpacklo_epi8(_mm512_cvtsepi64_epi8(v.even), _mm512_cvtsepi64_epi8(v.odd)));
  }
};
struct StoreS15 {
  using Type = int16_t;
  static void Store(Type *p, __mmask16 mask, __m256i v) {
    const __m256i low = _mm256_max_epi16(v, _mm256_set1_epi16(-16320));
    _mm256_mask_storeu_epi16(p, mask, _mm256_min_epi16(low, _mm256_set1_epi16(16319)));
  }
  static void Store(Type *p, __mmask16 mask, __m512i v) { Store(p, mask, _mm512_cvtsepi32_epi16(v)); }
  static void Store(Type *p, __mmask16 mask, Wide v) { Store(p, mask, NarrowS16(v)); }
};
struct StoreS16 {
  using Type = int16_t;
  static void Store(Type *p, __mmask16 mask, __m256i v) {
    _mm256_mask_storeu_epi16(p, mask, _mm256_max_epi16(v, _mm256_set1_epi16(-32767)));
  }
  static void Store(Type *p, __mmask16 mask, __m512i v) { Store(p, mask, _mm512_cvtsepi32_epi16(v)); }
  static void Store(Type *p, __mmask16 mask, Wide v) { Store(p, mask, NarrowS16(v)); }
};

/// What is known of rounded values: |v| <= 2^30, or nothing.
enum class Range { k31Bits, k64Bits };

/// The last steps of an operator: add the zero point, saturate, store the lanes of the mask.
template <typename Output, Range kRange>
inline void Finish(typename Output::Type *p, __mmask16 mask, Wide v, int32_t zero_point) {
  if constexpr (kRange == Range::k31Bits) {
    Output::Store(p, mask, _mm512_add_epi32(Join(v), _mm512_set1_epi32(zero_point)));
  } else {
    Output::Store(p, mask, AddAll(v, _mm512_set1_epi64(zero_point)));
  }
}

}  // namespace
}  // namespace acorn
