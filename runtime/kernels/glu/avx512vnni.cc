#include "kernels/glu/kernel.h"
#include "kernels/simd_avx512.h"

namespace acorn::glu {

void RunAvx512Vnni(const Args &args) {
  const Rounder round_index(args.index_shift), round(args.shift);
  const __m512i index_factor = _mm512_set1_epi64(args.index_multiplier);
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *gate = args.gate + row * args.gate_stride;
    const int16_t *up = args.up + row * args.up_stride;
    int16_t *y = args.y + row * args.y_stride;
    for (size_t i = 0; i < args.n; i += 16) {
      const __mmask16 mask = Mask16(args.n - i);
      const __m256i g = _mm256_maskz_loadu_epi16(mask, gate + i);
      const __m256i w = _mm256_xor_si256(NarrowS16(round_index(MultiplyAll(_mm512_cvtepi16_epi32(g), index_factor))),
                                         _mm256_set1_epi16(-32768));
      const __m512i index = _mm512_cvtepu16_epi32(_mm256_srli_epi16(w, 7));
      const __m256i f = _mm256_and_si256(w, _mm256_set1_epi16(127));
      // One 32-bit load brings table[j] and table[j + 1]; table[j] * (128 - f) + table[j + 1] * f is 128 t before rounding.
      const __m512i entries = _mm512_i32gather_epi32(index, args.table, 2);
      const __m512i sum = _mm512_madd_epi16(entries, Pair(_mm256_sub_epi16(_mm256_set1_epi16(128), f), f));
      const __m512i t = _mm512_srai_epi32(_mm512_add_epi32(sum, _mm512_set1_epi32(64)), 7);
      const __m512i gt = _mm512_madd_epi16(_mm512_cvtepu16_epi32(g), t);  // the upper half of g's lane is 0
      const __m512i activated = _mm512_srai_epi32(_mm512_add_epi32(gt, _mm512_set1_epi32(128)), 8);
      StoreS16::Store(y + i, mask, round(Multiply(activated, LoadS16(up + i, mask))));
    }
  }
}

}  // namespace acorn::glu
