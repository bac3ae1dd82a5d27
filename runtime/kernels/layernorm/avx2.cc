#include "kernels/layernorm/kernel.h"
#include "kernels/simd_avx2.h"

namespace acorn::layernorm {
namespace {

Normaliser Measure(const int16_t *x, const Args &args) {
  const __m256i low_half = _mm256_set1_epi64x(0xffffffff), ones = _mm256_set1_epi16(1);
  __m256i sum = _mm256_setzero_si256(), squares = sum;
  for (size_t i = 0; i < args.depth; i += 16) {
    const size_t left = args.depth - i;
    const __m128i first = LoadRaw(x + i, left);
    const __m256i v = _mm256_set_m128i(left > 8 ? LoadRaw(x + i + 8, left - 8) : _mm_setzero_si128(), first);
    const __m256i pairs = _mm256_madd_epi16(v, v);  // u32: two squares of 2^30 each
    squares = _mm256_add_epi64(squares, _mm256_and_si256(pairs, low_half));
    squares = _mm256_add_epi64(squares, _mm256_srli_epi64(pairs, 32));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(v, ones));
  }
  const __m128i wide = _mm_add_epi64(_mm256_castsi256_si128(squares), _mm256_extracti128_si256(squares, 1));
  __m128i total = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0x4e));
  total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0xb1));
  return NormaliserOf(_mm_cvtsi128_si32(total),
                      static_cast<uint64_t>(_mm_cvtsi128_si64(wide)) + static_cast<uint64_t>(_mm_extract_epi64(wide, 1)), args);
}

template <typename Output, Range kRange>
void Normalise(typename Output::Type *y, const int16_t *x, const int16_t *gamma, const int32_t *bias, const Args &args,
               const Normaliser &normaliser) {
  const Rounder round(normaliser.shift), finish(args.shift);
  const __m256i depth = _mm256_set1_epi32(static_cast<int32_t>(args.depth)), sum = _mm256_set1_epi32(normaliser.sum);
  const __m256i factor = _mm256_set1_epi64x(normaliser.multiplier), bias_unit = _mm256_set1_epi64x(1 << kBiasShift);
  for (size_t i = 0; i < args.depth; i += 8) {
    const size_t left = args.depth - i;
    // The upper half of the depth's lane is 0, so the pair sum is one product.
    const __m256i scaled = _mm256_madd_epi16(LoadS16(x + i, left), depth);
    const __m256i z = Join(round(MultiplyAll(_mm256_sub_epi32(scaled, sum), factor)));
    const Wide sloped = Add(Multiply(z, LoadS16(gamma + i, left)), MultiplyAll(LoadS32(bias + i, left), bias_unit));
    Finish<Output, kRange>(y + i, left, finish(sloped), args.zero_point);
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

void RunS8Avx2(const Args &args) { Rows<StoreS8>(args); }
void RunS16Avx2(const Args &args) { Rows<StoreS16>(args); }

}  // namespace acorn::layernorm
