// E of half a tile: 8 high bytes, then 8 low bytes. Products of 2x8 and 8x2 bytes, one operand without sign: keys with their
// offset by the queries of two pairs (a couple), the high and the low bytes of E by values.
#include "kernels/attention/softmax_neon.h"

namespace acorn::attention {
namespace {

inline uint8x16_t ZipLow(uint8x16_t a, uint8x16_t b) {
  return vreinterpretq_u8_u32(vzip1q_u32(vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)));
}
inline uint8x16_t ZipHigh(uint8x16_t a, uint8x16_t b) {
  return vreinterpretq_u8_u32(vzip2q_u32(vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)));
}

/// Interleaves the queries of each couple: of sixteen dimensions, the first eight of both go to the first pair's place. The
/// partner of an odd last pair is one that is never asked for: its place holds anything.
void CoupleQueries(const Pass &pass) {
  for (size_t pair = 0; pair < pass.pairs; pair += 2) {
    int8_t *first = pass.q + pair * pass.q_stride, *second = first + pass.q_stride;
    for (size_t d = 0; d < pass.args.k_dim; d += 16) {
      const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(first + d)), b = vreinterpretq_s64_s8(vld1q_s8(second + d));
      vst1q_s8(first + d, vreinterpretq_s8_s64(vzip1q_s64(a, b)));
      vst1q_s8(second + d, vreinterpretq_s8_s64(vzip2q_s64(a, b)));
    }
  }
}

/// Scores of kCouples couples from `pair` on over a run.
template <int kBits, int kCouples>
ACORN_NOINLINE void ScoreCouples(const Pass &pass, const KeyRun &run, size_t pair) {
  const size_t q_stride = pass.q_stride, score_stride = pass.score_stride, k_dim = pass.args.k_dim;
  const size_t halves = Halves(run);
  const int8_t *queries = pass.q + pair * q_stride;
  uint8_t *out = pass.scores + pair * score_stride + run.tile * kTileScores;
  for (size_t half = 0; half < halves; ++half, out += kHalfScores) {
    const uint8_t *k = run.k + half / 2 * pass.tile_bytes + half % 2 * 32;
    const int8_t *query = queries;
    int32x4_t sum[kCouples][4];  // of two keys: key 0 pair 0, key 0 pair 1, key 1 pair 0, key 1 pair 1
    Unrolled<kCouples>([&](auto c) { Unrolled<4>([&](auto i) { sum[c][i] = vdupq_n_s32(0); }); });
    for (size_t d = 0; d < k_dim; d += 16, query += 16, k += 2 * kBits * kTileRows) {
      Unrolled<2>([&](auto eight) {
        constexpr int kLow = 2 * eight, kHigh = kLow + 1;  // quads
        const uint8x16_t low0 = LoadKeys<kBits, kLow>(k), low1 = LoadKeys<kBits, kLow>(k + 16);  // four keys, four dimensions
        const uint8x16_t high0 = LoadKeys<kBits, kHigh>(k), high1 = LoadKeys<kBits, kHigh>(k + 16);
        const uint8x16_t key[4] = {ZipLow(low0, high0), ZipHigh(low0, high0), ZipLow(low1, high1), ZipHigh(low1, high1)};
        Unrolled<kCouples>([&](auto c) {
          const int8x16_t q = vld1q_s8(query + (2 * c + eight) * q_stride);
          Unrolled<4>([&](auto i) { sum[c][i] = vusmmlaq_s32(sum[c][i], key[i], q); });
        });
      });
    }
    Unrolled<kCouples>([&](auto c) {
      uint8_t *to = out + 2 * c * score_stride;
      vst1q_u8(to, vreinterpretq_u8_s32(vuzp1q_s32(sum[c][0], sum[c][1])));
      vst1q_u8(to + 16, vreinterpretq_u8_s32(vuzp1q_s32(sum[c][2], sum[c][3])));
      vst1q_u8(to + score_stride, vreinterpretq_u8_s32(vuzp2q_s32(sum[c][0], sum[c][1])));
      vst1q_u8(to + score_stride + 16, vreinterpretq_u8_s32(vuzp2q_s32(sum[c][2], sum[c][3])));
    });
  }
}

/// The outputs of a pair from sums of the bytes of E times values: high, high, low, low.
struct Output {
  Output() = default;
  Output(const Normaliser &normaliser, int32_t zero_point)
      : high_factor(vdup_n_s32(128 * static_cast<int32_t>(normaliser.multiplier))),  // below 2^31
        low_factor(vdupq_n_s32(static_cast<int32_t>(normaliser.multiplier))),
        finish(normaliser, zero_point) {}

  /// (256 * high + low) * multiplier, below 2^63.
  ACORN_INLINE int64x2_t Product(int32x4_t sum) const {
    return vmlal_high_s32(vqdmull_s32(vget_low_s32(sum), high_factor), sum, low_factor);
  }

  int32x2_t high_factor;
  int32x4_t low_factor;
  Finish finish;
};

/// Sums of E times V for kPairCount pairs, 4 * kVectors values of a head at a time, and their normalised output.
template <int kBits, int kPairCount, int kVectors>
ACORN_NOINLINE void ValuePairs(const Pass &pass, const Output *outputs, size_t pair) {
  const size_t v_dim = pass.args.v_dim, score_stride = pass.score_stride;
  const size_t row_bytes = pass.tile_bytes / 4;  // of four cache rows
  for (size_t d = 0; d < v_dim; d += 4 * kVectors) {
    const size_t fours = d % 16 / 4;  // of sixteen values, before d
    int32x4_t sum[kPairCount][2 * kVectors];  // of two values: high, high, low, low
    Unrolled<kPairCount>([&](auto p) { Unrolled<2 * kVectors>([&](auto i) { sum[p][i] = vdupq_n_s32(0); }); });
    for (size_t run = 0; run < pass.run_count; ++run) {
      const uint8_t *e = pass.scores + pair * score_stride + pass.runs[run].tile * kTileScores;
      const int8_t *v = pass.runs[run].v + d / 16 * 8 * kBits;
      const size_t halves = Halves(pass.runs[run]);
      for (size_t half = 0; half < halves; ++half, e += kHalfScores, v += 2 * row_bytes) {
        int8x16_t value[2 * kVectors];  // eight keys, two values
        Unrolled<kVectors>([&](auto i) {
          const uint8x16_t first = vreinterpretq_u8_s8(LoadValues<kBits>(v, fours + i));  // four keys, four values
          const uint8x16_t second = vreinterpretq_u8_s8(LoadValues<kBits>(v + row_bytes, fours + i));
          value[2 * i] = vreinterpretq_s8_u8(ZipLow(first, second));
          value[2 * i + 1] = vreinterpretq_s8_u8(ZipHigh(first, second));
        });
        Unrolled<kPairCount>([&](auto p) {
          const uint8x16_t bytes = vld1q_u8(e + p * score_stride);
          Unrolled<2 * kVectors>([&](auto i) { sum[p][i] = vusmmlaq_s32(sum[p][i], bytes, value[i]); });
        });
      }
    }
    Unrolled<kPairCount>([&](auto p) {
      Unrolled<kVectors / 2>([&](auto i) {
        const int32x4_t *eight = sum[p] + 4 * i;
        const Output &output = outputs[pair + p];
        StoreOutputs(pass, output.finish, pair + p, d + 8 * i, output.Product(eight[0]), output.Product(eight[1]),
                     output.Product(eight[2]), output.Product(eight[3]));
      });
    });
  }
}

template <int kBits>
struct Engine {
  static constexpr bool kWholeVectors = true;
  static constexpr int32_t kKeyOffset = kBits == 8 ? 128 : kv_cache::kNibbleOffset;

  static void Queries(const Pass &pass) { CoupleQueries(pass); }

  static void Scores(const Pass &pass, const KeyRun &run) {
    InBlocksOfPairs((pass.pairs + 1) / 2, [&](auto couples, size_t couple) { ScoreCouples<kBits, couples>(pass, run, 2 * couple); });
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

void RunI8mm(const Args &args) { RunEngine<Engine>(args); }
void ScorePartI8mm(const Args &args) { ScorePart<Engine>(args); }
void ValuePartI8mm(const Args &args) { ValuePart<Engine>(args); }

}  // namespace acorn::attention
