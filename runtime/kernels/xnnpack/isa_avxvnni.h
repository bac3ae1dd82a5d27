// The Isa of engine_256.h with AVX-VNNI: vpdpbusd takes x + 128 as its unsigned operand, and ksum takes the 128 out again.
#pragma once

#include "kernels/xnnpack/engine_256.h"

namespace acorn {
namespace {

template <WeightFormat kWeights, Layout kPlaces>
struct AvxVnni {
  static constexpr WeightFormat kFormat = kWeights;
  static constexpr Layout kLayout = kPlaces;
  static constexpr size_t kRows = kWeights == WeightFormat::kW8 ? 6 : 4;
  static constexpr uint8_t kFlip = 0x80;
  static constexpr bool kTop = kWeights == WeightFormat::kW4 && kPlaces == Layout::kX16C8;  // 16 w, in the top of a byte

  struct Eight {
    explicit Eight(const uint8_t *at) : low(BroadcastEight(at)), x(at) {}
    __m256i low;
    const uint8_t *x;
  };

  static __m128i Start(__m128i ksum) { return _mm_slli_epi32(ksum, 7); }

  static void Unpack(__m256i (&parts)[1], __m256i bytes) { parts[0] = bytes; }
  static void Unpack(__m256i (&parts)[2], __m256i bytes) {
    if (kTop) {
      const __m256i top = _mm256_set1_epi8(-16);
      parts[0] = _mm256_and_si256(_mm256_slli_epi16(bytes, 4), top);
      parts[1] = _mm256_and_si256(bytes, top);
    } else {
      DecodeNibbles<kPlaces>(parts, bytes);
    }
  }

  static __m256i Dot(__m256i sum, const Eight &eight, const __m256i (&w)[1]) {
    return _mm256_dpbusd_avx_epi32(sum, eight.low, w[0]);
  }
  static __m256i Dot(__m256i sum, const Eight &eight, const __m256i (&w)[2]) {
    sum = _mm256_dpbusd_avx_epi32(sum, eight.low, w[0]);
    return _mm256_dpbusd_avx_epi32(sum, BroadcastEight(eight.x + kXnnKr), w[1]);
  }

  static __m256i Finish(__m256i sum) { return kTop ? _mm256_srai_epi32(sum, 4) : sum; }
};

}  // namespace
}  // namespace acorn
