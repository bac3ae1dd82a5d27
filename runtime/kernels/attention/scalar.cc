#include "base/fixed_point.h"
#include "kernels/attention/kernel.h"

namespace acorn::attention {
namespace {

/// score[j] for one query over keys [0, keys), padded to whole tiles, all shifted by the same amount: the cache holds key + 128.
void Scores(int32_t *score, const int8_t *q, const Args &args, size_t keys) {
  const uint8_t *k = args.k;
  for (size_t begin = 0; begin < keys; begin += kv_cache::kTileRows) {
    int32_t sum[kv_cache::kTileRows] = {};
    for (size_t d = 0; d < args.head_dim; d += 2) {  // head_dim is even, and d and d + 1 lie side by side
      const uint8_t *pair = k + kv_cache::KeyOffset(0, d, args.head_dim);
      for (size_t row = 0; row < kv_cache::kTileRows; ++row) sum[row] += q[d] * pair[4 * row] + q[d + 1] * pair[4 * row + 1];
    }
    for (size_t row = 0; row < kv_cache::kTileRows; ++row) score[begin + row] = sum[row];
    k += kv_cache::kTileRows * kv_cache::PaddedDim(args.head_dim);
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
void WeightedValues(int64_t *num, const int32_t *e, const Args &args, size_t keys, size_t begin) {
  for (size_t d = 0; d < kDims; ++d) num[d] = 0;
  for (size_t j = 0; j < keys; ++j) {
    const int8_t *v = args.v + kv_cache::ValueOffset(j, begin, args.head_dim);  // d and d + 1 lie 4 apart
    for (size_t d = 0; d < kDims; ++d) num[d] += e[j] * v[4 * d];
  }
}

}  // namespace

void RunScalar(const Args &args) {
  int32_t *e = reinterpret_cast<int32_t *>(args.scratch);  // [keys], scores at first
  for (size_t row = 0; row < args.m; ++row) {
    const size_t keys = args.first_position + row + 1;
    for (size_t head = 0; head < args.heads; ++head) {
      Scores(e, args.q + row * args.q_stride + head * args.head_dim, args, keys);
      const uint64_t den = Exponentials(e, keys, args.exp_multiplier[head], args.exp_shift);
      const Normaliser normaliser = Normalise(den, args.out_multiplier[head], args.out_shift);
      int8_t *y = args.y + row * args.y_stride + head * args.head_dim;
      for (size_t begin = 0; begin < args.head_dim; begin += kDims) {
        int64_t num[kDims];
        WeightedValues(num, e, args, keys, begin);
        const size_t dims = args.head_dim - begin < kDims ? args.head_dim - begin : kDims;
        for (size_t d = 0; d < dims; ++d) {
          y[begin + d] = SaturateS8(RoundShift(num[d] * normaliser.multiplier, normaliser.shift) + args.zero_point);
        }
      }
    }
  }
}

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
