#include "kernels/glu/kernel.h"
#include "kernels/simd_avx2.h"

namespace acorn::glu {
namespace {

template <Range kRange>
void Rows(const Args &args) {
  const Rounder round_index(args.index_shift), round(args.shift);
  const __m256i index_factor = _mm256_set1_epi64x(args.index_multiplier);
  const int32_t saturating = SaturatingGate(args.index_multiplier, args.index_shift);
  const __m256i least = _mm256_set1_epi32(-saturating), largest = _mm256_set1_epi32(saturating);
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *gate = args.gate + row * args.gate_stride;
    const int16_t *up = args.up + row * args.up_stride;
    int16_t *y = args.y + row * args.y_stride;
    for (size_t i = 0; i < args.n; i += 8) {
      const size_t left = args.n - i;
      const __m256i g = LoadS16(gate + i, left);
      const __m256i clamped = _mm256_min_epi32(_mm256_max_epi32(g, least), largest);
      // Eight table positions in [0, 65535].
      __m256i w = Join(round_index(MultiplyAll(clamped, index_factor)));
      w = _mm256_min_epi32(_mm256_max_epi32(w, _mm256_set1_epi32(-32768)), _mm256_set1_epi32(32767));
      w = _mm256_add_epi32(w, _mm256_set1_epi32(32768));
      const __m256i f = _mm256_and_si256(w, _mm256_set1_epi32(127));
      // 128 - f in the low half, f in the high half.
      const __m256i weights = _mm256_add_epi32(_mm256_sub_epi32(_mm256_set1_epi32(128), f), _mm256_slli_epi32(f, 16));
      // One 32-bit load brings table[j] and table[j + 1]; table[j] * (128 - f) + table[j + 1] * f is 128 t before rounding.
      const __m256i entries = _mm256_i32gather_epi32(reinterpret_cast<const int *>(args.table), _mm256_srli_epi32(w, 7), 2);
      const __m256i sum = _mm256_madd_epi16(entries, weights);
      const __m256i t = _mm256_srai_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(64)), 7);
      const __m256i gt = _mm256_madd_epi16(g, _mm256_and_si256(t, _mm256_set1_epi32(0xffff)));  // t's upper half is 0
      const __m256i activated = _mm256_srai_epi32(_mm256_add_epi32(gt, _mm256_set1_epi32(128)), 8);
      Finish<StoreS16, kRange>(y + i, left, round(Multiply(activated, LoadS16(up + i, left))), 0);
    }
  }
}

}  // namespace

void RunAvx2(const Args &args) { args.shift >= kShiftTo31Bits ? Rows<Range::k31Bits>(args) : Rows<Range::k64Bits>(args); }

}  // namespace acorn::glu
