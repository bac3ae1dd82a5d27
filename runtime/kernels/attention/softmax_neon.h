// What the Arm variants of attention share beside pass.h: scores to E, and 64-bit products to outputs. In an anonymous namespace,
// like pass.h.
#pragma once

#include <arm_neon.h>

#include "kernels/attention/pass.h"
#include "kernels/inline.h"

namespace acorn::attention {
namespace {

/// A number that is part of its type: instructions have lanes, which must be constants in unoptimised builds too.
template <int n>
struct Constant {
  constexpr operator int() const { return n; }
};

/// f(0), ... f(n - 1), unrolled in time: GCC keeps an array in memory if one loop over it is unrolled late.
template <int n, typename F>
ACORN_INLINE void Unrolled(const F &f) {
  if constexpr (n > 0) {
    Unrolled<n - 1>(f);
    f(Constant<n - 1>());
  }
}

/// Calls block(Constant<n>, pair) for blocks of n pairs: fours, and one of what is left.
template <typename Block>
inline void InBlocksOfPairs(size_t pairs, const Block &block) {
  size_t pair = 0;
  for (; pair + 4 <= pairs; pair += 4) block(Constant<4>(), pair);
  switch (pairs - pair) {
    case 3:
      return block(Constant<3>(), pair);
    case 2:
      return block(Constant<2>(), pair);
    case 1:
      return block(Constant<1>(), pair);
    default:
      return;
  }
}

/// The low or the high nibbles of bytes.
template <int kHigh>
ACORN_INLINE uint8x16_t Nibbles(uint8x16_t bytes) {
  if constexpr (kHigh != 0) return vshrq_n_u8(bytes, 4);
  return vandq_u8(bytes, vdupq_n_u8(15));
}

/// Sixteen bytes of a row of keys, the kQuad-th four dimensions of four keys, with the offset of the cache's width. k: the row's
/// first four.
template <int kBits, int kQuad>
ACORN_INLINE uint8x16_t LoadKeys(const uint8_t *k) {
  if constexpr (kBits == 8) return vld1q_u8(k + kQuad * 4 * kTileRows);
  return Nibbles<kQuad % 2>(vld1q_u8(k + kQuad / 2 * 4 * kTileRows));
}

/// What keys have on top of their values.
template <int kBits>
inline constexpr uint8_t kKeyOffset = kBits == 8 ? 128 : kv_cache::kNibbleOffset;

/// LoadKeys without the offset.
template <int kBits, int kQuad>
ACORN_INLINE int8x16_t LoadSignedKeys(const uint8_t *k) {
  return vreinterpretq_s8_u8(vsubq_u8(LoadKeys<kBits, kQuad>(k), vdupq_n_u8(kKeyOffset<kBits>)));
}

/// Four values of a head, of four rows. v: the sixteen values of the rows that hold them; four: which fours.
template <int kBits>
ACORN_INLINE int8x16_t LoadValues(const int8_t *v, size_t four) {
  if constexpr (kBits == 8) return vld1q_s8(v + 16 * four);
  const uint8x16_t bytes = vreinterpretq_u8_s8(vld1q_s8(v + 16 * (four % 2)));
  const uint8x16_t nibbles = Nibbles<0>(vshlq_u8(bytes, vdupq_n_s8(four < 2 ? 0 : -4)));
  return vsubq_s8(vreinterpretq_s8_u8(nibbles), vdupq_n_s8(kv_cache::kNibbleOffset));
}

/// What turns scores into E. t needs no 64-bit lanes: sqdmulh is the product over 2^31, rounded down, and a rounding shift of that
/// by one bit or more is the rounding shift of the product. A shift below 32 is lengthened to that end: the multiplier takes as
/// many bits as it has room for, the difference the rest. A difference that saturates is far beyond the octaves where E is 0.
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
    const uint16x8_t fraction = vandq_u16(low, vdupq_n_u16(0x7fff));
    const int16x8_t f = vreinterpretq_s16_u16(fraction);
    int16x8_t p = vqdmulhq_s16(f, vdupq_n_s16(2598));
    p = vqdmulhq_s16(f, vsubq_s16(vdupq_n_s16(15162), p));
    p = vqdmulhq_s16(f, vsubq_s16(vdupq_n_s16(45332 - 32768), p));
    const uint16x8_t e = vmvnq_u16(vaddq_u16(vreinterpretq_u16_s16(p), fraction));  // 65535 - it
    // rs(p, i); from i = 17 on the result is 0. The shift reads its count, a signed one, from the low byte.
    const uint16x8_t i = vminq_u16(vshrn_high_n_u32(vshrn_n_u32(t0, 15), t1, 15), vdupq_n_u16(31));
    return vrshlq_u16(e, vnegq_s16(vreinterpretq_s16_u16(i)));
  }

  int32x4_t maximum, factor, left, right;
};

constexpr size_t kHalfScores = kTileScores / 2;

/// Half tiles, of eight keys, of a run.
inline size_t Halves(const KeyRun &run) { return (run.keys + 7) / 8; }

inline int32x4_t ScoresAt(const uint8_t *scores, int quad) { return vreinterpretq_s32_u8(vld1q_u8(scores + 16 * quad)); }

/// The largest scores of keys in [first, last), lane by lane, and of `max`.
inline int32x4_t LargestLanes(int32x4_t max, const uint8_t *scores, size_t first, size_t last) {
  const uint32x4_t lanes = {0, 1, 2, 3};
  size_t key = first / 4 * 4;
  const auto four = [&] {
    const uint32x4_t keys = vaddq_u32(lanes, vdupq_n_u32(static_cast<uint32_t>(key)));
    const uint32x4_t seen = vandq_u32(vcgeq_u32(keys, vdupq_n_u32(static_cast<uint32_t>(first))),
                                      vcltq_u32(keys, vdupq_n_u32(static_cast<uint32_t>(last))));
    max = vmaxq_s32(max, vbslq_s32(seen, ScoresAt(scores + 4 * key, 0), max));
    key += 4;
  };
  if (key < first) four();
  for (; key + kTileRows <= last; key += kTileRows) {
    const uint8_t *at = scores + 4 * key;
    const int32x4_t max0 = vmaxq_s32(ScoresAt(at, 0), ScoresAt(at, 1));
    const int32x4_t max1 = vmaxq_s32(ScoresAt(at, 2), ScoresAt(at, 3));
    max = vmaxq_s32(max, vmaxq_s32(max0, max1));
  }
  while (key < last) four();
  return max;
}

ACORN_NOINLINE int32_t LargestOf(const Pass &pass, size_t pair) {
  const uint8_t *scores = pass.scores + pair * pass.score_stride;
  const int32x4_t max = LargestLanes(vdupq_n_s32(INT32_MIN), scores, 0, pass.args.sinks);
  return vmaxvq_s32(LargestLanes(max, scores, pass.first[pair], pass.last[pair]));
}

/// E of half a tile as high bytes of eight, then low bytes of eight.
inline void StoreByBytes(uint8_t *at, uint16x8_t e) {
  const uint8x16_t high_then_low = {1, 3, 5, 7, 9, 11, 13, 15, 0, 2, 4, 6, 8, 10, 12, 14};
  vst1q_u8(at, vqtbl1q_u8(vreinterpretq_u8_u16(e), high_then_low));
}

/// Turns the scores of keys in [begin, end), multiples of 8, into E, 0 for those outside of [first, last); adds them to sum.
template <void (*kStoreHalf)(uint8_t *at, uint16x8_t e)>
ACORN_INLINE uint32x4_t AddExponentials(uint32x4_t sum, uint8_t *scores, const Exponential &exponential, size_t begin, size_t end,
                                        size_t first, size_t last) {
  const uint16x8_t lanes = {0, 1, 2, 3, 4, 5, 6, 7};
  size_t key = begin;
  const auto half = [&] {
    uint8_t *at = scores + 4 * key;
    const auto lanes_below = [&](size_t limit) {
      return vcltq_u16(lanes, vdupq_n_u16(static_cast<uint16_t>(limit <= key ? 0 : limit - key < 8 ? limit - key : 8)));
    };
    const uint16x8_t e = exponential(ScoresAt(at, 0), ScoresAt(at, 1));
    const uint16x8_t seen = vandq_u16(e, vbicq_u16(lanes_below(last), lanes_below(first)));
    sum = vpadalq_u16(sum, seen);
    kStoreHalf(at, seen);
    key += 8;
  };
  while (key < end && key < first) half();
  for (; key + kTileRows <= last; key += kTileRows) {
    uint8_t *at = scores + 4 * key;
    const uint16x8_t e0 = exponential(ScoresAt(at, 0), ScoresAt(at, 1)), e1 = exponential(ScoresAt(at, 2), ScoresAt(at, 3));
    sum = vpadalq_u16(vpadalq_u16(sum, e0), e1);
    kStoreHalf(at, e0);
    kStoreHalf(at + kHalfScores, e1);
  }
  while (key < end) half();
  return sum;
}

/// Turns the scores of one pair into E, 0 for keys that it does not see; returns the sum of E. The E of half a tile take the place
/// of its scores, as the variant likes them.
template <void (*kStoreHalf)(uint8_t *at, uint16x8_t e)>
ACORN_NOINLINE uint64_t ExponentialsOf(const Pass &pass, size_t pair, int32_t largest) {
  uint8_t *scores = pass.scores + pair * pass.score_stride;
  const size_t sinks = pass.args.sinks, first = pass.first[pair], last = pass.last[pair], head = pass.head[pair];
  const Exponential exponential(pass.args.exp_multiplier[head], pass.args.exp_shift, largest);
  const size_t begin = pass.sink_tiles * kTileRows, end = (pass.last[pass.pairs - 1] + 7) / 8 * 8;
  uint32x4_t sum = vdupq_n_u32(0);  // a lane holds four values of a tile, at most 65535: a pair sees keys of some 4100 tiles
  if (sinks != 0) sum = AddExponentials<kStoreHalf>(sum, scores, exponential, 0, (sinks + 7) / 8 * 8, 0, sinks);
  return vaddlvq_u32(AddExponentials<kStoreHalf>(sum, scores, exponential, begin, end, first, last));
}

/// The last steps of eight outputs, from 64-bit products of which nothing is known.
struct Finish {
  Finish() = default;
  Finish(const Normaliser &normaliser, int32_t zero)
      : shift(vdupq_n_s64(-normaliser.shift)), zero_point(vdupq_n_s16(static_cast<int16_t>(zero))) {}

  ACORN_INLINE int8x8_t operator()(int64x2_t p0, int64x2_t p1, int64x2_t p2, int64x2_t p3) const {
    const int32x4_t low = vqmovn_high_s64(vqmovn_s64(vrshlq_s64(p0, shift)), vrshlq_s64(p1, shift));
    const int32x4_t high = vqmovn_high_s64(vqmovn_s64(vrshlq_s64(p2, shift)), vrshlq_s64(p3, shift));
    const int16x8_t words = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(low), high), zero_point);
    return vmax_s8(vqmovn_s16(words), vdup_n_s8(-127));
  }

  int64x2_t shift;
  int16x8_t zero_point;
};

/// Eight outputs of a pair from d on to the place of its queries; of a part, the products, which are its sums.
ACORN_INLINE void StoreOutputs(const Pass &pass, const Finish &finish, size_t pair, size_t d, int64x2_t p0, int64x2_t p1,
                               int64x2_t p2, int64x2_t p3) {
  if (pass.num == nullptr) return vst1_s8(pass.q + pair * pass.q_stride + d, finish(p0, p1, p2, p3));
  int64_t *num = pass.Num(pair, d);
  vst1q_s64(num, p0);
  vst1q_s64(num + 2, p1);
  vst1q_s64(num + 4, p2);
  vst1q_s64(num + 6, p3);
}

/// Calls values(Constant<n>, outputs, pair) for blocks of n pairs, with an Output(normaliser, zero point) for each pair.
template <typename Output, typename Values>
inline void ValuesOfPairs(const Pass &pass, const Normaliser *normalisers, const Values &values) {
  Output outputs[kPairs];
  for (size_t pair = 0; pair < pass.pairs; ++pair) outputs[pair] = Output(normalisers[pair], pass.args.zero_point);
  InBlocksOfPairs(pass.pairs, [&](auto count, size_t pair) { values(count, outputs, pair); });
}

}  // namespace
}  // namespace acorn::attention
