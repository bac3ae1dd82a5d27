#include "kernels/conv/kernel.h"
#include "kernels/simd_avx2.h"

namespace acorn::conv {
namespace {

// Eight columns of one row.  rows: what the taps see, the oldest first
void Columns(const Args &args, const int16_t *const *rows, size_t c, int16_t *y, const Rounder &round, const Rounder &round_index) {
  const size_t left = args.n - c;
  __m256i acc = LoadS32(args.bias + c, left);
  for (size_t j = 0; j < args.taps; ++j) {
    const __m256i w = LoadS16(args.weights + j * args.parameter_stride + c, left);
    acc = _mm256_add_epi32(acc, _mm256_mullo_epi32(w, LoadS16(rows[j] + c, left)));
  }
  const Wide scaled = round(Multiply(acc, LoadS32(args.multiplier + c, left)));
  const __m256i v = _mm256_cvtepi16_epi32(NarrowS16(scaled, -32767, 32767));
  const Wide index = round_index(Multiply(v, LoadS32(args.index_multiplier + c, left)));
  const __m256i w = _mm256_add_epi32(_mm256_cvtepi16_epi32(NarrowS16(index, -32768, 32767)), _mm256_set1_epi32(32768));
  const __m256i f = _mm256_and_si256(w, _mm256_set1_epi32(127));
  // As glu: one load brings two neighbours, 128 - f in the low half, f in the high half.
  const __m256i weights = _mm256_add_epi32(_mm256_sub_epi32(_mm256_set1_epi32(128), f), _mm256_slli_epi32(f, 16));
  const __m256i entries = _mm256_i32gather_epi32(reinterpret_cast<const int *>(args.table), _mm256_srli_epi32(w, 7), 2);
  const __m256i sum = _mm256_madd_epi16(entries, weights);
  const __m256i t = _mm256_srai_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(64)), 7);
  const __m256i product = _mm256_mullo_epi32(v, t);
  StoreS16::Store(y + c, left, _mm256_srai_epi32(_mm256_add_epi32(product, _mm256_set1_epi32(1 << 14)), 15));
}

}  // namespace

void RunAvx2(const Args &args) {
  const Rounder round(args.shift), round_index(args.index_shift);
  for (size_t r = 0; r < args.m; ++r) {
    const int16_t *rows[kMaxTaps];
    for (size_t j = 0; j < args.taps; ++j) rows[j] = RowBefore(args, r, args.taps - 1 - j);
    for (size_t c = 0; c < args.n; c += 8) Columns(args, rows, c, args.y + r * args.y_stride, round, round_index);
  }
  KeepHistory(args);
}

}  // namespace acorn::conv
