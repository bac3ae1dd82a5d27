#include "base/fixed_point.h"
#include "kernels/attention/kernel.h"
#include "kernels/inline.h"

namespace acorn::attention {
namespace {

using kv_cache::kTileRows;

/// What one query sees: sinks, in rows [0, sinks) of the cache, and keys [first, last) of the ring behind them. Scores of whole tiles
/// stand one behind the other: those of the sinks, then those of the ring from key `begin` on.
struct View {
  View(const Args &args, size_t row)
      : sinks(args.sinks),
        sink_rows(kv_cache::PaddedRows(args.sinks)),
        last(args.first_key + row + 1),
        first(last > args.window ? last - args.window : 0),
        begin(first / kTileRows * kTileRows) {}

  /// The row of the cache that score j belongs to.
  size_t RowOf(const Args &args, size_t j) const {
    return j < sink_rows ? j : sink_rows + (args.first_slot + begin + j - sink_rows) % args.ring_rows;
  }

  /// body(j) for the scores of all keys that are seen.
  template <typename Body>
  void ForSeen(const Body &body) const {
    for (size_t j = 0; j < sinks; ++j) body(j);
    for (size_t j = sink_rows + first - begin; j < sink_rows + last - begin; ++j) body(j);
  }

  size_t sinks, sink_rows, last, first, begin;
};

/// The scores of a tile of keys with one query, all shifted by the same amount: keys have an offset, so by kKeyOffset times the sum of
/// the query.
template <int kBits>
constexpr int32_t kKeyOffset = kBits == 8 ? 128 : kv_cache::kNibbleOffset;
template <int kBits>
void ScoreTile(int32_t *score, const int8_t *q, const Args &args, const uint8_t *k) {
  for (size_t row = 0; row < kTileRows; ++row) score[row] = 0;
  for (size_t d = 0; d < args.k_dim; d += 2) {  // k_dim is even, and d and d + 1 lie side by side
    if constexpr (kBits == 8) {
      const uint8_t *pair = k + kv_cache::KeyOffset(0, d, args.head_dim);
      for (size_t row = 0; row < kTileRows; ++row) score[row] += q[d] * pair[4 * row] + q[d + 1] * pair[4 * row + 1];
    } else {
      const kv_cache::NibblePlace place = kv_cache::KeyNibble(0, d, args.head_dim);
      const uint8_t *pair = k + place.byte;
      for (size_t row = 0; row < kTileRows; ++row) {
        score[row] += q[d] * (pair[4 * row] >> place.shift & 15) + q[d + 1] * (pair[4 * row + 1] >> place.shift & 15);
      }
    }
  }
}

template <int kBits>
ACORN_NOINLINE void Scores(int32_t *score, const int8_t *q, const int8_t *sink_q, const Args &args, const View &view) {
  const size_t tile_bytes = kv_cache::HeadBytes(kTileRows, args.head_dim, kBits);
  for (size_t j = 0; j < view.sink_rows + view.last - view.begin; j += kTileRows) {
    const uint8_t *k = args.k + view.RowOf(args, j) / kTileRows * tile_bytes;
    ScoreTile<kBits>(score + j, j < view.sink_rows ? sink_q : q, args, k);
  }
  int32_t difference = 0;
  for (size_t d = 0; d < args.k_dim; ++d) difference += kKeyOffset<kBits> * (q[d] - sink_q[d]);
  for (size_t j = 0; j < view.sinks; ++j) score[j] += difference;
}

/// Turns scores into E; returns their sum.
ACORN_NOINLINE uint64_t Exponentials(int32_t *score, const View &view, int64_t multiplier, int shift) {
  int32_t max = INT32_MIN;
  view.ForSeen([&](size_t j) { max = score[j] > max ? score[j] : max; });
  uint64_t den = 0;
  view.ForSeen([&](size_t j) {
    const uint32_t e = Exp2(static_cast<uint64_t>(RoundShift((int64_t{max} - score[j]) * multiplier, shift)));
    score[j] = static_cast<int32_t>(e);
    den += e;
  });
  return den;
}

/// num[d] for d in [begin, begin + kDims).
constexpr size_t kDims = 16;
template <int kBits>
ACORN_NOINLINE void WeightedValues(int64_t *num, const int32_t *e, const Args &args, const View &view, size_t begin) {
  for (size_t d = 0; d < kDims; ++d) num[d] = 0;
  view.ForSeen([&](size_t j) {
    const size_t row = view.RowOf(args, j);
    if constexpr (kBits == 8) {
      const int8_t *v = args.v + kv_cache::ValueOffset(row, begin, args.head_dim);  // d and d + 1 lie 4 apart
      for (size_t d = 0; d < kDims; ++d) num[d] += e[j] * v[4 * d];
    } else {
      const int8_t *v = args.v + kv_cache::ValueNibble(row, begin, args.head_dim).byte;
      for (size_t d = 0; d < kDims / 2; ++d) {
        num[d] += e[j] * ((v[4 * d] & 15) - kv_cache::kNibbleOffset);
        num[d + kDims / 2] += e[j] * ((v[4 * d] >> 4 & 15) - kv_cache::kNibbleOffset);
      }
    }
  });
}

template <int kBits>
void RunBits(const Args &args) {
  int32_t *e = reinterpret_cast<int32_t *>(args.scratch);  // scores at first
  for (size_t row = 0; row < args.m; ++row) {
    const View view(args, row);
    for (size_t head = 0; head < args.heads; ++head) {
      const int8_t *q = args.q + row * args.q_stride + head * args.k_dim;
      const int8_t *sink_q = args.sink_q == nullptr ? q : args.sink_q + row * args.sink_q_stride + head * args.k_dim;
      Scores<kBits>(e, q, sink_q, args, view);
      const uint64_t den = Exponentials(e, view, args.exp_multiplier[head], args.exp_shift);
      const Normaliser normaliser = Normalise(den, args.out_multiplier[head], args.out_shift);
      int8_t *y = args.y + row * args.y_stride + head * args.run;
      for (size_t begin = 0; begin < args.v_dim; begin += kDims) {
        int64_t num[kDims];
        WeightedValues<kBits>(num, e, args, view, begin);
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

void Join(const Args &args) {
  const Part &part = *args.part;
  const size_t pairs = args.m * args.heads, num_stride = kv_cache::PaddedDim(args.v_dim);
  for (size_t pair = 0; pair < pairs; ++pair) {
    uint64_t den = part.den[pair];
    for (size_t i = 1; i < part.count; ++i) den += part.den[i * pairs + pair];
    const size_t row = pair / args.heads, head = pair % args.heads;
    const Normaliser normaliser = Normalise(den, args.out_multiplier[head], args.out_shift);
    int8_t *y = args.y + row * args.y_stride + head * args.run;
    for (size_t begin = 0; begin < args.v_dim; begin += args.run, y += args.run_step) {
      for (size_t d = 0; d < args.run; ++d) {
        int64_t num = 0;
        for (size_t i = 0; i < part.count; ++i) num += part.num[(i * pairs + pair) * num_stride + begin + d];
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
  // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): the largest E is not 0
  const uint64_t multiplier = (static_cast<uint64_t>(out_multiplier) << (b - 8)) / den;
  return {static_cast<int64_t>(multiplier), out_shift + b - 8, den};
}

}  // namespace acorn::attention
