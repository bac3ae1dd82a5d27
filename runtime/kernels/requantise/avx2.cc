#include <immintrin.h>

#include "kernels/requantise/vector.h"

namespace acorn::requantise {
namespace {

struct Avx2 {
  using V = __m256i;
  using Mask = __m256i;
  static constexpr size_t kLanes = 8, kRegisters = 16;

  static Mask FirstLanes(size_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static V Load(const int32_t *from, Mask mask) { return _mm256_maskload_epi32(from, mask); }
  static V Set32(int32_t value) { return _mm256_set1_epi32(value); }
  static V Set64(int64_t value) { return _mm256_set1_epi64x(value); }
  static V Add32(V a, V b) { return _mm256_add_epi32(a, b); }
  static V Add64(V a, V b) { return _mm256_add_epi64(a, b); }
  static V Odd(V a) { return _mm256_srli_epi64(a, 32); }
  static V MulEven(V a, V b) { return _mm256_mul_epi32(a, b); }
  // Schoolbook, modulo 2^64.
  static V MulLow64(V a, V b) {
    const V cross = _mm256_add_epi64(_mm256_mul_epu32(Odd(a), b), _mm256_mul_epu32(a, Odd(b)));
    return _mm256_add_epi64(_mm256_mul_epu32(a, b), _mm256_slli_epi64(cross, 32));
  }
  static V HighHalves(V even, V odd) { return _mm256_blend_epi32(Odd(even), odd, 0xaa); }
  static V LowHalves(V even, V odd) { return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa); }
  static V ShiftRight32(V a, int count) { return _mm256_sra_epi32(a, _mm_cvtsi32_si128(count)); }
  // AVX2 shifts 64 bits logically only: the sign bit, shifted along, is where the missing sign bits begin, and
  // (t ^ sign) - sign fills them.
  static V ShiftRight64(V a, int count) {
    const __m128i by = _mm_cvtsi32_si128(count);
    const V sign = _mm256_srl_epi64(Set64(INT64_MIN), by);
    return _mm256_sub_epi64(_mm256_xor_si256(_mm256_srl_epi64(a, by), sign), sign);
  }
  static V Clamp32(V a, V low, V high) { return _mm256_min_epi32(_mm256_max_epi32(a, low), high); }
  static V Clamp64(V a, V low, V high) {
    const V raised = _mm256_blendv_epi8(a, low, _mm256_cmpgt_epi64(low, a));
    return _mm256_blendv_epi8(raised, high, _mm256_cmpgt_epi64(raised, high));
  }
  static void Store(int8_t *to, V a, size_t count) {
    const __m128i words = Words(a);
    const __m128i bytes = _mm_packs_epi16(words, words);
    StoreFirst(to, bytes, count);
  }
  static void Store(int16_t *to, V a, size_t count) { StoreFirst(to, Words(a), count * 2); }
  static void Store(int32_t *to, V a, size_t count) { _mm256_maskstore_epi32(to, FirstLanes(count), a); }

 private:
  static __m128i Words(V a) { return _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)); }
  static void StoreFirst(void *to, __m128i value, size_t bytes) {
    if (bytes == 16) {
      _mm_storeu_si128(static_cast<__m128i *>(to), value);
    } else if (bytes == 8) {
      _mm_storel_epi64(static_cast<__m128i *>(to), value);
    } else {
      alignas(16) uint8_t buffer[16];
      _mm_store_si128(reinterpret_cast<__m128i *>(buffer), value);
      __builtin_memcpy(to, buffer, bytes);
    }
  }
};

}  // namespace

ACORN_REQUANTISE_VARIANT(Avx2, Avx2)

}  // namespace acorn::requantise
