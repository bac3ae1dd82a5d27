#include "kernels/rmsnorm/kernel.h"
#include "kernels/simd_avx2.h"

namespace acorn::rmsnorm {
namespace {

uint64_t SumOfSquares(const int16_t *x, size_t depth) {
  const __m256i low_half = _mm256_set1_epi64x(0xffffffff);
  __m256i sum = _mm256_setzero_si256();
  for (size_t i = 0; i < depth; i += 16) {
    __m256i v;
    if (depth - i >= 16) {
      v = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(x + i));
    } else {
      const __m128i first = LoadRaw(x + i, depth - i);
      v = _mm256_set_m128i(depth - i > 8 ? LoadRaw(x + i + 8, depth - i - 8) : _mm_setzero_si128(), first);
    }
    const __m256i squares = _mm256_madd_epi16(v, v);  // u32: two squares of 2^30 each
    sum = _mm256_add_epi64(sum, _mm256_and_si256(squares, low_half));
    sum = _mm256_add_epi64(sum, _mm256_srli_epi64(squares, 32));
  }
  const __m128i halves = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(halves)) + static_cast<uint64_t>(_mm_extract_epi64(halves, 1));
}

template <typename Output, Range kRange>
void Normalise(typename Output::Type *y, const int16_t *x, const Args &args, const Reciprocal &reciprocal) {
  // Shift 0 comes with multiplier 0: any rounding shift of 0 is 0.
  const Rounder round(reciprocal.shift == 0 ? 1 : reciprocal.shift);
  const __m256i factor = _mm256_set1_epi64x(reciprocal.multiplier);
  const size_t depth = args.depth;
  for (size_t i = 0; i < depth; i += 8) {
    const size_t left = depth - i;
    // The upper half of gamma's lane is 0, so the pair sum is one product.
    const __m256i gamma = _mm256_cvtepu16_epi32(LoadRaw(args.gamma + i, left));
    const __m256i scaled = _mm256_madd_epi16(gamma, LoadS16(x + i, left));
    Finish<Output, kRange>(y + i, left, round(MultiplyAll(scaled, factor)), args.zero_point);
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

void RunS8Avx2(const Args &args) { Rows<StoreS8>(args); }
void RunS16Avx2(const Args &args) { Rows<StoreS16>(args); }

}  // namespace acorn::rmsnorm
