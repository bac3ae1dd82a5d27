#include "kernels/rotate/pairs.h"
#include "kernels/simd_avx512.h"

namespace acorn::rotate {
namespace {

template <typename Store, Range kRange>
void Rows(const Args &args) {
  const Rounder round(args.shift);
  const size_t h = args.half;
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *x = args.x + row * args.x_stride;
    auto *y = static_cast<typename Store::Type *>(args.y) + row * args.y_stride;
    for (size_t i = 0; i < h; i += 16) {
      const __mmask16 mask = Mask16(h - i);
      const __m256i cosine = _mm256_maskz_loadu_epi16(mask, args.cosine + row * h + i);
      const __m256i sine = _mm256_maskz_loadu_epi16(mask, args.sine + row * h + i);
      const __m512i to_low = Pair(cosine, _mm256_sub_epi16(_mm256_setzero_si256(), sine));
      const __m512i to_high = Pair(sine, cosine);
      for (size_t head = 0; head < args.heads; ++head) {
        const size_t at = head * args.head_dim + i;
        const __m512i pair = Pair(_mm256_maskz_loadu_epi16(mask, x + at), _mm256_maskz_loadu_epi16(mask, x + at + h));
        const __m512i factor = _mm512_set1_epi64(args.multiplier[head]);
        Finish<Store, kRange>(y + at, mask, round(MultiplyAll(_mm512_madd_epi16(pair, to_low), factor)), 0);
        Finish<Store, kRange>(y + at + h, mask, round(MultiplyAll(_mm512_madd_epi16(pair, to_high), factor)), 0);
      }
    }
    for (size_t i = 2 * h; i < args.head_dim; i += 16) {
      const __mmask16 mask = Mask16(args.head_dim - i);
      for (size_t head = 0; head < args.heads; ++head) {
        const size_t at = head * args.head_dim + i;
        const __m512i v = _mm512_slli_epi32(LoadS16(x + at, mask), 14);
        Finish<Store, kRange>(y + at, mask, round(MultiplyAll(v, _mm512_set1_epi64(args.multiplier[head]))), 0);
      }
    }
  }
}

// Both members of eight pairs at once: each times its cosine, plus its partner times the sine, of which the first takes the negative.
template <typename Store, Range kRange>
void PairRows(const Args &args) {
  using Out = typename Store::Type;
  const Rounder round(args.shift);
  ForPairBlocks<Out>(args, [&](const int16_t *x, Out *y, const int16_t *cosine, const int16_t *sine, const int32_t *multiplier,
                               size_t heads) {
    const __m128i c = _mm_loadu_si128(reinterpret_cast<const __m128i *>(cosine));
    const __m128i s = _mm_loadu_si128(reinterpret_cast<const __m128i *>(sine));
    const __m512i factors = Pair(_mm256_set_m128i(c, c), _mm256_set_m128i(s, _mm_sub_epi16(_mm_setzero_si128(), s)));
    for (size_t head = 0; head < heads; ++head, x += args.head_dim, y += args.head_dim) {
      const __m256i members = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(x));
      const __m512i pairs = Pair(members, _mm256_permute4x64_epi64(members, 0x4e));
      const __m512i turned = _mm512_madd_epi16(pairs, factors);
      Finish<Store, kRange>(y, Mask16(kPairBlock), round(MultiplyAll(turned, _mm512_set1_epi64(multiplier[head]))), 0);
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

void RunS8Avx512Vnni(const Args &args) { Rotate<StoreS8>(args); }
void RunS16Avx512Vnni(const Args &args) { Rotate<StoreS16>(args); }

}  // namespace acorn::rotate
