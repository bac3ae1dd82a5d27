#include "kernels/glu/kernel.h"
#include "kernels/simd_avx512.h"

namespace acorn::glu {
namespace {

template <Range kRange>
void Rows(const Args &args) {
  const Rounder round_index(args.index_shift), round(args.shift);
  const __m512i index_factor = _mm512_set1_epi64(args.index_multiplier);
  const int32_t saturating = SaturatingGate(args.index_multiplier, args.index_shift);
  const __m512i least = _mm512_set1_epi32(-saturating), largest = _mm512_set1_epi32(saturating);
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *gate = args.gate + row * args.gate_stride;
    const int16_t *up = args.up + row * args.up_stride;
    int16_t *y = args.y + row * args.y_stride;
    for (size_t i = 0; i < args.n; i += 16) {
      const __mmask16 mask = Mask16(args.n - i);
      const __m512i g = LoadS16(gate + i, mask);
      const __m512i clamped = _mm512_min_epi32(_mm512_max_epi32(g, least), largest);
      // Sixteen table positions in [0, 65535].
      __m512i w = Join(round_index(MultiplyAll(clamped, index_factor)));
      w = _mm512_min_epi32(_mm512_max_epi32(w, _mm512_set1_epi32(-32768)), _mm512_set1_epi32(32767));
      w = _mm512_add_epi32(w, _mm512_set1_epi32(32768));
      const __m512i f = _mm512_and_si512(w, _mm512_set1_epi32(127));
      // 128 - f in the low half, f in the high half.
      const __m512i weights = _mm512_add_epi32(_mm512_sub_epi32(_mm512_set1_epi32(128), f), _mm512_slli_epi32(f, 16));
      // One 32-bit load brings table[j] and table[j + 1]; table[j] * (128 - f) + table[j + 1] * f is 128 t before rounding.
      const __m512i entries = _mm512_i32gather_epi32(_mm512_srli_epi32(w, 7), args.table, 2);
      const __m512i sum = _mm512_madd_epi16(entries, weights);
      const __m512i t = _mm512_srai_epi32(_mm512_add_epi32(sum, _mm512_set1_epi32(64)), 7);
      const __m512i gt = _mm512_madd_epi16(g, _mm512_and_si512(t, _mm512_set1_epi32(0xffff)));  // t's upper half is 0
      const __m512i activated = _mm512_srai_epi32(_mm512_add_epi32(gt, _mm512_set1_epi32(128)), 8);
      Finish<StoreS16, kRange>(y + i, mask, round(Multiply(activated, LoadS16(up + i, mask))), 0);
    }
  }
}

}  // namespace

void RunAvx512Vnni(const Args &args) { args.shift >= kShiftTo31Bits ? Rows<Range::k31Bits>(args) : Rows<Range::k64Bits>(args); }

}  // namespace acorn::glu
