// E of four keys: 16-bit values in the place of their scores. Keys lose their offset, so that two products with a query
// fit 16 bits; values gain one, so that their products with E have no sign.
#include "kernels/attention/softmax_neon.h"

namespace acorn::attention {
namespace {

/// GCC moves no instruction across it: were the products of all pairs under way at once, there would not be enough registers.
ACORN_INLINE void Fence() { __asm__ volatile("" : :); }

/// A vector loaded as one: GCC would load each lane on its own, then make another vector of it.
ACORN_INLINE int32x2_t Whole(int32x2_t lanes) {
  __asm__("" : "+w"(lanes));
  return lanes;
}

/// E of half a tile as values of four keys, each in the place of the keys' scores.
inline void StoreByQuads(uint8_t *at, uint16x8_t e) {
  vst1_u8(at, vreinterpret_u8_u16(vget_low_u16(e)));
  vst1_u8(at + 16, vreinterpret_u8_u16(vget_high_u16(e)));
}

/// Scores of kPairCount pairs from `pair` on over a run, half a tile at a time.
template <int kBits, int kPairCount>
ACORN_NOINLINE void ScorePairs(const Pass &pass, const KeyRun &run, size_t pair) {
  const size_t q_stride = pass.q_stride, score_stride = pass.score_stride, k_dim = pass.args.k_dim;
  const size_t halves = Halves(run);
  const int8_t *queries = pass.q + pair * q_stride;
  uint8_t *out = pass.scores + pair * score_stride + run.tile * kTileScores;
  for (size_t half = 0; half < halves; ++half, out += kHalfScores) {
    const uint8_t *k = run.k + half / 2 * pass.tile_bytes + half % 2 * 32;
    const int8_t *query = queries;
    int32x4_t sum[kPairCount][4];  // of two keys: two partial sums each
    Unrolled<kPairCount>([&](auto p) { Unrolled<4>([&](auto i) { sum[p][i] = vdupq_n_s32(0); }); });
    for (size_t d = 0; d < k_dim; d += 8, query += 8, k += kBits * kTileRows) {
      int8x16_t first[2], second[2];  // four keys, four dimensions; the next four dimensions
      Unrolled<2>([&](auto i) {
        first[i] = LoadSignedKeys<kBits, 0>(k + 16 * i);
        second[i] = LoadSignedKeys<kBits, 1>(k + 16 * i);
      });
      int32x2_t quads[kPairCount];
      Unrolled<kPairCount>([&](auto p) { quads[p] = Whole(vreinterpret_s32_s8(vld1_s8(query + p * q_stride))); });
      Unrolled<kPairCount>([&](auto p) {
        const int8x16_t q0 = vreinterpretq_s8_s32(vdupq_lane_s32(quads[p], 0));
        const int8x16_t q1 = vreinterpretq_s8_s32(vdupq_lane_s32(quads[p], 1));
        Unrolled<2>([&](auto i) {
          const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(first[i]), vget_low_s8(q0)), vget_low_s8(second[i]), vget_low_s8(q1));
          const int16x8_t high = vmlal_high_s8(vmull_high_s8(first[i], q0), second[i], q1);
          sum[p][2 * i] = vpadalq_s16(sum[p][2 * i], low);
          sum[p][2 * i + 1] = vpadalq_s16(sum[p][2 * i + 1], high);
        });
        Fence();
      });
    }
    Unrolled<kPairCount>([&](auto p) {
      vst1q_u8(out + p * score_stride, vreinterpretq_u8_s32(vpaddq_s32(sum[p][0], sum[p][1])));
      vst1q_u8(out + p * score_stride + 16, vreinterpretq_u8_s32(vpaddq_s32(sum[p][2], sum[p][3])));
    });
  }
}

/// The outputs of a pair from products of its multiplier and sums of E times value + 128. The offset has added 128 * den to the
/// sum of all. Products wrap, the result does not.
struct Output {
  Output() = default;
  Output(const Normaliser &normaliser, int32_t zero_point)
      : offset(vdupq_n_u64(0 - 128 * normaliser.den * static_cast<uint64_t>(normaliser.multiplier))),
        factor(vdupq_n_u32(static_cast<uint32_t>(normaliser.multiplier))),
        finish(normaliser, zero_point) {}

  uint64x2_t offset;  // what products start from
  uint32x4_t factor;
  Finish finish;
};

constexpr size_t kBlockQuads = 64;  // 256 times 65535 * 255 fits 32 bits without sign

/// Sixteen values of a head of each of the four rows that start at v.
template <int kBits>
ACORN_INLINE int8x16x4_t LoadRows(const int8_t *v) {
  if constexpr (kBits == 8) return vld4q_s8(v);
  const uint8x8x4_t bytes = vld4_u8(reinterpret_cast<const uint8_t *>(v));
  int8x16x4_t rows;
  Unrolled<4>([&](auto row) {
    const uint8x16_t nibbles = vcombine_u8(vand_u8(bytes.val[row], vdup_n_u8(15)), vshr_n_u8(bytes.val[row], 4));
    rows.val[row] = vsubq_s8(vreinterpretq_s8_u8(nibbles), vdupq_n_s8(kv_cache::kNibbleOffset));
  });
  return rows;
}

/// Sums of E times V for kPairCount pairs, sixteen values of a head at a time, and their normalised output.
template <int kBits, int kPairCount>
ACORN_NOINLINE void ValuePairs(const Pass &pass, const Output *outputs, size_t pair) {
  const size_t v_dim = pass.args.v_dim, score_stride = pass.score_stride;
  const size_t row_bytes = pass.tile_bytes / 4;  // of four cache rows
  for (size_t d = 0; d < v_dim; d += 16) {
    uint64x2_t product[kPairCount][8];
    for (int p = 0; p < kPairCount; ++p) {
      for (int i = 0; i < 8; ++i) product[p][i] = outputs[pair + p].offset;
    }
    size_t run = 0, quad = 0;
    while (run < pass.run_count) {
      const size_t quads = 2 * Halves(pass.runs[run]), end = quad + kBlockQuads < quads ? quad + kBlockQuads : quads;
      const uint8_t *e = pass.scores + pair * score_stride + pass.runs[run].tile * kTileScores + 16 * quad;
      const int8_t *v = pass.runs[run].v + d * kBits / 2 + quad * row_bytes;
      uint32x4_t sum[kPairCount][4];
      Unrolled<kPairCount>([&](auto p) { Unrolled<4>([&](auto i) { sum[p][i] = vdupq_n_u32(0); }); });
      for (; quad < end; ++quad, e += 16, v += row_bytes) {
        uint16x4_t weight[kPairCount];
        Unrolled<kPairCount>([&](auto p) { weight[p] = vreinterpret_u16_u8(vld1_u8(e + p * score_stride)); });
        const int8x16x4_t rows = LoadRows<kBits>(v);
        Unrolled<4>([&](auto row) {
          constexpr int kLane = row;
          const int8x16_t offset = vdupq_n_s8(-128);
          const uint16x8_t value0 = vreinterpretq_u16_s16(vsubl_s8(vget_low_s8(rows.val[row]), vget_low_s8(offset)));
          const uint16x8_t value1 = vreinterpretq_u16_s16(vsubl_high_s8(rows.val[row], offset));
          Unrolled<kPairCount>([&](auto p) {
            sum[p][0] = vmlal_lane_u16(sum[p][0], vget_low_u16(value0), weight[p], kLane);
            sum[p][1] = vmlal_high_lane_u16(sum[p][1], value0, weight[p], kLane);
            sum[p][2] = vmlal_lane_u16(sum[p][2], vget_low_u16(value1), weight[p], kLane);
            sum[p][3] = vmlal_high_lane_u16(sum[p][3], value1, weight[p], kLane);
          });
        });
      }
      Unrolled<kPairCount>([&](auto p) {
        const uint32x4_t factor = outputs[pair + p].factor;
        Unrolled<4>([&](auto i) {
          product[p][2 * i] = vmlal_u32(product[p][2 * i], vget_low_u32(sum[p][i]), vget_low_u32(factor));
          product[p][2 * i + 1] = vmlal_high_u32(product[p][2 * i + 1], sum[p][i], factor);
        });
      });
      if (quad == quads) {
        ++run;
        quad = 0;
      }
    }
    for (int p = 0; p < kPairCount; ++p) {
      int64x2_t signed_product[8];
      for (int i = 0; i < 8; ++i) signed_product[i] = vreinterpretq_s64_u64(product[p][i]);
      const Finish &finish = outputs[pair + p].finish;
      for (int i = 0; i < 8; i += 4) {
        const int64x2_t *eight = signed_product + i;
        StoreOutputs(pass, finish, pair + p, d + 2 * i, eight[0], eight[1], eight[2], eight[3]);
      }
    }
  }
}

template <int kBits>
struct Engine {
  static constexpr bool kWholeVectors = true;
  static constexpr int32_t kKeyOffset = 0;

  static void Queries(const Pass &) {}

  static void Scores(const Pass &pass, const KeyRun &run) {
    InBlocksOfPairs(pass.pairs, [&](auto count, size_t pair) { ScorePairs<kBits, count>(pass, run, pair); });
  }

  static int32_t Largest(const Pass &pass, size_t pair) { return LargestOf(pass, pair); }

  static uint64_t Exponentials(const Pass &pass, size_t pair, int32_t largest) {
    return ExponentialsOf<StoreByQuads>(pass, pair, largest);
  }

  static void Values(const Pass &pass, const Normaliser *normalisers) {
    ValuesOfPairs<Output>(pass, normalisers, [&](auto count, const Output *outputs, size_t pair) {
      ValuePairs<kBits, count>(pass, outputs, pair);
    });
  }
};

}  // namespace

void RunNeon(const Args &args) { RunEngine<Engine>(args); }
void ScorePartNeon(const Args &args) { ScorePart<Engine>(args); }
void ValuePartNeon(const Args &args) { ValuePart<Engine>(args); }

}  // namespace acorn::attention
