#include "kernels/layernorm/kernel.h"
#include "kernels/simd_avx512.h"

namespace acorn::layernorm {
namespace {

Normaliser Measure(const int16_t *x, const Args &args) {
  const __m512i low_half = _mm512_set1_epi64(0xffffffff), ones = _mm512_set1_epi16(1);
  __m512i sum = _mm512_setzero_si512(), squares = sum;
  for (size_t i = 0; i < args.depth; i += 32) {
    const __mmask32 mask = args.depth - i >= 32 ? 0xffffffffu : (1u << (args.depth - i)) - 1;
    const __m512i v = _mm512_maskz_loadu_epi16(mask, x + i);
    const __m512i pairs = _mm512_madd_epi16(v, v);  // u32: two squares of 2^30 each
    squares = _mm512_add_epi64(squares, _mm512_and_si512(pairs, low_half));
    squares = _mm512_add_epi64(squares, _mm512_srli_epi64(pairs, 32));
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(v, ones));
  }
  return NormaliserOf(_mm512_reduce_add_epi32(sum), static_cast<uint64_t>(_mm512_reduce_add_epi64(squares)), args);
}

template <typename Output, Range kRange>
void Normalise(typename Output::Type *y, const int16_t *x, const int16_t *gamma, const int32_t *bias, const Args &args,
               const Normaliser &normaliser) {
  const Rounder round(normaliser.shift), finish(args.shift);
  const __m512i depth = _mm512_set1_epi32(static_cast<int32_t>(args.depth)), sum = _mm512_set1_epi32(normaliser.sum);
  const __m512i factor = _mm512_set1_epi64(normaliser.multiplier), bias_unit = _mm512_set1_epi64(1 << kBiasShift);
  for (size_t i = 0; i < args.depth; i += 16) {
    const __mmask16 mask = Mask16(args.depth - i);
    // The upper half of the depth's lane is 0, so the pair sum is one product.
    const __m512i scaled = _mm512_madd_epi16(LoadS16(x + i, mask), depth);
    const __m512i z = Join(round(MultiplyAll(_mm512_sub_epi32(scaled, sum), factor)));
    const Wide sloped =
        Add(Multiply(z, LoadS16(gamma + i, mask)), MultiplyAll(_mm512_maskz_loadu_epi32(mask, bias + i), bias_unit));
    Finish<Output, kRange>(y + i, mask, finish(sloped), args.zero_point);
  }
}

template <typename Output>
void Rows(const Args &args) {
  for (size_t row = 0; row < args.m; ++row) {
    for (size_t group = 0; group < args.groups; ++group) {
      const size_t first = group * args.depth;
      const int16_t *x = args.x + row * args.x_stride + first;
      auto *y = static_cast<typename Output::Type *>(args.y) + row * args.y_stride + first;
      const Normaliser normaliser = Measure(x, args);
      if (args.shift >= kShiftTo31Bits) {
        Normalise<Output, Range::k31Bits>(y, x, args.gamma + first, args.bias + first, args, normaliser);
      } else {
        Normalise<Output, Range::k64Bits>(y, x, args.gamma + first, args.bias + first, args, normaliser);
      }
    }
  }
}

}  // namespace

void RunS8Avx512Vnni(const Args &args) { Rows<StoreS8>(args); }
void RunS16Avx512Vnni(const Args &args) { Rows<StoreS16>(args); }

}  // namespace acorn::layernorm
