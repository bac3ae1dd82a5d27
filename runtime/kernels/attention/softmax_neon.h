// What the Arm variants of attention share beside pass.h: scores to E, and 64-bit products to outputs. In an anonymous namespace,
// like pass.h. Lane numbers of instructions are template parameters, so that unoptimised builds compile too.
#pragma once

#include <arm_neon.h>

#include "kernels/attention/pass.h"

namespace acorn::attention {
namespace {

/// Calls block(Count<n>, pair) for blocks of n pairs: fours, and one of what is left.
template <int n>
struct Count {
  static constexpr int kValue = n;
};

template <typename Block>
inline void InBlocksOfPairs(size_t pairs, const Block &block) {
  size_t pair = 0;
  for (; pair + 4 <= pairs; pair += 4) block(Count<4>(), pair);
  switch (pairs - pair) {
    case 3:
      return block(Count<3>(), pair);
    case 2:
      return block(Count<2>(), pair);
    case 1:
      return block(Count<1>(), pair);
    default:
      return;
  }
}

/// What turns scores into E. The 64-bit product is never formed: half of it is dropped in the multiplication (2^-31, rounded
/// down), which leaves the rounding of the rest as it was if the rest is shifted by one bit or more. To that end short shifts are
/// lengthened: first by multiplying the multiplier, then the difference. One that saturates belongs to E = 0.
struct Exponential {
  Exponential(int32_t multiplier, int32_t shift, int32_t max) : maximum(vdupq_n_s32(max)) {
    const int missing = shift < 32 ? 32 - shift : 0;
    const int spare = multiplier == 0 ? missing : __builtin_clz(static_cast<uint32_t>(multiplier)) - 1;
    const int more = spare < missing ? spare : missing;
    factor = vdupq_n_s32(multiplier << more);
    left = vdupq_n_s32(missing - more);
    right = vdupq_n_s32(31 - shift - missing);
  }

  /// t of four keys, below 2^30; anything for keys that the pair does not see.
  uint32x4_t Octaves(int32x4_t score) const {
    const int32x4_t difference = vqshlq_s32(vsubq_s32(maximum, score), left);
    return vrshlq_u32(vreinterpretq_u32_s32(vqdmulhq_s32(difference, factor)), right);
  }

  /// E of eight keys.
  uint16x8_t operator()(int32x4_t score0, int32x4_t score1) const {
    const uint32x4_t t0 = Octaves(score0), t1 = Octaves(score1);
    const uint16x8_t low = vuzp1q_u16(vreinterpretq_u16_u32(t0), vreinterpretq_u16_u32(t1));
    // (f * c) >> 15 as the high half of the doubled 16-bit product. 45332 does not fit it: f * 2^15 is split off.
    const int16x8_t f = vreinterpretq_s16_u16(vandq_u16(low, vdupq_n_u16(0x7fff)));
    int16x8_t p = vqdmulhq_s16(f, vdupq_n_s16(2598));
    p = vqdmulhq_s16(f, vsubq_s16(vdupq_n_s16(15162), p));
    p = vqdmulhq_s16(f, vsubq_s16(vdupq_n_s16(45332 - 32768), p));
    p = vmvnq_s16(vaddq_s16(p, f));  // 65535 - it
    // rs(p, i); from i = 17 on the result is 0. The shift reads its count, a signed one, from the low byte.
    const uint16x8_t i = vminq_u16(vshrn_high_n_u32(vshrn_n_u32(t0, 15), t1, 15), vdupq_n_u16(31));
    return vrshlq_u16(vreinterpretq_u16_s16(p), vnegq_s16(vreinterpretq_s16_u16(i)));
  }

  int32x4_t maximum, factor, left, right;
};

/// All ones in the lanes below `n`, of the four lanes from `first` on.
inline uint32x4_t Below(size_t n, uint32_t first) {
  const uint32x4_t lanes = {first, first + 1, first + 2, first + 3};
  return vcltq_u32(lanes, vdupq_n_u32(static_cast<uint32_t>(n)));
}

inline int32x4_t ScoresAt(const uint8_t *scores, int quad) { return vreinterpretq_s32_u8(vld1q_u8(scores + 16 * quad)); }

inline int32_t Largest(const uint8_t *scores, size_t keys) {
  int32x4_t max = vdupq_n_s32(INT32_MIN);
  for (size_t tile = 0; tile < keys / kTileRows; ++tile, scores += kTileScores) {
    const int32x4_t max0 = vmaxq_s32(ScoresAt(scores, 0), ScoresAt(scores, 1));
    const int32x4_t max1 = vmaxq_s32(ScoresAt(scores, 2), ScoresAt(scores, 3));
    max = vmaxq_s32(max, vmaxq_s32(max0, max1));
  }
  if (keys % kTileRows != 0) {
    for (int quad = 0; quad < 4; ++quad) {
      const uint32x4_t seen = Below(keys % kTileRows, static_cast<uint32_t>(4 * quad));
      max = vmaxq_s32(max, vbslq_s32(seen, ScoresAt(scores, quad), max));
    }
  }
  return vmaxvq_s32(max);
}

/// Turns the scores of one pair into E, 0 for keys that it does not see; returns the sum of E. How the sixteen E of a tile lie is
/// the variant's choice: Engine::StoreExponentials(at, eight, eight).
template <typename Engine>
uint64_t ExponentialsOf(const Pass &pass, size_t pair) {
  uint8_t *at = pass.scores + pair * pass.score_stride;
  const size_t keys = pass.keys[pair], head = pass.head[pair];
  const Exponential exponential(pass.args.exp_multiplier[head], pass.args.exp_shift, Largest(at, keys));
  uint32x4_t sum = vdupq_n_u32(0);  // a lane holds at most 16384 values of 65535
  size_t tile = 0;
  for (; tile < keys / kTileRows; ++tile, at += kTileScores) {
    const uint16x8_t e0 = exponential(ScoresAt(at, 0), ScoresAt(at, 1)), e1 = exponential(ScoresAt(at, 2), ScoresAt(at, 3));
    sum = vpadalq_u16(vpadalq_u16(sum, e0), e1);
    Engine::StoreExponentials(at, e0, e1);
  }
  for (size_t seen = keys % kTileRows; tile < pass.tiles; ++tile, at += kTileScores, seen = 0) {
    const uint16x8_t seen0 = vuzp1q_u16(vreinterpretq_u16_u32(Below(seen, 0)), vreinterpretq_u16_u32(Below(seen, 4)));
    const uint16x8_t seen1 = vuzp1q_u16(vreinterpretq_u16_u32(Below(seen, 8)), vreinterpretq_u16_u32(Below(seen, 12)));
    const uint16x8_t e0 = vandq_u16(exponential(ScoresAt(at, 0), ScoresAt(at, 1)), seen0);
    const uint16x8_t e1 = vandq_u16(exponential(ScoresAt(at, 2), ScoresAt(at, 3)), seen1);
    sum = vpadalq_u16(vpadalq_u16(sum, e0), e1);
    Engine::StoreExponentials(at, e0, e1);
  }
  return vaddlvq_u32(sum);
}

/// Rounds the products of eight sums and their pair's multiplier and stores min(n, 8) outputs.
struct Output {
  Output(const Pass &pass, const Normaliser &normaliser)
      : shift(vdupq_n_s64(-normaliser.shift)), zero_point(vdupq_n_s16(static_cast<int16_t>(pass.args.zero_point))) {}

  int32x4_t Round(int64x2_t low, int64x2_t high) const {
    return vqmovn_high_s64(vqmovn_s64(vrshlq_s64(low, shift)), vrshlq_s64(high, shift));
  }

  void Store(int8_t *y, size_t n, int32x4_t low, int32x4_t high) const {
    const int16x8_t words = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(low), high), zero_point);
    const int8x8_t bytes = vmax_s8(vqmovn_s16(words), vdup_n_s8(-127));
    if (n >= 8) return vst1_s8(y, bytes);
    int8_t values[8];
    vst1_s8(values, bytes);
    __builtin_memcpy(y, values, n);
  }

  int64x2_t shift;
  int16x8_t zero_point;
};

/// Eight outputs of a pair from d on, or those that head_dim leaves, from sums of the bytes of E times value + 128: the offset has
/// added 128 * den to 256 * high + low. Products wrap, the result does not.
inline void StoreOutputs(const Pass &pass, const Normaliser &normaliser, size_t pair, size_t d, const uint32x4_t (&high)[2],
                         const uint32x4_t (&low)[2]) {
  const auto multiplier = static_cast<uint32_t>(normaliser.multiplier);  // below 2^24, see Normalise
  const uint64_t offset = 0 - 128 * normaliser.den * multiplier;
  const uint32x2_t low_factor = vdup_n_u32(multiplier), high_factor = vdup_n_u32(256 * multiplier);
  const Output output(pass, normaliser);
  int32x4_t rounded[2];
  for (int i = 0; i < 2; ++i) {
    uint64x2_t left = vmlal_u32(vdupq_n_u64(offset), vget_low_u32(high[i]), high_factor);
    uint64x2_t right = vmlal_high_u32(vdupq_n_u64(offset), high[i], vcombine_u32(high_factor, high_factor));
    left = vmlal_u32(left, vget_low_u32(low[i]), low_factor);
    right = vmlal_high_u32(right, low[i], vcombine_u32(low_factor, low_factor));
    rounded[i] = output.Round(vreinterpretq_s64_u64(left), vreinterpretq_s64_u64(right));
  }
  output.Store(pass.y[pair] + d, pass.args.head_dim - d, rounded[0], rounded[1]);
}

}  // namespace
}  // namespace acorn::attention
