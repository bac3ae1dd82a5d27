// AVX2's operations for engine256.h.
#pragma once

#include "kernels/grouped/engine256.h"

namespace acorn::grouped {
namespace {

// A group's dot is two 16-bit sums a channel, of 16 products each: at most 16 * 127 * 8 < 2^15; on the way there they may wrap.
struct Avx2Ops {
  static ACORN_INLINE __m128i Start(__m128i pairs) { return pairs; }
  static ACORN_INLINE __m256i Dot(__m256i dot, __m256i w, __m256i x) {
    __m256i sum = _mm256_add_epi16(dot, _mm256_maddubs_epi16(w, x));  // at most 2 * 15 * 127: it does not saturate
    // Keeps the compiler from adding all products of a group as a tree, which spills them.
    __asm__("" : "+x"(sum));
    return sum;
  }
  static ACORN_INLINE __m256i LoadMultipliers(const uint8_t *from) {
    const __m256i low = MultipliersAsS32(from);
    return _mm256_or_si256(low, _mm256_slli_epi32(low, 16));
  }
  static ACORN_INLINE __m256i Scale(__m256i acc, __m256i dot, __m256i multipliers) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(dot, multipliers));
  }
};

}  // namespace
}  // namespace acorn::grouped
