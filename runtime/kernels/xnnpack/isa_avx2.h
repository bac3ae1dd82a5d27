// The Isa of engine_256.h with AVX2. vpmaddubsw adds two products in 16 bits, which is exact here:
// kW8: |x| * (w with the sign of x), at most 2 * 127 * 127 < 2^15;  kW4: (x + 128) * w over two eights, at most 4 * 255 * 8.
#pragma once

#include "kernels/xnnpack/engine_256.h"

namespace acorn {
namespace {

template <WeightFormat kWeights, Layout kPlaces>
struct Avx2 {
  static constexpr WeightFormat kFormat = kWeights;
  static constexpr Layout kLayout = kPlaces;
  static constexpr size_t kRows = 4;
  static constexpr uint8_t kFlip = kWeights == WeightFormat::kW8 ? 0 : 0x80;

  struct Eight {
    explicit Eight(const uint8_t *at)
        : low(BroadcastEight(at)),
          other(kWeights == WeightFormat::kW8 ? _mm256_abs_epi8(low) : BroadcastEight(at + kXnnKr)) {}
    __m256i low;
    __m256i other;  // kW8: |low|;  kW4: the next eight
  };

  /// kW8 needs no correction. kW4: 128 times the sum of the weights, of which ksum holds -16 times (kX16C8) or -1 times (kX8C8).
  static __m128i Start(__m128i ksum) {
    if (kWeights == WeightFormat::kW8) return _mm_setzero_si128();
    return _mm_slli_epi32(ksum, kPlaces == Layout::kX16C8 ? 3 : 7);
  }

  static void Unpack(__m256i (&parts)[1], __m256i bytes) { parts[0] = bytes; }
  static void Unpack(__m256i (&parts)[2], __m256i bytes) { DecodeNibbles<kPlaces>(parts, bytes); }

  static __m256i Dot(__m256i sum, const Eight &eight, const __m256i (&w)[1]) {
    const __m256i pairs = _mm256_maddubs_epi16(eight.other, _mm256_sign_epi8(w[0], eight.low));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static __m256i Dot(__m256i sum, const Eight &eight, const __m256i (&w)[2]) {
    const __m256i pairs =
        _mm256_add_epi16(_mm256_maddubs_epi16(eight.low, w[0]), _mm256_maddubs_epi16(eight.other, w[1]));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

  static __m256i Finish(__m256i sum) { return sum; }
};

}  // namespace
}  // namespace acorn
