// E of half a tile: 8 high bytes, then 8 low bytes. Dot products take operands of one signedness: keys lose their offset of 128,
// values gain one.
#include "kernels/attention/softmax_neon.h"

namespace acorn::attention {
namespace {

/// Scores of kPairCount pairs from `pair` on, 4 * kVectors keys at a time: a tile or half of one.
template <int kPairCount, int kVectors>
ACORN_LOOPS void ScorePairs(const Pass &pass, size_t pair) {
  const size_t q_stride = pass.q_stride, score_stride = pass.score_stride, head_dim = pass.args.head_dim;
  const size_t keys = 8 * Halves(pass);
  const int8_t *queries = pass.q + pair * q_stride;
  uint8_t *out = pass.scores + pair * score_stride;
  for (size_t key = 0; key < keys; key += 4 * kVectors, out += 16 * kVectors) {
    const uint8_t *k = pass.args.k + key / kTileRows * pass.tile_bytes + key % kTileRows * 4;
    const int8_t *query = queries;
    int32x4_t sum[kPairCount][kVectors];
    Unrolled<kPairCount>([&](auto p) { Unrolled<kVectors>([&](auto i) { sum[p][i] = vdupq_n_s32(0); }); });
    for (size_t d = 0; d < head_dim; d += 16, query += 16) {
      int8x16_t q[kPairCount];
      Unrolled<kPairCount>([&](auto p) { q[p] = vld1q_s8(query + p * q_stride); });
      Unrolled<4>([&](auto quad) {
        Unrolled<kVectors>([&](auto i) {
          const uint8x16_t with_offset = vld1q_u8(k + 16 * i);
          const int8x16_t four_keys = vreinterpretq_s8_u8(veorq_u8(with_offset, vdupq_n_u8(0x80)));
          Unrolled<kPairCount>([&](auto p) { sum[p][i] = vdotq_laneq_s32(sum[p][i], four_keys, q[p], quad); });
        });
        k += 4 * kTileRows;
      });
    }
    Unrolled<kPairCount>([&](auto p) {
      Unrolled<kVectors>([&](auto i) { vst1q_u8(out + p * score_stride + 16 * i, vreinterpretq_u8_s32(sum[p][i])); });
    });
  }
}

/// Sums of E times V for kPairCount pairs, 4 * kVectors values of a head at a time, and their normalised output.
template <int kPairCount, int kVectors>
ACORN_LOOPS void ValuePairs(const Pass &pass, const OffsetOutput *outputs, size_t pair) {
  const size_t head_dim = pass.args.head_dim, score_stride = pass.score_stride, q_stride = pass.q_stride;
  const size_t halves = Halves(pass);
  const size_t row_bytes = 4 * kv_cache::PaddedDim(head_dim);  // of four cache rows
  for (size_t d = 0; d < head_dim; d += 4 * kVectors) {
    const uint8_t *e = pass.scores + pair * score_stride;
    const int8_t *v = pass.args.v + 4 * d;
    uint32x4_t high[kPairCount][kVectors], low[kPairCount][kVectors];  // at most 65536 * 255 * 255, and what they start from
    Unrolled<kPairCount>([&](auto p) {
      Unrolled<kVectors>([&](auto i) {
        high[p][i] = outputs[pair + p].high;
        low[p][i] = outputs[pair + p].low;
      });
    });
    for (size_t half = 0; half < halves; ++half, e += kHalfScores) {
      uint8x16_t bytes[kPairCount];
      Unrolled<kPairCount>([&](auto p) { bytes[p] = vld1q_u8(e + p * score_stride); });
      Unrolled<2>([&](auto quad) {
        Unrolled<kVectors>([&](auto i) {
          const uint8x16_t value = veorq_u8(vreinterpretq_u8_s8(vld1q_s8(v + 16 * i)), vdupq_n_u8(0x80));
          Unrolled<kPairCount>([&](auto p) {
            high[p][i] = vdotq_laneq_u32(high[p][i], value, bytes[p], quad);
            low[p][i] = vdotq_laneq_u32(low[p][i], value, bytes[p], quad + 2);
          });
        });
        v += row_bytes;
      });
    }
    int8_t *y = pass.q + pair * q_stride + d;
    Unrolled<kPairCount>([&](auto p) {
      Unrolled<kVectors / 2>([&](auto i) {
        const int8x8_t out = outputs[pair + p](high[p][2 * i], high[p][2 * i + 1], low[p][2 * i], low[p][2 * i + 1]);
        vst1_s8(y + p * q_stride + 8 * i, out);
      });
    });
  }
}

struct Engine {
  static void Scores(const Pass &pass) {
    if (pass.pairs == kPairs) return ScorePairs<kPairs, 2>(pass, 0);  // for four vectors there are not enough registers
    InBlocksOfPairs(pass.pairs, [&](auto count, size_t pair) { ScorePairs<count, 4>(pass, pair); });
  }

  static uint64_t Exponentials(const Pass &pass, size_t pair) { return ExponentialsOf<Engine>(pass, pair); }

  static void StoreExponentials(uint8_t *at, uint16x8_t e) { StoreByBytes(at, e); }

  static void Values(const Pass &pass, const Normaliser *normalisers) {
    OffsetOutput outputs[kPairs];
    for (size_t pair = 0; pair < pass.pairs; ++pair) outputs[pair] = OffsetOutput(normalisers[pair], pass.args.zero_point);
    InBlocksOfPairs(pass.pairs, [&](auto count, size_t pair) { ValuePairs<count, (count <= 2 ? 4 : 2)>(pass, outputs, pair); });
    CopyOutputs(pass);
  }
};

}  // namespace

void RunNeonDot(const Args &args) { RunPasses<Engine>(args); }

}  // namespace acorn::attention
