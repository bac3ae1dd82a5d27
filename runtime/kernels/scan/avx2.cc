#include "kernels/scan/kernel.h"
#include "kernels/simd_avx2.h"

namespace acorn::scan {
namespace {

// RoundShift(a * factor, kShift) in 32-bit lanes, of results that fit. factor: in the low half of each 64-bit lane
template <int kShift>
__m256i Scaled(__m256i a, __m256i factor) {
  const Wide product = AddAll(MultiplyAll(a, factor), _mm256_set1_epi64x(int64_t{1} << (kShift - 1)));
  return _mm256_blend_epi32(_mm256_srli_epi64(product.even, kShift), _mm256_slli_epi64(product.odd, 32 - kShift), 0xaa);
}

void StoreS32(int32_t *p, size_t n, __m256i v) {
  if (n >= 8) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), v);
    return;
  }
  alignas(32) int32_t values[8];
  _mm256_store_si256(reinterpret_cast<__m256i *>(values), v);
  __builtin_memcpy(p, values, n * sizeof(int32_t));
}

// One token of one channel. Returns the sum of c * state.
int64_t Advance(int32_t *state, const int16_t *b, const int16_t *c, size_t n, int32_t decay, int32_t input) {
  const __m256i a = _mm256_set1_epi64x(decay), w = _mm256_set1_epi64x(input);
  const __m256i limit = _mm256_set1_epi32((1 << 30) - 1), least = _mm256_set1_epi32(1 - (1 << 30));
  __m256i sum = _mm256_setzero_si256();
  for (size_t i = 0; i < n; i += 8) {
    const size_t left = n - i;
    const __m256i kept = Scaled<30>(LoadS32(state + i, left), a), added = Scaled<15>(LoadS16(b + i, left), w);
    const __m256i next = _mm256_min_epi32(_mm256_max_epi32(_mm256_add_epi32(kept, added), least), limit);
    StoreS32(state + i, left, next);
    const Wide products = Multiply(LoadS16(c + i, left), next);
    sum = _mm256_add_epi64(sum, _mm256_add_epi64(products.even, products.odd));
  }
  const __m128i halves = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  return _mm_cvtsi128_si64(halves) + _mm_extract_epi64(halves, 1);
}

}  // namespace

void RunAvx2(const Args &args) {
  for (size_t r = 0; r < args.m; ++r) {
    const int16_t *x = args.x + r * args.x_stride, *b = args.b + r * args.b_stride, *c = args.c + r * args.c_stride;
    const Step step = StepOf(args.head, args.dt[r * args.dt_stride]);
    ForChannels(args, [&](size_t p, size_t at) {
      const int64_t sum = Advance(args.state + p * args.state_stride, b, c, args.n, step.decay, InputOf(step, x[at]));
      args.y[r * args.y_stride + at] = OutputOf(args, sum, x[at]);
    });
  }
}

}  // namespace acorn::scan
