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

/// load(row, head, d, mask): sixteen finished values of a head from d on.
template <typename Load>
void AppendValues(const Args &args, const Load &load) {
  const size_t head_bytes = kv_cache::HeadBytes(args.capacity, args.head_dim);
  for (size_t row = 0; row < args.m; ++row) {
    const size_t at = args.first_row + row;
    for (size_t head = 0; head < args.kv_heads; ++head) {
      int8_t *group = args.v_cache + head * head_bytes + kv_cache::ValueOffset(at & ~size_t{3}, 0, args.head_dim);
      for (size_t d = 0; d < args.head_dim; d += 16) {
        const __mmask16 mask = Mask16(args.head_dim - d);
        StoreRow(group + 4 * d, at & 3, mask, load(row, head, d, mask));
      }
    }
  }
}

}  // namespace

void RunAvx512Vnni(const Args &args) {
  AppendKeys(args);
  const Rounder round(args.shift);
  AppendValues(args, [&](size_t row, size_t head, size_t d, __mmask16 mask) {
    const int16_t *v = static_cast<const int16_t *>(args.v) + row * args.v_stride + head * args.head_dim + d;
    const Wide scaled = round(MultiplyAll(LoadS16(v, mask), _mm512_set1_epi64(args.multiplier[head])));
    const __m256i words = _mm256_max_epi16(NarrowS16(scaled), _mm256_set1_epi16(-127));
    return _mm256_cvtsepi16_epi8(words);
  });
}

void CopyAvx512Vnni(const Args &args) {
  AppendKeys(args);
  AppendValues(args, [&](size_t row, size_t head, size_t d, __mmask16 mask) {
    const int8_t *v = static_cast<const int8_t *>(args.v) + row * args.v_stride + head * args.head_dim + d;
    return _mm_maskz_loadu_epi8(mask, v);
  });
}

}  // namespace acorn::append
