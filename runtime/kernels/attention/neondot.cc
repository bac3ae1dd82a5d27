// E of half a tile: 8 high bytes, then 8 low bytes. Dot products take operands of one signedness: keys lose their offset,
// values gain one.
#include "kernels/attention/softmax_neon.h"

namespace acorn::attention {
namespace {

/// Scores of kPairCount pairs from `pair` on over a run, 4 * kVectors keys at a time: a tile or half of one.
template <int kBits, int kPairCount, int kVectors>
ACORN_NOINLINE void ScorePairs(const Pass &pass, const KeyRun &run, size_t pair) {
  const size_t q_stride = pass.q_stride, score_stride = pass.score_stride, k_dim = pass.args.k_dim;
  const size_t keys = 8 * Halves(run);
  const int8_t *queries = pass.q + pair * q_stride;
  uint8_t *out = pass.scores + pair * score_stride + run.tile * kTileScores;
  for (size_t key = 0; key < keys; key += 4 * kVectors, out += 16 * kVectors) {
    const uint8_t *k = run.k + key / kTileRows * pass.tile_bytes + key % kTileRows * 4;
    const int8_t *query = queries;
    int32x4_t sum[kPairCount][kVectors];
    Unrolled<kPairCount>([&](auto p) { Unrolled<kVectors>([&](auto i) { sum[p][i] = vdupq_n_s32(0); }); });
    for (size_t d = 0; d < k_dim; d += 16, query += 16, k += 2 * kBits * kTileRows) {
      int8x16_t q[kPairCount];
      Unrolled<kPairCount>([&](auto p) { q[p] = vld1q_s8(query + p * q_stride); });
      Unrolled<4>([&](auto quad) {
        constexpr int kLane = quad;
        Unrolled<kVectors>([&](auto i) {
          const int8x16_t four_keys = LoadSignedKeys<kBits, kLane>(k + 16 * i);
          Unrolled<kPairCount>([&](auto p) { sum[p][i] = vdotq_laneq_s32(sum[p][i], four_keys, q[p], kLane); });
        });
      });
    }
    Unrolled<kPairCount>([&](auto p) {
      Unrolled<kVectors>([&](auto i) { vst1q_u8(out + p * score_stride + 16 * i, vreinterpretq_u8_s32(sum[p][i])); });
    });
  }
}

/// The outputs of a pair from sums of the bytes of E times value + 128. The offset adds 128 * den to 256 * high + low: sums start
/// at what takes it off again, so that `high` is that of the values themselves but for less than 2^24, and fits 32 bits with sign.
struct Output {
  Output() = default;
  Output(const Normaliser &normaliser, int32_t zero_point)
      : high(vdupq_n_u32(0 - static_cast<uint32_t>((normaliser.den + 1) / 2))),
        low(vdupq_n_u32(128 * static_cast<uint32_t>(normaliser.den % 2))),
        high_factor(vdupq_n_s32(128 * static_cast<int32_t>(normaliser.multiplier))),  // below 2^31
        low_factor(vdupq_n_u32(static_cast<uint32_t>(normaliser.multiplier))),
        finish(normaliser, zero_point) {}

  /// (256 * high + low) * multiplier, below 2^63.
  ACORN_INLINE int64x2_t LowHalf(uint32x4_t h, uint32x4_t l) const {
    const int64x2_t product = vqdmull_s32(vget_low_s32(vreinterpretq_s32_u32(h)), vget_low_s32(high_factor));
    return vreinterpretq_s64_u64(vmlal_u32(vreinterpretq_u64_s64(product), vget_low_u32(l), vget_low_u32(low_factor)));
  }
  ACORN_INLINE int64x2_t HighHalf(uint32x4_t h, uint32x4_t l) const {
    const int64x2_t product = vqdmull_high_s32(vreinterpretq_s32_u32(h), high_factor);
    return vreinterpretq_s64_u64(vmlal_high_u32(vreinterpretq_u64_s64(product), l, low_factor));
  }

  uint32x4_t high, low;  // what sums start from
  int32x4_t high_factor;
  uint32x4_t low_factor;
  Finish finish;
};

/// Sums of E times V for kPairCount pairs, 4 * kVectors values of a head at a time, and their normalised output.
template <int kBits, int kPairCount, int kVectors>
ACORN_NOINLINE void ValuePairs(const Pass &pass, const Output *outputs, size_t pair) {
  const size_t v_dim = pass.args.v_dim, score_stride = pass.score_stride;
  const size_t row_bytes = pass.tile_bytes / 4;  // of four cache rows
  for (size_t d = 0; d < v_dim; d += 4 * kVectors) {
    const size_t first = d % 16 / 4;  // of the fours in sixteen values
    uint32x4_t high[kPairCount][kVectors], low[kPairCount][kVectors];  // at most 65536 * 255 * 255, and what they start from
    Unrolled<kPairCount>([&](auto p) {
      Unrolled<kVectors>([&](auto i) {
        high[p][i] = outputs[pair + p].high;
        low[p][i] = outputs[pair + p].low;
      });
    });
    for (size_t run = 0; run < pass.run_count; ++run) {
      const uint8_t *e = pass.scores + pair * score_stride + pass.runs[run].tile * kTileScores;
      const int8_t *v = pass.runs[run].v + d / 16 * 8 * kBits;
      const size_t halves = Halves(pass.runs[run]);
      for (size_t half = 0; half < halves; ++half, e += kHalfScores) {
        uint8x16_t bytes[kPairCount];
        Unrolled<kPairCount>([&](auto p) { bytes[p] = vld1q_u8(e + p * score_stride); });
        Unrolled<2>([&](auto quad) {
          constexpr int kHighLane = quad, kLowLane = quad + 2;
          Unrolled<kVectors>([&](auto i) {
            const uint8x16_t value = veorq_u8(vreinterpretq_u8_s8(LoadValues<kBits>(v, first + i)), vdupq_n_u8(0x80));
            Unrolled<kPairCount>([&](auto p) {
              high[p][i] = vdotq_laneq_u32(high[p][i], value, bytes[p], kHighLane);
              low[p][i] = vdotq_laneq_u32(low[p][i], value, bytes[p], kLowLane);
            });
          });
          v += row_bytes;
        });
      }
    }
    Unrolled<kPairCount>([&](auto p) {
      Unrolled<kVectors / 2>([&](auto i) {
        const Output &output = outputs[pair + p];
        const uint32x4_t *h = high[p] + 2 * i, *l = low[p] + 2 * i;
        StoreOutputs(pass, output.finish, pair + p, d + 8 * i, output.LowHalf(h[0], l[0]), output.HighHalf(h[0], l[0]),
                     output.LowHalf(h[1], l[1]), output.HighHalf(h[1], l[1]));
      });
    });
  }
}

template <int kBits>
struct Engine {
  static constexpr bool kWholeVectors = true;
  static constexpr int32_t kKeyOffset = 0;

  static void Queries(const Pass &) {}

  static void Scores(const Pass &pass, const KeyRun &run) {
    if (pass.pairs == kPairs) return ScorePairs<kBits, kPairs, 2>(pass, run, 0);  // for four vectors there are not enough registers
    InBlocksOfPairs(pass.pairs, [&](auto count, size_t pair) { ScorePairs<kBits, count, 4>(pass, run, pair); });
  }

  static int32_t Largest(const Pass &pass, size_t pair) { return LargestOf(pass, pair); }

  static uint64_t Exponentials(const Pass &pass, size_t pair, int32_t largest) {
    return ExponentialsOf<StoreByBytes>(pass, pair, largest);
  }

  static void Values(const Pass &pass, const Normaliser *normalisers) {
    ValuesOfPairs<Output>(pass, normalisers, [&](auto count, const Output *outputs, size_t pair) {
      ValuePairs<kBits, count, (count <= 2 ? 4 : 2)>(pass, outputs, pair);
    });
  }
};

}  // namespace

void RunNeonDot(const Args &args) { RunEngine<Engine>(args); }
void ScorePartNeonDot(const Args &args) { ScorePart<Engine>(args); }
void ValuePartNeonDot(const Args &args) { ValuePart<Engine>(args); }

}  // namespace acorn::attention
