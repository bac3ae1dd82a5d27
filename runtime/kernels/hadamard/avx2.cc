#include "kernels/hadamard/kernel.h"
#include "kernels/simd_avx2.h"

namespace acorn::hadamard {
namespace {

/// Blocks of `block` values, at most 8, inside one vector: lanes whose index has the step's bit get partner - own, the others
/// own + partner.
__m256i TransformLanes(__m256i v, size_t block) {
  if (block > 1) {
    const __m256i signs = _mm256_setr_epi32(1, -1, 1, -1, 1, -1, 1, -1);
    v = _mm256_add_epi32(_mm256_shuffle_epi32(v, 0xb1), _mm256_sign_epi32(v, signs));
  }
  if (block > 2) {
    const __m256i signs = _mm256_setr_epi32(1, 1, -1, -1, 1, 1, -1, -1);
    v = _mm256_add_epi32(_mm256_shuffle_epi32(v, 0x4e), _mm256_sign_epi32(v, signs));
  }
  if (block > 4) {
    const __m256i signs = _mm256_setr_epi32(1, 1, 1, 1, -1, -1, -1, -1);
    v = _mm256_add_epi32(_mm256_permute2x128_si256(v, v, 1), _mm256_sign_epi32(v, signs));
  }
  return v;
}

/// A block of 8 * kVectors values.
template <int kVectors>
void TransformVectors(int32_t *h, const int16_t *x) {
  __m256i v[kVectors];
  for (int i = 0; i < kVectors; ++i) v[i] = TransformLanes(LoadS16(x + 8 * i, 8), 8);
  for (int step = 1; step < kVectors; step *= 2) {
    for (int i = 0; i < kVectors; ++i) {
      if ((i & step) != 0) continue;
      const __m256i a = v[i], b = v[i + step];
      v[i] = _mm256_add_epi32(a, b);
      v[i + step] = _mm256_sub_epi32(a, b);
    }
  }
  for (int i = 0; i < kVectors; ++i) _mm256_store_si256(reinterpret_cast<__m256i *>(h + 8 * i), v[i]);
}

/// A block of 8 values or more, in registers up to 64 values, beyond that in memory.
void TransformBlock(int32_t *h, const int16_t *x, size_t block) {
  if (block == 8) return TransformVectors<1>(h, x);
  if (block == 16) return TransformVectors<2>(h, x);
  if (block == 32) return TransformVectors<4>(h, x);
  for (size_t i = 0; i < block; i += 64) TransformVectors<8>(h + i, x + i);
  for (size_t step = 64; step < block; step *= 2) {
    for (size_t i = 0; i < block; i += 8) {
      if ((i & step) != 0) continue;
      auto *low = reinterpret_cast<__m256i *>(h + i), *high = reinterpret_cast<__m256i *>(h + i + step);
      const __m256i a = _mm256_load_si256(low), b = _mm256_load_si256(high);
      _mm256_store_si256(low, _mm256_add_epi32(a, b));
      _mm256_store_si256(high, _mm256_sub_epi32(a, b));
    }
  }
}

template <typename Output, Range kRange>
void Rows(const Args &args) {
  alignas(32) int32_t h[kMaxBlock];
  const Rounder round(args.shift);
  const __m256i factor = _mm256_set1_epi64x(args.multiplier);
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *x = args.x + row * args.x_stride;
    auto *y = static_cast<typename Output::Type *>(args.y) + row * args.y_stride;
    if (args.block < 8) {
      for (size_t i = 0; i < args.n; i += 8) {
        const __m256i v = TransformLanes(LoadS16(x + i, args.n - i), args.block);
        Finish<Output, kRange>(y + i, args.n - i, round(MultiplyAll(v, factor)), args.zero_point);
      }
      continue;
    }
    for (size_t begin = 0; begin < args.n; begin += args.block) {
      TransformBlock(h, x + begin, args.block);
      for (size_t i = 0; i < args.block; i += 8) {
        const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i *>(h + i));
        Finish<Output, kRange>(y + begin + i, 8, round(MultiplyAll(v, factor)), args.zero_point);
      }
    }
  }
}

template <typename Output>
void RunAs(const Args &args) {
  args.shift >= kShiftTo31Bits ? Rows<Output, Range::k31Bits>(args) : Rows<Output, Range::k64Bits>(args);
}

}  // namespace

void RunS8Avx2(const Args &args) { RunAs<StoreS8>(args); }
void RunS15Avx2(const Args &args) { RunAs<StoreS15>(args); }

}  // namespace acorn::hadamard
