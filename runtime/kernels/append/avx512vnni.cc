#include "kernels/append/kernel.h"
#include "kernels/kv_cache.h"
#include "kernels/simd_avx512.h"

namespace acorn::append {
namespace {

/// Writes one byte in four: the others belong to neighbouring rows, which another thread may be writing.
void StoreRow(int8_t *group, size_t row_in_group, __mmask16 mask, __m128i values) {
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(8 * row_in_group));
  const __m512i lanes = _mm512_sll_epi32(_mm512_cvtepu8_epi32(values), shift);
  const __mmask64 bytes = _mm512_movepi8_mask(_mm512_sll_epi32(_mm512_maskz_set1_epi32(mask, 0x80), shift));
  _mm512_mask_storeu_epi8(group, bytes, lanes);
}

/// The same of a cache of 4 bits: sixteen values in eight bytes.
void StoreNibbles(int8_t *group, size_t row_in_group, __m128i values) {
  const __m128i limit = _mm_set1_epi8(kv_cache::kNibbleLimit);
  const __m128i clamped = _mm_max_epi8(_mm_min_epi8(values, limit), _mm_sub_epi8(_mm_setzero_si128(), limit));
  const __m128i nibbles = _mm_add_epi8(clamped, _mm_set1_epi8(kv_cache::kNibbleOffset));
  const __m128i eight = _mm_or_si128(nibbles, _mm_slli_epi16(_mm_srli_si128(nibbles, 8), 4));
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(8 * row_in_group));
  const __m256i lanes = _mm256_sll_epi32(_mm256_cvtepu8_epi32(eight), shift);
  const __mmask32 bytes = _mm256_movepi8_mask(_mm256_sll_epi32(_mm256_set1_epi32(0x80), shift));
  _mm256_mask_storeu_epi8(group, bytes, lanes);
}

/// load(row, head, d, mask): sixteen finished values of a head from d on, 0 behind the mask.
template <typename Load>
void AppendValues(const Args &args, const Load &load) {
  const size_t head_bytes = kv_cache::HeadBytes(args.capacity, args.head_dim, args.bits);
  for (size_t row = 0; row < args.m; ++row) {
    const size_t at = args.first_row + row;
    for (size_t head = 0; head < args.kv_heads; ++head) {
      const size_t offset = kv_cache::ValueOffset(at & ~size_t{3}, 0, args.head_dim) / 8 * args.bits;
      int8_t *group = args.v_cache + head * head_bytes + offset;
      for (size_t d = 0; d < args.v_dim; d += 16) {
        const __mmask16 mask = Mask16(args.v_dim - d);
        const __m128i values = load(row, head, d, mask);
        if (args.bits == 8) {
          StoreRow(group + 4 * d, at & 3, mask, values);
        } else {
          StoreNibbles(group + 2 * d, at & 3, values);
        }
      }
    }
  }
}

}  // namespace

void RunAvx512Vnni(const Args &args) {
  AppendKeys(args);
  const Rounder round(args.shift);
  AppendValues(args, [&](size_t row, size_t head, size_t d, __mmask16 mask) {
    const int16_t *v = static_cast<const int16_t *>(args.v) + row * args.v_stride + head * args.v_dim + d;
    const Wide scaled = round(MultiplyAll(LoadS16(v, mask), _mm512_set1_epi64(args.multiplier[head])));
    const __m256i words = _mm256_max_epi16(NarrowS16(scaled), _mm256_set1_epi16(-127));
    return _mm256_cvtsepi16_epi8(words);
  });
}

void CopyAvx512Vnni(const Args &args) {
  AppendKeys(args);
  AppendValues(args, [&](size_t row, size_t head, size_t d, __mmask16 mask) {
    const int8_t *v = static_cast<const int8_t *>(args.v) + row * args.v_stride + head * args.v_dim + d;
    return _mm_maskz_loadu_epi8(mask, v);
  });
}

}  // namespace acorn::append
