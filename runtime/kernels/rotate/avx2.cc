#include "kernels/rotate/pairs.h"
#include "kernels/simd_avx2.h"

namespace acorn::rotate {
namespace {

template <typename Store, Range kRange>
void Rows(const Args &args) {
  const Rounder round(args.shift);
  const size_t h = args.half;
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *x = args.x + row * args.x_stride;
    auto *y = static_cast<typename Store::Type *>(args.y) + row * args.y_stride;
    for (size_t i = 0; i < h; i += 8) {
      const size_t left = h - i;
      const __m128i cosine = LoadRaw(args.cosine + row * h + i, left), sine = LoadRaw(args.sine + row * h + i, left);
      const __m256i to_low = Pair(cosine, _mm_sub_epi16(_mm_setzero_si128(), sine));
      const __m256i to_high = Pair(sine, cosine);
      for (size_t head = 0; head < args.heads; ++head) {
        const size_t at = head * args.head_dim + i;
        const __m256i pair = Pair(LoadRaw(x + at, left), LoadRaw(x + at + h, left));
        const __m256i factor = _mm256_set1_epi64x(args.multiplier[head]);
        Finish<Store, kRange>(y + at, left, round(MultiplyAll(_mm256_madd_epi16(pair, to_low), factor)), 0);
        Finish<Store, kRange>(y + at + h, left, round(MultiplyAll(_mm256_madd_epi16(pair, to_high), factor)), 0);
      }
    }
    for (size_t i = 2 * h; i < args.head_dim; i += 8) {
      const size_t left = args.head_dim - i;
      for (size_t head = 0; head < args.heads; ++head) {
        const size_t at = head * args.head_dim + i;
        const __m256i v = _mm256_slli_epi32(LoadS16(x + at, left), 14);
        Finish<Store, kRange>(y + at, left, round(MultiplyAll(v, _mm256_set1_epi64x(args.multiplier[head]))), 0);
      }
    }
  }
}

template <typename Store, Range kRange>
void PairRows(const Args &args) {
  using Out = typename Store::Type;
  const Rounder round(args.shift);
  ForPairBlocks<Out>(args, [&](const int16_t *x, Out *y, const int16_t *cosine, const int16_t *sine, const int32_t *multiplier,
                               size_t heads) {
    const __m128i c = LoadRaw(cosine, kBlockPairs), s = LoadRaw(sine, kBlockPairs);
    const __m256i to_low = Pair(c, _mm_sub_epi16(_mm_setzero_si128(), s)), to_high = Pair(s, c);
    for (size_t head = 0; head < heads; ++head, x += args.head_dim, y += args.head_dim) {
      const __m256i pair = Pair(LoadRaw(x, kBlockPairs), LoadRaw(x + kBlockPairs, kBlockPairs));
      const __m256i factor = _mm256_set1_epi64x(multiplier[head]);
      Finish<Store, kRange>(y, kBlockPairs, round(MultiplyAll(_mm256_madd_epi16(pair, to_low), factor)), 0);
      Finish<Store, kRange>(y + kBlockPairs, kBlockPairs, round(MultiplyAll(_mm256_madd_epi16(pair, to_high), factor)), 0);
    }
  });
}

template <typename Store, Range kRange>
void Rotate(const Args &args) {
  args.pairs == nullptr ? Rows<Store, kRange>(args) : PairRows<Store, kRange>(args);
}

template <typename Store>
void Rotate(const Args &args) {
  args.shift >= kShiftTo31Bits ? Rotate<Store, Range::k31Bits>(args) : Rotate<Store, Range::k64Bits>(args);
}

}  // namespace

void RunS8Avx2(const Args &args) { Rotate<StoreS8>(args); }
void RunS16Avx2(const Args &args) { Rotate<StoreS16>(args); }

}  // namespace acorn::rotate
