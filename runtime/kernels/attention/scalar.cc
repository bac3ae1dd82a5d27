#include "base/fixed_point.h"
#include "kernels/attention/kernel.h"

namespace acorn::attention {
namespace {

/// score[j] for one query over keys [0, keys), all shifted by the same amount: the cache holds key + 128.
void Scores(int32_t *score, const int8_t *q, const Args &args, size_t keys) {
  const size_t tile_bytes = kv_cache::kTileRows * kv_cache::PaddedDim(args.head_dim);
  for (size_t begin = 0; begin < keys; begin += kv_cache::kTileRows) {
    const uint8_t *tile = args.k + begin / kv_cache::kTileRows * tile_bytes;
    const size_t rows = keys - begin < kv_cache::kTileRows ? keys - begin : kv_cache::kTileRows;
    for (size_t row = 0; row < rows; ++row) {
      int32_t sum = 0;
      for (size_t d = 0; d < args.head_dim; ++d) sum += q[d] * tile[kv_cache::KeyOffset(row, d, args.head_dim)];
      score[begin + row] = sum;
    }
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
      for (size_t d = 0; d < args.head_dim; ++d) {
        int64_t num = 0;
        for (size_t j = 0; j < keys; ++j) num += int64_t{e[j]} * args.v[kv_cache::ValueOffset(j, d, args.head_dim)];
        y[d] = SaturateS8(RoundShift(num * normaliser.multiplier, normaliser.shift) + args.zero_point);
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
  return {static_cast<int64_t>(multiplier), out_shift + b - 8};
}

}  // namespace acorn::attention
