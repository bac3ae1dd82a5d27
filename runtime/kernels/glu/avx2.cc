#include "kernels/glu/kernel.h"
#include "kernels/simd_avx2.h"

namespace acorn::glu {

void RunAvx2(const Args &args) {
  const Rounder round_index(args.index_shift), round(args.shift);
  const __m256i index_factor = _mm256_set1_epi64x(args.index_multiplier);
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *gate = args.gate + row * args.gate_stride;
    const int16_t *up = args.up + row * args.up_stride;
    int16_t *y = args.y + row * args.y_stride;
    for (size_t i = 0; i < args.n; i += 8) {
      const size_t left = args.n - i;
      const __m128i g = LoadRaw(gate + i, left);
      const __m128i w = _mm_xor_si128(
          NarrowS16(round_index(MultiplyAll(_mm256_cvtepi16_epi32(g), index_factor)), -32768, 32767), _mm_set1_epi16(-32768));
      const __m256i index = _mm256_cvtepu16_epi32(_mm_srli_epi16(w, 7));
      const __m128i f = _mm_and_si128(w, _mm_set1_epi16(127));
      // One 32-bit load brings table[j] and table[j + 1]; table[j] * (128 - f) + table[j + 1] * f is 128 t before rounding.
      const __m256i entries = _mm256_i32gather_epi32(reinterpret_cast<const int *>(args.table), index, 2);
      const __m256i sum = _mm256_madd_epi16(entries, Pair(_mm_sub_epi16(_mm_set1_epi16(128), f), f));
      const __m256i t = _mm256_srai_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(64)), 7);
      const __m256i gt = _mm256_madd_epi16(_mm256_cvtepu16_epi32(g), t);  // the upper half of g's lane is 0
      const __m256i activated = _mm256_srai_epi32(_mm256_add_epi32(gt, _mm256_set1_epi32(128)), 8);
      StoreS16::Store(y + i, left, round(Multiply(activated, LoadS16(up + i, left))));
    }
  }
}

}  // namespace acorn::glu
