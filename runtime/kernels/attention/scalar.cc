#include "base/fixed_point.h"
#include "kernels/attention/kernel.h"

namespace acorn::attention {
namespace {

/// score[j] for one query over keys [0, keys), padded to whole tiles, all shifted by the same amount: keys have an offset.
template <int kBits>
void Scores(int32_t *score, const int8_t *q, const Args &args, size_t keys) {
  const uint8_t *k = args.k;
  for (size_t begin = 0; begin < keys; begin += kv_cache::kTileRows) {
    int32_t sum[kv_cache::kTileRows] = {};
    for (size_t d = 0; d < args.k_dim; d += 2) {  // k_dim is even, and d and d + 1 lie side by side
      if constexpr (kBits == 8) {
        const uint8_t *pair = k + kv_cache::KeyOffset(0, d, args.head_dim);
        for (size_t row = 0; row < kv_cache::kTileRows; ++row) sum[row] += q[d] * pair[4 * row] + q[d + 1] * pair[4 * row + 1];
      } else {
        const kv_cache::NibblePlace place = kv_cache::KeyNibble(0, d, args.head_dim);
        const uint8_t *pair = k + place.byte;
        for (size_t row = 0; row < kv_cache::kTileRows; ++row) {
          sum[row] += q[d] * (pair[4 * row] >> place.shift & 15) + q[d + 1] * (pair[4 * row + 1] >> place.shift & 15);
        }
      }
    }
    for (size_t row = 0; row < kv_cache::kTileRows; ++row) score[begin + row] = sum[row];
    k += kv_cache::HeadBytes(kv_cache::kTileRows, args.head_dim, kBits);
  }
}

/// Turns scores into E; returns their sum.
uint64_t Exponentials(int32_t *score, size_t keys, int64_t multiplier, int shift) {
  int32_t max = score[0];
  for (size_t j = 1; j < keys; ++j) max = score[j] > max ? score[j] : max;
  uint64_t den = 0;
  for (size_t j = 0; j < keys; ++j) {
    const uint32_t e = Exp2(static_cast<uint64_t>(RoundShift((int64_t{max} - score[j]) * multiplier, shift)));
    score[j] = static_cast<int32_t>(e);
    den += e;
  }
  return den;
}

/// num[d] for d in [begin, begin + kDims).
constexpr size_t kDims = 16;
template <int kBits>
void WeightedValues(int64_t *num, const int32_t *e, const Args &args, size_t keys, size_t begin) {
  for (size_t d = 0; d < kDims; ++d) num[d] = 0;
  for (size_t j = 0; j < keys; ++j) {
    if constexpr (kBits == 8) {
      const int8_t *v = args.v + kv_cache::ValueOffset(j, begin, args.head_dim);  // d and d + 1 lie 4 apart
      for (size_t d = 0; d < kDims; ++d) num[d] += e[j] * v[4 * d];
    } else {
      const int8_t *v = args.v + kv_cache::ValueNibble(j, begin, args.head_dim).byte;
      for (size_t d = 0; d < kDims / 2; ++d) {
        num[d] += e[j] * ((v[4 * d] & 15) - kv_cache::kNibbleOffset);
        num[d + kDims / 2] += e[j] * ((v[4 * d] >> 4 & 15) - kv_cache::kNibbleOffset);
      }
    }
  }
}

template <int kBits>
void RunBits(const Args &args) {
  int32_t *e = reinterpret_cast<int32_t *>(args.scratch);  // [keys], scores at first
  for (size_t row = 0; row < args.m; ++row) {
    const size_t keys = args.first_position + row + 1;
    for (size_t head = 0; head < args.heads; ++head) {
      Scores<kBits>(e, args.q + row * args.q_stride + head * args.k_dim, args, keys);
      const uint64_t den = Exponentials(e, keys, args.exp_multiplier[head], args.exp_shift);
      const Normaliser normaliser = Normalise(den, args.out_multiplier[head], args.out_shift);
      int8_t *y = args.y + row * args.y_stride + head * args.run;
      for (size_t begin = 0; begin < args.v_dim; begin += kDims) {
        int64_t num[kDims];
        WeightedValues<kBits>(num, e, args, keys, begin);
        const size_t dims = args.v_dim - begin < kDims ? args.v_dim - begin : kDims;
        for (size_t d = 0; d < dims; ++d) {
          int8_t &out = y[(begin + d) / args.run * args.run_step + (begin + d) % args.run];
          out = SaturateS8(RoundShift(num[d] * normaliser.multiplier, normaliser.shift) + args.zero_point);
        }
      }
    }
  }
}

}  // namespace

void RunScalar(const Args &args) { args.bits == 8 ? RunBits<8>(args) : RunBits<4>(args); }

uint32_t Exp2(uint64_t t) {
  const uint64_t i = t >> 15;
  if (i > 16) return 0;
  const uint32_t f = t & 32767;
  const uint32_t p = 65535 - ((f * (45332 - ((f * (15162 - ((f * 2598) >> 15))) >> 15))) >> 15);
  return i == 0 ? p : static_cast<uint32_t>(RoundShift(p, static_cast<int>(i)));
}

Normaliser Normalise(uint64_t den, int32_t out_multiplier, int32_t out_shift) {
  const int b = BitLength(den);
  const uint64_t multiplier = (static_cast<uint64_t>(out_multiplier) << (b - 8)) / den;
  return {static_cast<int64_t>(multiplier), out_shift + b - 8, den};
}

}  // namespace acorn::attention
