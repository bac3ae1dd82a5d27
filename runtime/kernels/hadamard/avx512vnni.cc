#include "kernels/hadamard/kernel.h"
#include "kernels/simd_avx512.h"

namespace acorn::hadamard {
namespace {

/// Lanes whose index has bit `step` get partner - own, the others own + partner.  swapped: v with lanes i and i ^ step exchanged
__m512i Butterfly(__m512i v, __m512i swapped, __mmask16 upper) {
  return _mm512_mask_sub_epi32(_mm512_add_epi32(v, swapped), upper, swapped, v);
}

/// Blocks of `block` values, at most 16, inside one vector.
__m512i TransformLanes(__m512i v, size_t block) {
  if (block > 1) v = Butterfly(v, _mm512_shuffle_epi32(v, _MM_PERM_CDAB), 0xaaaa);
  if (block > 2) v = Butterfly(v, _mm512_shuffle_epi32(v, _MM_PERM_BADC), 0xcccc);
  if (block > 4) v = Butterfly(v, _mm512_permutex_epi64(v, 0x4e), 0xf0f0);
  if (block > 8) v = Butterfly(v, _mm512_shuffle_i64x2(v, v, 0x4e), 0xff00);
  return v;
}

/// A block of 16 * kVectors values.
template <int kVectors>
void TransformVectors(int32_t *h, const int16_t *x) {
  __m512i v[kVectors];
  for (int i = 0; i < kVectors; ++i) v[i] = TransformLanes(LoadS16(x + 16 * i, 0xffff), 16);
  for (int step = 1; step < kVectors; step *= 2) {
    for (int i = 0; i < kVectors; ++i) {
      if ((i & step) != 0) continue;
      const __m512i a = v[i], b = v[i + step];
      v[i] = _mm512_add_epi32(a, b);
      v[i + step] = _mm512_sub_epi32(a, b);
    }
  }
  for (int i = 0; i < kVectors; ++i) _mm512_store_si512(h + 16 * i, v[i]);
}

/// A block of 16 values or more, in registers up to 128 values, beyond that in memory.
void TransformBlock(int32_t *h, const int16_t *x, size_t block) {
  if (block == 16) return TransformVectors<1>(h, x);
  if (block == 32) return TransformVectors<2>(h, x);
  if (block == 64) return TransformVectors<4>(h, x);
  for (size_t i = 0; i < block; i += 128) TransformVectors<8>(h + i, x + i);
  for (size_t step = 128; step < block; step *= 2) {
    for (size_t i = 0; i < block; i += 16) {
      if ((i & step) != 0) continue;
      const __m512i a = _mm512_load_si512(h + i), b = _mm512_load_si512(h + i + step);
      _mm512_store_si512(h + i, _mm512_add_epi32(a, b));
      _mm512_store_si512(h + i + step, _mm512_sub_epi32(a, b));
    }
  }
}

template <typename Output, Range kRange>
void Rows(const Args &args) {
  alignas(64) int32_t h[kMaxBlock];
  const Rounder round(args.shift);
  const __m512i factor = _mm512_set1_epi64(args.multiplier);
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *x = args.x + row * args.x_stride;
    auto *y = static_cast<typename Output::Type *>(args.y) + row * args.y_stride;
    if (args.block < 16) {
      for (size_t i = 0; i < args.n; i += 16) {
        const __mmask16 mask = Mask16(args.n - i);
        const __m512i v = TransformLanes(LoadS16(x + i, mask), args.block);
        Finish<Output, kRange>(y + i, mask, round(MultiplyAll(v, factor)), args.zero_point);
      }
      continue;
    }
    for (size_t begin = 0; begin < args.n; begin += args.block) {
      TransformBlock(h, x + begin, args.block);
      for (size_t i = 0; i < args.block; i += 16) {
        const __m512i v = _mm512_load_si512(h + i);
        Finish<Output, kRange>(y + begin + i, 0xffff, round(MultiplyAll(v, factor)), args.zero_point);
      }
    }
  }
}

template <typename Output>
void RunAs(const Args &args) {
  args.shift >= kShiftTo31Bits ? Rows<Output, Range::k31Bits>(args) : Rows<Output, Range::k64Bits>(args);
}

}  // namespace

void RunS8Avx512Vnni(const Args &args) { RunAs<StoreS8>(args); }
void RunS15Avx512Vnni(const Args &args) { RunAs<StoreS15>(args); }

}  // namespace acorn::hadamard
