// What our Arm kernels on layout kX16C8 share: a register of 16 bytes is 2 channels x 8 k, a row of a tile 8 registers.
// For the isa_*.h of Arm, each with a copy of its own (kernels/xnnpack/tiles.h).
#pragma once

#include <arm_neon.h>

#include "kernels/xnnpack/tile_major.h"

namespace acorn {
namespace {

constexpr size_t kTileNr = XnnNr(Layout::kX16C8);
constexpr size_t kTileRowBytes = kTileNr * kXnnKr;

/// Moves `p` on by the `bytes` of the load before it. The empty asm hides the sum from GCC, which else keeps the pointer of the
/// loop's start and adds to it before each load that has no offset (ld1 of four registers, ld1r) where a post-index is free.
inline void StepOver(const uint8_t *&p, size_t bytes) {
  p += bytes;
  __asm__ volatile("" : "+r"(p));
}

/// kCount registers at `from`, which moves on.
template <size_t kCount>
inline void Take(int8x16_t (&to)[kCount], const uint8_t *&from) {
  const int8_t *const at = reinterpret_cast<const int8_t *>(from);
  if constexpr (kCount == 1) {
    to[0] = vld1q_s8(at);
  } else if constexpr (kCount == 2) {
    const int8x16x2_t loaded = vld1q_s8_x2(at);
    for (size_t i = 0; i < kCount; ++i) to[i] = loaded.val[i];
  } else if constexpr (kCount == 3) {
    const int8x16x3_t loaded = vld1q_s8_x3(at);
    for (size_t i = 0; i < kCount; ++i) to[i] = loaded.val[i];
  } else {
    static_assert(kCount == 4, "no load of so many registers");
    const int8x16x4_t loaded = vld1q_s8_x4(at);
    for (size_t i = 0; i < kCount; ++i) to[i] = loaded.val[i];
  }
  StepOver(from, 16 * kCount);
}

/// The 8 values at `x`, twice; `x` moves on.
inline int8x16_t TakeEightTwice(const uint8_t *&x) {
  const int8x16_t eight = vreinterpretq_s8_u64(vld1q_dup_u64(reinterpret_cast<const uint64_t *>(x)));
  StepOver(x, kXnnKr);
  return eight;
}

/// 16 times the weights in the low and in the high nibbles of `bytes`, which stand in two's complement.
struct SixteenFold {
  static int8x16_t Low(int8x16_t bytes) { return vshlq_n_s8(bytes, 4); }
  static int8x16_t High(int8x16_t bytes) { return vandq_s8(bytes, vdupq_n_s8(-16)); }
};

/// The weights themselves: an instruction more.
struct Plain {
  static int8x16_t Low(int8x16_t bytes) { return vshrq_n_s8(vshlq_n_s8(bytes, 4), 4); }
  static int8x16_t High(int8x16_t bytes) { return vshrq_n_s8(bytes, 4); }
};

/// A tile of nibbles as a tile of bytes.
template <typename Nibbles>
inline void UnpackTile(uint8_t *to, const uint8_t *w, size_t depth) {
  for (size_t k = 0; k < depth; k += 2 * kXnnKr, to += 2 * kTileRowBytes) {
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; ++half) {
      int8x16_t four[4];
      Take(four, w);
#pragma GCC unroll 4
      for (size_t i = 0; i < 4; ++i) {
        vst1q_s8(reinterpret_cast<int8_t *>(to + 64 * half + 16 * i), Nibbles::Low(four[i]));
        vst1q_s8(reinterpret_cast<int8_t *>(to + kTileRowBytes + 64 * half + 16 * i), Nibbles::High(four[i]));
      }
    }
  }
}

/// Sums of 16-fold weights (kW4) or of the weights themselves (kW8) become sums.
template <WeightFormat kFormat>
inline int32x4_t FinishSum(int32x4_t sum) {
  return kFormat == WeightFormat::kW4 ? vshrq_n_s32(sum, 4) : sum;
}

/// The first `count` of `sums`, stored or added: the end of a matrix, and panels after the first.
[[gnu::noinline]] void SaveSome(int32_t *to, const int32_t *sums, size_t count, Store store) {
  for (size_t i = 0; i < count; ++i) to[i] = store == Store::kAdd ? to[i] + sums[i] : sums[i];
}

/// Stores or adds the sums of 4 * kQuads channels, of which the first `columns` exist, to `to`.
template <size_t kQuads>
inline void SaveSums(int32_t *to, const int32x4_t (&sums)[kQuads], size_t columns, Store store) {
  if (columns >= 4 * kQuads && store == Store::kSet) {
#pragma GCC unroll 4
    for (size_t i = 0; i < kQuads; ++i) vst1q_s32(to + 4 * i, sums[i]);
  } else {
    int32_t lanes[4 * kQuads];
#pragma GCC unroll 4
    for (size_t i = 0; i < kQuads; ++i) vst1q_s32(lanes + 4 * i, sums[i]);
    SaveSome(to, lanes, columns < 4 * kQuads ? columns : 4 * kQuads, store);
  }
}

}  // namespace
}  // namespace acorn
