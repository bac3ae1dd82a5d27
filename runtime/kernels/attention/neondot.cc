// E of a tile: 16 high bytes, then 16 low bytes. Dot products take operands of one signedness: keys lose their offset of 128,
// values gain one.
#include "kernels/attention/softmax_neon.h"

namespace acorn::attention {
namespace {

/// Adds the products of values 4 * kQuad to 4 * kQuad + 3 of each query and of the keys at `k`.
template <int kQuad, int kPairCount, int kVectors>
inline void AddScores(int32x4_t (&sum)[kPairCount][kVectors], const int8x16_t (&q)[kPairCount], const uint8_t *k) {
  for (int i = 0; i < kVectors; ++i) {
    const int8x16_t key = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(k + kQuad * kTileRows * 4 + 16 * i), vdupq_n_u8(0x80)));
    for (int p = 0; p < kPairCount; ++p) sum[p][i] = vdotq_laneq_s32(sum[p][i], key, q[p], kQuad);
  }
}

/// Scores of kPairCount pairs from `pair` on, for the 4 * kVectors keys from `key` on, all of one tile.
template <int kPairCount, int kVectors>
void ScoreBlock(const Pass &pass, size_t pair, size_t key) {
  const uint8_t *k = pass.args.k + key / kTileRows * pass.tile_bytes + key % kTileRows * 4;
  const int8_t *query = pass.q + pair * pass.q_stride;
  int32x4_t sum[kPairCount][kVectors];
  for (auto &row : sum) {
    for (int32x4_t &s : row) s = vdupq_n_s32(0);
  }
  for (size_t d = 0; d < pass.args.head_dim; d += 16) {
    int8x16_t q[kPairCount];
    for (int p = 0; p < kPairCount; ++p) q[p] = vld1q_s8(query + p * pass.q_stride + d);
    AddScores<0>(sum, q, k + d * kTileRows);
    AddScores<1>(sum, q, k + d * kTileRows);
    AddScores<2>(sum, q, k + d * kTileRows);
    AddScores<3>(sum, q, k + d * kTileRows);
  }
  uint8_t *out = pass.scores + pair * pass.score_stride + 4 * key;
  for (int p = 0; p < kPairCount; ++p) {
    for (int i = 0; i < kVectors; ++i) vst1q_u8(out + p * pass.score_stride + 16 * i, vreinterpretq_u8_s32(sum[p][i]));
  }
}

/// Adds the products of the bytes of E of four keys, 4 * kQuad to 4 * kQuad + 3 of a tile, and of their values at `v`.
template <int kQuad, int kPairCount, int kVectors>
inline void AddValues(uint32x4_t (&high)[kPairCount][kVectors], uint32x4_t (&low)[kPairCount][kVectors],
                      const uint8x16_t (&e_high)[kPairCount], const uint8x16_t (&e_low)[kPairCount], const int8_t *v) {
  for (int i = 0; i < kVectors; ++i) {
    const uint8x16_t value = veorq_u8(vreinterpretq_u8_s8(vld1q_s8(v + 16 * i)), vdupq_n_u8(0x80));
    for (int p = 0; p < kPairCount; ++p) {
      high[p][i] = vdotq_laneq_u32(high[p][i], value, e_high[p], kQuad);
      low[p][i] = vdotq_laneq_u32(low[p][i], value, e_low[p], kQuad);
    }
  }
}

/// Sums of E times V over 4 * kVectors values of a head from `d` on, for kPairCount pairs, and their normalised output.
template <int kPairCount, int kVectors>
void ValueBlock(const Pass &pass, const Normaliser *normalisers, size_t pair, size_t d) {
  const size_t row_bytes = 4 * kv_cache::PaddedDim(pass.args.head_dim);  // of four cache rows
  const uint8_t *e = pass.scores + pair * pass.score_stride;
  const int8_t *v = pass.args.v + 4 * d;
  uint32x4_t high[kPairCount][kVectors], low[kPairCount][kVectors];  // at most 65536 * 255 * 255
  for (int p = 0; p < kPairCount; ++p) {
    for (int i = 0; i < kVectors; ++i) high[p][i] = low[p][i] = vdupq_n_u32(0);
  }
  for (size_t tile = 0; tile < pass.tiles; ++tile, e += kTileScores, v += 4 * row_bytes) {
    uint8x16_t e_high[kPairCount], e_low[kPairCount];
    for (int p = 0; p < kPairCount; ++p) {
      e_high[p] = vld1q_u8(e + p * pass.score_stride);
      e_low[p] = vld1q_u8(e + p * pass.score_stride + 16);
    }
    AddValues<0>(high, low, e_high, e_low, v);
    AddValues<1>(high, low, e_high, e_low, v + row_bytes);
    AddValues<2>(high, low, e_high, e_low, v + 2 * row_bytes);
    AddValues<3>(high, low, e_high, e_low, v + 3 * row_bytes);
  }
  for (int p = 0; p < kPairCount; ++p) {
    for (int i = 0; i < kVectors; i += 2) {
      const size_t at = d + 4 * static_cast<size_t>(i);
      if (at >= pass.args.head_dim) break;
      const uint32x4_t high2[2] = {high[p][i], high[p][i + 1]}, low2[2] = {low[p][i], low[p][i + 1]};
      StoreOutputs(pass, normalisers[pair + p], pair + p, at, high2, low2);
    }
  }
}

struct Engine {
  static void Scores(const Pass &pass) {
    if (pass.pairs == kPairs) {  // half a tile at a time, or there would be more sums than registers
      for (size_t key = 0; key < pass.tiles * kTileRows; key += 8) ScoreBlock<kPairs, 2>(pass, 0, key);
      return;
    }
    InBlocksOfPairs(pass.pairs, [&](auto count, size_t pair) {
      for (size_t key = 0; key < pass.tiles * kTileRows; key += 16) ScoreBlock<decltype(count)::kValue, 4>(pass, pair, key);
    });
  }

  static uint64_t Exponentials(const Pass &pass, size_t pair) { return ExponentialsOf<Engine>(pass, pair); }

  static void StoreExponentials(uint8_t *at, uint16x8_t e0, uint16x8_t e1) {
    const uint8x16_t bytes0 = vreinterpretq_u8_u16(e0), bytes1 = vreinterpretq_u8_u16(e1);
    vst1q_u8(at, vuzp2q_u8(bytes0, bytes1));
    vst1q_u8(at + 16, vuzp1q_u8(bytes0, bytes1));
  }

  static void Values(const Pass &pass, const Normaliser *normalisers) {
    InBlocksOfPairs(pass.pairs, [&](auto count, size_t pair) {
      constexpr int kCount = decltype(count)::kValue, kVectors = kCount <= 2 ? 4 : 2;
      for (size_t d = 0; d < pass.args.head_dim; d += 4 * kVectors) ValueBlock<kCount, kVectors>(pass, normalisers, pair, d);
    });
  }
};

}  // namespace

void RunNeonDot(const Args &args) { RunPasses<Engine>(args); }

}  // namespace acorn::attention
