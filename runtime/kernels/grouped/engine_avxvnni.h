// AVX-VNNI's operations for engine256.h.
#pragma once

#include "kernels/grouped/engine256.h"

namespace acorn::grouped {
namespace {

struct AvxVnniOps {
  static ACORN_INLINE __m128i Start(__m128i pairs) { return _mm_madd_epi16(pairs, _mm_set1_epi16(1)); }
  static ACORN_INLINE __m256i Dot(__m256i dot, __m256i w, __m256i x) { return _mm256_dpbusd_avx_epi32(dot, w, x); }
  static ACORN_INLINE __m256i LoadMultipliers(const uint8_t *from) { return MultipliersAsS32(from); }
  // The dot fits in 16 bits; the upper half of a multiplier is 0.
  static ACORN_INLINE __m256i Scale(__m256i acc, __m256i dot, __m256i multipliers) {
    return _mm256_dpwssd_avx_epi32(acc, dot, multipliers);
  }
};

}  // namespace
}  // namespace acorn::grouped
