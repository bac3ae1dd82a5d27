#include "kernels/rmsnorm/kernel.h"
#include "kernels/simd_avx512.h"

namespace acorn::rmsnorm {
namespace {

uint64_t SumOfSquares(const int16_t *x, size_t depth) {
  const __m512i low_half = _mm512_set1_epi64(0xffffffff);
  __m512i sum = _mm512_setzero_si512();
  for (size_t i = 0; i < depth; i += 32) {
    const __mmask32 mask = depth - i >= 32 ? 0xffffffffu : (1u << (depth - i)) - 1;
    const __m512i v = _mm512_maskz_loadu_epi16(mask, x + i);
    const __m512i squares = _mm512_madd_epi16(v, v);  // u32: two squares of 2^30 each
    sum = _mm512_add_epi64(sum, _mm512_and_si512(squares, low_half));
    sum = _mm512_add_epi64(sum, _mm512_srli_epi64(squares, 32));
  }
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(sum));
}

template <typename Output, Range kRange>
void Normalise(typename Output::Type *y, const int16_t *x, const Args &args, const Reciprocal &reciprocal) {
  // Shift 0 comes with multiplier 0: any rounding shift of 0 is 0.
  const Rounder round(reciprocal.shift == 0 ? 1 : reciprocal.shift);
  const __m512i factor = _mm512_set1_epi64(reciprocal.multiplier);
  const size_t depth = args.depth;
  for (size_t i = 0; i < depth; i += 16) {
    const __mmask16 mask = Mask16(depth - i);
    // The upper half of gamma's lane is 0, so the pair sum is one product.
    const __m512i gamma = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, args.gamma + i));
    const __m512i scaled = _mm512_madd_epi16(gamma, LoadS16(x + i, mask));
    Finish<Output, kRange>(y + i, mask, round(MultiplyAll(scaled, factor)), args.zero_point);
  }
}

template <typename Output>
void Rows(const Args &args) {
  for (size_t row = 0; row < args.m; ++row) {
    for (size_t group = 0; group < args.groups; ++group) {
      const int16_t *x = args.x + row * args.x_stride + group * args.depth;
      auto *y = static_cast<typename Output::Type *>(args.y) + row * args.y_stride + group * args.depth;
      const Reciprocal reciprocal = ReciprocalRoot(SumOfSquares(x, args.depth) + args.eps_term, args);
      if (reciprocal.shift >= kShiftTo31Bits) {
        Normalise<Output, Range::k31Bits>(y, x, args, reciprocal);
      } else {
        Normalise<Output, Range::k64Bits>(y, x, args, reciprocal);
      }
    }
  }
}

}  // namespace

void RunS8Avx512Vnni(const Args &args) { Rows<StoreS8>(args); }
void RunS16Avx512Vnni(const Args &args) { Rows<StoreS16>(args); }

}  // namespace acorn::rmsnorm
