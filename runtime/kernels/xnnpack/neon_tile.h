// What our Arm kernels on layout kX16C8 share: a register of 16 bytes is 2 channels x 8 k, a row of a tile 8 registers.
// For the isa_*.h of Arm, each with a copy of its own (kernels/xnnpack/tiles.h).
#pragma once

#include "kernels/load_neon.h"
#include "kernels/xnnpack/tile_major.h"

namespace acorn {
namespace {

constexpr size_t kTileNr = XnnNr(Layout::kX16C8);
constexpr size_t kTileRowBytes = kTileNr * kXnnKr;

/// kCount registers at `from`, which moves on.
template <size_t kCount>
ACORN_INLINE void Take(int8x16_t (&to)[kCount], const uint8_t *&from) {
  const auto take = [&to](const auto &loaded) {
    for (size_t i = 0; i < kCount; ++i) to[i] = vreinterpretq_s8_u8(loaded.val[i]);
  };
  static_assert(kCount <= 4, "no load of so many registers");
  if constexpr (kCount == 1) {
    to[0] = vld1q_s8(reinterpret_cast<const int8_t *>(from));
    StepOver(from, 16);
  } else if constexpr (kCount == 2) {
    take(Take32(from));
  } else if constexpr (kCount == 3) {
    take(Take48(from));
  } else {
    take(Take64(from));
  }
}

/// The 8 values at `x`, twice; `x` moves on.
inline int8x16_t TakeEightTwice(const uint8_t *&x) {
  const int8x16_t eight = vreinterpretq_s8_u64(vld1q_dup_u64(reinterpret_cast<const uint64_t *>(x)));
  StepOver(x, kXnnKr);
  return eight;
}

/// 16 times the weights in the low and in the high nibbles of `bytes`: an instruction less than Plain.
struct SixteenFold {
  static int8x16_t Low(int8x16_t bytes) { return vshlq_n_s8(bytes, 4); }
  static int8x16_t High(int8x16_t bytes) { return vandq_s8(bytes, vdupq_n_s8(-16)); }
};

/// A tile of nibbles as a tile of bytes.
template <typename Nibbles>
inline void UnpackTile(uint8_t *to, const uint8_t *w, size_t depth) {
  for (size_t k = 0; k < depth; k += 2 * kXnnKr, to += 2 * kTileRowBytes) {
    ACORN_UNROLL
    for (size_t half = 0; half < 2; ++half) {
      int8x16_t four[4];
      Take(four, w);
      ACORN_UNROLL
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
ACORN_NOINLINE void SaveSome(int32_t *to, const int32_t *sums, size_t count, Store store) {
  for (size_t i = 0; i < count; ++i) to[i] = store == Store::kAdd ? to[i] + sums[i] : sums[i];
}

/// Stores or adds the sums of 4 * kQuads channels, of which the first `columns` exist, to `to`.
template <size_t kQuads>
inline void SaveSums(int32_t *to, const int32x4_t (&sums)[kQuads], size_t columns, Store store) {
  if (columns >= 4 * kQuads && store == Store::kSet) {
    ACORN_UNROLL
    for (size_t i = 0; i < kQuads; ++i) vst1q_s32(to + 4 * i, sums[i]);
  } else {
    int32_t lanes[4 * kQuads];
    ACORN_UNROLL
    for (size_t i = 0; i < kQuads; ++i) vst1q_s32(lanes + 4 * i, sums[i]);
    SaveSome(to, lanes, columns < 4 * kQuads ? columns : 4 * kQuads, store);
  }
}

}  // namespace
}  // namespace acorn
