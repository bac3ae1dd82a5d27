#include <immintrin.h>

#include "kernels/requantise/vector.h"

namespace acorn::requantise {
namespace {

struct Avx512 {
  using V = __m512i;
  using Mask = __mmask16;
  static constexpr size_t kLanes = 16, kRegisters = 32;

  static Mask FirstLanes(size_t count) { return static_cast<Mask>((1u << count) - 1); }
  static V Load(const int32_t *from, Mask mask) { return _mm512_maskz_loadu_epi32(mask, from); }
  static V Set32(int32_t value) { return _mm512_set1_epi32(value); }
  static V Set64(int64_t value) { return _mm512_set1_epi64(value); }
  static V Add32(V a, V b) { return _mm512_add_epi32(a, b); }
  static V Add64(V a, V b) { return _mm512_add_epi64(a, b); }
  static V Odd(V a) { return _mm512_srli_epi64(a, 32); }
  static V MulEven(V a, V b) { return _mm512_mul_epi32(a, b); }
  static V MulLow64(V a, V b) { return _mm512_mullo_epi64(a, b); }
  static V HighHalves(V even, V odd) { return _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB); }
  static V LowHalves(V even, V odd) { return _mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_CCAA); }
  static V ShiftRight32(V a, int count) { return _mm512_sra_epi32(a, _mm_cvtsi32_si128(count)); }
  static V ShiftRight64(V a, int count) { return _mm512_sra_epi64(a, _mm_cvtsi32_si128(count)); }
  static V Clamp32(V a, V low, V high) { return _mm512_min_epi32(_mm512_max_epi32(a, low), high); }
  static V Clamp64(V a, V low, V high) { return _mm512_min_epi64(_mm512_max_epi64(a, low), high); }
  static void Store(int8_t *to, V a, size_t count) { _mm_mask_storeu_epi8(to, FirstLanes(count), _mm512_cvtepi32_epi8(a)); }
  static void Store(int16_t *to, V a, size_t count) {
    _mm256_mask_storeu_epi16(to, FirstLanes(count), _mm512_cvtepi32_epi16(a));
  }
  static void Store(int32_t *to, V a, size_t count) { _mm512_mask_storeu_epi32(to, FirstLanes(count), a); }
};

}  // namespace

ACORN_REQUANTISE_VARIANT(Avx512Vnni, Avx512)

}  // namespace acorn::requantise
