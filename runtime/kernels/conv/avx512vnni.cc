#include "kernels/conv/kernel.h"
#include "kernels/simd_avx512.h"

namespace acorn::conv {
namespace {

// Sixteen columns of one row.  rows: what the taps see, the oldest first
void Columns(const Args &args, const int16_t *const *rows, size_t c, int16_t *y, const Rounder &round, const Rounder &round_index) {
  const __mmask16 mask = Mask16(args.n - c);
  __m512i acc = _mm512_maskz_loadu_epi32(mask, args.bias + c);
  for (size_t j = 0; j < args.taps; ++j) {
    const __m512i w = LoadS16(args.weights + j * args.parameter_stride + c, mask);
    acc = _mm512_add_epi32(acc, _mm512_mullo_epi32(w, LoadS16(rows[j] + c, mask)));
  }
  const __m256i narrow = NarrowS16(round(Multiply(acc, _mm512_maskz_loadu_epi32(mask, args.multiplier + c))));
  const __m512i v = _mm512_cvtepi16_epi32(_mm256_max_epi16(narrow, _mm256_set1_epi16(-32767)));
  const __m256i index = NarrowS16(round_index(Multiply(v, _mm512_maskz_loadu_epi32(mask, args.index_multiplier + c))));
  const __m512i w = _mm512_add_epi32(_mm512_cvtepi16_epi32(index), _mm512_set1_epi32(32768));
  const __m512i f = _mm512_and_si512(w, _mm512_set1_epi32(127));
  // As glu: one load brings two neighbours, 128 - f in the low half, f in the high half.
  const __m512i weights = _mm512_add_epi32(_mm512_sub_epi32(_mm512_set1_epi32(128), f), _mm512_slli_epi32(f, 16));
  const __m512i entries = _mm512_i32gather_epi32(_mm512_srli_epi32(w, 7), args.table, 2);
  const __m512i sum = _mm512_madd_epi16(entries, weights);
  const __m512i t = _mm512_srai_epi32(_mm512_add_epi32(sum, _mm512_set1_epi32(64)), 7);
  const __m512i product = _mm512_mullo_epi32(v, t);
  StoreS16::Store(y + c, mask, _mm512_srai_epi32(_mm512_add_epi32(product, _mm512_set1_epi32(1 << 14)), 15));
}

}  // namespace

void RunAvx512Vnni(const Args &args) {
  const Rounder round(args.shift), round_index(args.index_shift);
  for (size_t r = 0; r < args.m; ++r) {
    const int16_t *rows[kMaxTaps];
    for (size_t j = 0; j < args.taps; ++j) rows[j] = RowBefore(args, r, args.taps - 1 - j);
    for (size_t c = 0; c < args.n; c += 16) Columns(args, rows, c, args.y + r * args.y_stride, round, round_index);
  }
  KeepHistory(args);
}

}  // namespace acorn::conv
