#include "kernels/scan/kernel.h"
#include "kernels/simd_avx512.h"

namespace acorn::scan {
namespace {

// RoundShift(a * factor, kShift) in 32-bit lanes, of results that fit. factor: in the low half of each 64-bit lane
template <int kShift>
__m512i Scaled(__m512i a, __m512i factor) {
  const Wide product = AddAll(MultiplyAll(a, factor), _mm512_set1_epi64(int64_t{1} << (kShift - 1)));
  return _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(product.even, kShift), _mm512_slli_epi64(product.odd, 32 - kShift));
}

// One token of one channel. Returns the sum of c * state.
int64_t Advance(int32_t *state, const int16_t *b, const int16_t *c, size_t n, int32_t decay, int32_t input) {
  const __m512i a = _mm512_set1_epi64(decay), w = _mm512_set1_epi64(input);
  const __m512i limit = _mm512_set1_epi32((1 << 30) - 1), least = _mm512_set1_epi32(1 - (1 << 30));
  __m512i sum = _mm512_setzero_si512();
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = Mask16(n - i);
    const __m512i kept = Scaled<30>(_mm512_maskz_loadu_epi32(mask, state + i), a);
    const __m512i added = Scaled<15>(LoadS16(b + i, mask), w);
    const __m512i next = _mm512_min_epi32(_mm512_max_epi32(_mm512_add_epi32(kept, added), least), limit);
    _mm512_mask_storeu_epi32(state + i, mask, next);
    const Wide products = Multiply(LoadS16(c + i, mask), next);
    sum = _mm512_add_epi64(sum, _mm512_add_epi64(products.even, products.odd));
  }
  return _mm512_reduce_add_epi64(sum);
}

}  // namespace

void RunAvx512Vnni(const Args &args) {
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
