// append and attention: rows written to a cache by append, then every variant of attention on this machine against the
// formula in 128-bit arithmetic over the plain keys and values, on exact buffers. Calls that can be split into parts of keys
// give the same outputs in parts.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/append/kernel.h"
#include "kernels/attention/kernel.h"
#include "tests/support/formula.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

using test::GuardedBuffer;

/// docs/ARITHMETIC.md §7, exp2.
uint64_t Exp2Formula(uint64_t t) {
  const uint64_t i = t >> 15, f = t & 32767;
  if (i > 16) return 0;
  const uint64_t p = 65535 - ((f * (45332 - ((f * (15162 - ((f * 2598) >> 15))) >> 15))) >> 15);
  return i == 0 ? p : static_cast<uint64_t>(test::Rs(static_cast<test::Wide>(p), static_cast<int>(i)));
}

TEST(Exp2, IsTheFormulaAndNearTheRealNumber) {
  for (uint64_t t = 0; t < 20 * 32768; ++t) {
    ASSERT_EQ(attention::Exp2(t), Exp2Formula(t)) << t;
    const double exact = 65535 * std::exp2(-static_cast<double>(t) / 32768);
    ASSERT_NEAR(attention::Exp2(t), exact, 7) << t;
  }
  EXPECT_EQ(attention::Exp2(uint64_t{1} << 62), 0u);
}

// kAlike: every key is the same, so softmax is flat.  kSteps: those of a tile are, and from one of eight levels to the next are some
// octaves
enum class Scores { kAny, kAlike, kExtreme, kSteps };

struct Problem {
  size_t rows, kv_heads, heads_per_kv, head_dim;  // rows: of the cache that are written
  size_t m;                                       // the last m rows are queries
  Scores scores;
  int32_t exp_multiplier, exp_shift, out_shift, zero_point;
  size_t used_k = 0, used_v = 0, used_run = 0;  // the first dimensions, and how many outputs lie side by side; 0: all
  size_t sinks = 0, window = 0;  // of the rows the first ones, and of the others how many newest a query sees; 0: all
  size_t tokens() const { return rows - sinks; }
  size_t ring_rows() const { return kv_cache::TokenRowsOf({sinks, UINT64_MAX, m}, window).count; }
  size_t k_dim() const { return used_k == 0 ? head_dim : used_k; }
  size_t v_dim() const { return used_v == 0 ? head_dim : used_v; }
  size_t run() const { return used_run == 0 ? v_dim() : used_run; }
  size_t run_step() const { return heads_per_kv * run() + 2; }  // two of other KV heads
  size_t y_width() const { return (v_dim() / run() - 1) * run_step() + heads_per_kv * run(); }
};

/// A cache of one layer and what went into it.
struct Layer {
  Layer(const Problem &p, size_t width_bits)
      : width(p.kv_heads * p.head_dim),
        capacity(p.window == 0 ? p.rows + 5 : kv_cache::PaddedRows(p.sinks) + p.ring_rows()),
        bits(width_bits),
        k(p.rows * width),
        v(p.rows * width),
        k_cache(kv_cache::CacheBytes(capacity, p.kv_heads, p.head_dim, bits)),
        v_cache(k_cache.size()) {
    test::Corners corners(p.rows * 31 + p.head_dim);
    const int limit = bits == 4 ? 7 : 127;
    for (int8_t &b : k) b = static_cast<int8_t>(corners.Signed(limit));
    for (int8_t &b : v) b = static_cast<int8_t>(corners.Signed(limit));
    if (p.scores == Scores::kAlike) {
      for (size_t i = width; i < k.size(); ++i) k[i] = k[i - width];
    }
    if (p.scores == Scores::kExtreme) {
      for (int8_t &b : k) b = static_cast<int8_t>(b < 0 ? -limit : limit);
      for (int8_t &b : v) b = static_cast<int8_t>(limit);
    }
    for (size_t i = 0; p.scores == Scores::kSteps && i < k.size(); ++i) {
      k[i] = static_cast<int8_t>(limit - static_cast<int>(i / width / kv_cache::kTileRows * 5 % 8));
    }
    for (uint8_t &b : k_cache) b = 0xa5;  // what was never written must not matter
    for (int8_t &b : v_cache) b = -77;
    const size_t side_by_side = p.window == 0 ? p.rows : p.sinks;
    if (side_by_side != 0) Append(p, 0, 0, side_by_side);
    for (size_t t = 0; p.window != 0 && t < p.tokens(); ++t) Append(p, kv_cache::PaddedRows(p.sinks) + t % p.ring_rows(), p.sinks + t, 1);
  }
  /// Rows of k and v from `from` on to rows of the cache.
  void Append(const Problem &p, size_t to, size_t from, size_t rows) {
    append::Select(test::HostFeatures())
        ->copy({k_cache.data(), v_cache.data(), capacity, to, rows, p.kv_heads, p.head_dim, p.head_dim, p.head_dim, bits,
                k.data() + from * width, v.data() + from * width, width, width, nullptr, 0});
  }
  size_t width, capacity, bits;
  std::vector<int8_t> k, v;  // [rows, kv_heads, head_dim]
  GuardedBuffer<uint8_t> k_cache;
  GuardedBuffer<int8_t> v_cache;
};

/// The rows that the one at `position` sees.
std::vector<size_t> SeenRows(const Problem &p, size_t position) {
  std::vector<size_t> rows;
  for (size_t j = 0; j <= position; ++j) {
    if (p.window == 0 || j < p.sinks || position - j < p.window) rows.push_back(j);
  }
  return rows;
}

int64_t Num(const std::vector<uint64_t> &e, const std::vector<size_t> &seen, const Layer &layer, size_t column) {
  int64_t num = 0;
  for (size_t j = 0; j < e.size(); ++j) num += static_cast<int64_t>(e[j]) * layer.v[seen[j] * layer.width + column];
  return num;
}

void CheckRow(const Problem &p, const Layer &layer, const int8_t *q, const int8_t *sink_q, const int8_t *y, size_t position,
              size_t kv_head, const attention::Args &args) {
  const std::vector<size_t> seen = SeenRows(p, position);
  for (size_t head = 0; head < p.heads_per_kv; ++head, q += p.k_dim(), sink_q += p.k_dim(), y += p.run()) {
    std::vector<int64_t> score;
    int64_t max = INT64_MIN;
    for (const size_t j : seen) {
      const int8_t *query = j < p.sinks ? sink_q : q;
      int64_t sum = 0;
      for (size_t d = 0; d < p.k_dim(); ++d) sum += query[d] * layer.k[j * layer.width + kv_head * p.head_dim + d];
      score.push_back(sum);
      max = std::max(max, sum);
    }
    std::vector<uint64_t> e;
    uint64_t den = 0;
    for (int64_t s : score) {
      e.push_back(Exp2Formula(static_cast<uint64_t>(test::Rs(test::Wide{max - s} * args.exp_multiplier[head], p.exp_shift))));
      den += e.back();
    }
    int bits = 0;
    while ((den >> bits) != 0) ++bits;
    const test::Wide r = (test::Wide{args.out_multiplier[head]} << (bits - 8)) / static_cast<test::Wide>(den);
    for (size_t d = 0; d < p.v_dim(); ++d) {
      const test::Wide num = Num(e, seen, layer, kv_head * p.head_dim + d);
      ASSERT_EQ(y[d / p.run() * p.run_step() + d % p.run()], test::Sat8(test::Rs(num * r, p.out_shift + bits - 8) + p.zero_point))
          << "position " << position << " head " << head << " d " << d;
    }
  }
}

/// A call in parts of `part_keys` keys: all scores, then all values, the last part first.
void RunInParts(const attention::Kernel &kernel, attention::Args args, size_t part_keys) {
  const size_t keys = args.first_key + args.m, pairs = args.m * args.heads, count = (keys + part_keys - 1) / part_keys;
  GuardedBuffer<uint8_t> scores(attention::PartScoreBytes(pairs, keys));
  GuardedBuffer<int8_t> queries(attention::QueryBytes(args.head_dim));
  GuardedBuffer<int32_t> largest(count * pairs);
  GuardedBuffer<uint64_t> den(count * pairs);
  GuardedBuffer<int64_t> num(count * pairs * kv_cache::PaddedDim(args.v_dim));
  attention::Part part = {0, count, 0, 0, queries.data(), largest.data(), den.data(), num.data()};
  args.scratch = scores.data();
  args.part = &part;
  for (const attention::Run run : {kernel.score_part, kernel.value_part}) {
    for (part.index = count; part.index-- > 0;) {
      part.begin = part.index * part_keys;
      part.end = std::min(part.begin + part_keys, keys);
      run(args);
    }
  }
  part.index = 0;
  attention::Join(args);
}

void CheckParts(const attention::Kernel &kernel, const attention::Args &args, GuardedBuffer<int8_t> *y) {
  const std::vector<int8_t> whole(y->begin(), y->end());
  const size_t keys = args.first_key + args.m;
  for (size_t part_keys : {16, 48, 64, 1040, 32768}) {
    if (part_keys < keys / 64 || part_keys / 2 > keys) continue;
    SCOPED_TRACE(testing::Message() << "part_keys=" << part_keys);
    for (int8_t &b : *y) b = 99;
    RunInParts(kernel, args, part_keys);
    for (size_t i = 0; i < whole.size(); ++i) ASSERT_EQ((*y)[i], whole[i]) << i;
  }
}

void Check(const attention::Kernel &kernel, const Problem &p, const Layer &layer) {
  SCOPED_TRACE(testing::Message() << kernel.name << " rows=" << p.rows << " m=" << p.m << " heads=" << p.heads_per_kv
                                  << " head_dim=" << p.head_dim << " k_dim=" << p.k_dim() << " v_dim=" << p.v_dim()
                                  << " run=" << p.run() << " sinks=" << p.sinks << " window=" << p.window
                                  << " bits=" << layer.bits << " exp " << p.exp_multiplier
                                  << '/' << p.exp_shift);
  test::Corners corners(p.rows + p.m);
  const size_t q_width = p.heads_per_kv * p.k_dim(), q_stride = q_width + 3, y_stride = p.y_width() + 1;
  GuardedBuffer<int8_t> q((p.m - 1) * q_stride + q_width), y((p.m - 1) * y_stride + p.y_width());
  GuardedBuffer<int32_t> exp_multiplier(p.heads_per_kv), out_multiplier(p.heads_per_kv);
  GuardedBuffer<int8_t> sink_q(q.size() + p.m - 1);  // of another stride
  for (int8_t &b : q) b = static_cast<int8_t>(p.scores == Scores::kExtreme || p.scores == Scores::kSteps ? 127 : corners.Signed(127));
  for (int8_t &b : sink_q) b = static_cast<int8_t>(corners.Signed(127));
  for (int32_t &v : exp_multiplier) v = static_cast<int32_t>(p.exp_multiplier - p.exp_multiplier / 3 * corners.Between(0, 1));
  for (int32_t &v : out_multiplier) v = static_cast<int32_t>(corners.Between(1 << 30, 2147483647));
  const size_t first_token = p.tokens() - p.m;  // of the queries
  const size_t oldest = p.window == 0 || first_token < p.window ? 0 : first_token - p.window + 1;
  const size_t first = oldest / kv_cache::kTileRows * kv_cache::kTileRows;
  const size_t ring_rows = p.window == 0 ? kv_cache::PaddedRows(layer.capacity) : p.ring_rows();
  const size_t first_key = p.window == 0 ? p.rows - p.m : first_token - first;
  const bool turned = p.sinks % 2 != 0;  // else sinks see the queries as they are
  GuardedBuffer<uint8_t> scratch(attention::ScratchBytes(attention::KeyRows(p.sinks, first_key + p.m), p.head_dim));
  for (size_t kv_head = 0; kv_head < p.kv_heads; ++kv_head) {
    for (int8_t &b : y) b = 99;
    const size_t block = kv_head * kv_cache::HeadBytes(layer.capacity, p.head_dim, layer.bits);
    const attention::Args args = {y.data(),
                                  q.data(),
                                  y_stride,
                                  q_stride,
                                  p.m,
                                  p.heads_per_kv,
                                  p.head_dim,
                                  p.k_dim(),
                                  p.v_dim(),
                                  p.run(),
                                  p.run_step(),
                                  layer.bits,
                                  p.sinks,
                                  first % ring_rows,
                                  ring_rows,
                                  first_key,
                                  p.window == 0 ? attention::kNoWindow : p.window,
                                  turned ? sink_q.data() : nullptr,
                                  turned ? q_stride + 1 : 0,
                                  layer.k_cache.data() + block,
                                  layer.v_cache.data() + block,
                                  exp_multiplier.data(),
                                  out_multiplier.data(),
                                  p.exp_shift,
                                  p.out_shift,
                                  p.zero_point,
                                  scratch.data()};
    kernel.run(args);
    for (size_t row = 0; row < p.m; ++row) {
      const int8_t *query = q.data() + row * q_stride, *sink_query = turned ? sink_q.data() + row * (q_stride + 1) : query;
      CheckRow(p, layer, query, sink_query, y.data() + row * y_stride, p.rows - p.m + row, kv_head, args);
    }
    for (size_t i = 0; i < y.size(); ++i) {
      const size_t column = i % y_stride;
      if (column >= p.y_width() || column % p.run_step() >= p.heads_per_kv * p.run()) {
        ASSERT_EQ(y[i], 99) << "between runs or rows, at " << i;
      }
    }
    const bool is_plain = p.window == 0 && p.sinks == 0 && p.m * p.heads_per_kv <= attention::kPairs;
    if (is_plain && kernel.score_part != nullptr) CheckParts(kernel, args, &y);
  }
}

void CheckAll(const Problem &p) {
  const uint32_t features = test::HostFeatures();
  for (size_t bits : {8, 4}) {
    const Layer layer(p, bits);
    for (const attention::Kernel &kernel : attention::Kernels()) {
      if ((kernel.needs & ~features) == 0) Check(kernel, p, layer);
    }
  }
}

TEST(Attention, Shapes) {
  for (size_t head_dim : {2, 4, 6, 8, 16, 18, 30, 32, 48, 62, 64, 66, 80, 96, 128}) {
    for (size_t rows : {1, 2, 3, 4, 15, 16, 17, 63, 64, 65, 131}) {
      CheckAll({rows, 2, 3, head_dim, 1, Scores::kAny, 1 << 20, 20, 30, 0});
    }
  }
}

// The first dimensions of a wider cache, at and around the edges of vectors, and outputs in runs.
TEST(Attention, NarrowerHeads) {
  struct Narrow {
    size_t head_dim, k_dim, v_dim, run;
  };
  constexpr Narrow kNarrow[] = {{64, 48, 64, 0},   {64, 64, 48, 0},  {64, 16, 32, 0},  {64, 32, 16, 16}, {64, 48, 48, 16},
                                {64, 34, 30, 0},   {64, 64, 64, 4},  {64, 2, 2, 1},    {32, 18, 24, 8},  {80, 48, 64, 32},
                                {96, 80, 72, 24},  {128, 112, 80, 16}, {128, 66, 40, 20}, {18, 16, 18, 9}, {16, 16, 16, 16},
                                {34, 32, 34, 2},   {256, 160, 208, 208}};
  for (const Narrow &n : kNarrow) {
    for (size_t heads : {1, 2, 3, 9}) {
      for (size_t rows : {1, 17, 66}) {
        CheckAll({rows, 2, heads, n.head_dim, 1, Scores::kAny, 1 << 20, 20, 30, 5, n.k_dim, n.v_dim, n.run});
        if (rows == 66) CheckAll({rows, 1, heads, n.head_dim, 5, Scores::kExtreme, 1 << 20, 21, 31, -7, n.k_dim, n.v_dim, n.run});
      }
    }
  }
}

TEST(Attention, BlocksOfRows) {
  for (size_t heads : {1, 2, 3, 4, 5, 7, 8, 9}) {
    for (size_t m : {1, 2, 3, 5, 16, 17}) {
      CheckAll({m, 1, heads, 64, m, Scores::kAny, 1 << 20, 19, 30, -3});        // from the first position
      CheckAll({m + 45, 1, heads, 32, m, Scores::kAny, 1 << 20, 21, 31, 100});  // behind others
    }
  }
}

TEST(Attention, Scales) {
  for (Scores scores : {Scores::kAny, Scores::kAlike, Scores::kExtreme}) {
    for (int32_t multiplier : {0, 1, 3, 1 << 15, 1 << 30, 2147483647}) {
      for (int32_t shift : {1, 10, 20, 31, 32, 33, 43, 44, 62}) CheckAll({70, 1, 3, 64, 6, scores, multiplier, shift, 24, 0});
    }
    for (int32_t out_shift : {1, 20, 38}) CheckAll({40, 1, 2, 32, 3, scores, 1 << 20, 20, out_shift, -127});
  }
}

// E of whole tiles without high bytes, and of whole tiles that do not count at all.
TEST(Attention, TilesFarBelowTheLargestScore) {
  for (size_t heads : {1, 2, 3, 4, 5, 8, 9}) {
    for (size_t head_dim : {48, 64, 128}) {
      for (size_t m : {1, 2, 5, 9}) CheckAll({549, 1, heads, head_dim, m, Scores::kSteps, 1 << 24, 20, 30, 0});
    }
    Problem p = {17 + 1300, 1, heads, 64, 9, Scores::kSteps, 1 << 24, 20, 30, 0};  // sinks, and a ring that has turned
    p.sinks = 17, p.window = 600;
    CheckAll(p);
  }
}

// Windows at and around the edges of tiles and chunks, before and after the ring has turned, with sinks and without.
TEST(Attention, Windows) {
  for (size_t window : {1, 2, 15, 16, 17, 33}) {
    for (size_t m : {1, 2, 16}) {
      for (size_t sinks : {0, 1, 2, 17}) {
        for (size_t tokens : {m, m + 1, m + 14, m + 32, m + 61, 5 * window + m, 8 * window + m + 7}) {
          Problem p = {sinks + tokens, 1, 3, 32, m, Scores::kAny, 1 << 20, 20, 30, 5};
          p.sinks = sinks, p.window = window;
          CheckAll(p);
        }
      }
    }
  }
}

TEST(Attention, WindowsOfNarrowerHeads) {
  for (size_t heads : {1, 2, 8, 9}) {
    for (size_t tokens : {7, 40, 177}) {
      Problem p = {3 + tokens, 2, heads, 80, 5, Scores::kExtreme, 1 << 20, 21, 31, -7, 48, 64, 32};
      p.sinks = 3, p.window = 21;
      CheckAll(p);
    }
  }
}

// Keys outside of the window neither weigh nor raise the largest score.
TEST(Attention, WindowsOfEveryScale) {
  for (int32_t multiplier : {0, 1, 1 << 30, 2147483647}) {
    for (int32_t shift : {1, 31, 62}) {
      Problem p = {1 + 90, 1, 3, 64, 6, Scores::kAny, multiplier, shift, 24, 0};
      p.sinks = 1, p.window = 20;
      CheckAll(p);
    }
  }
}

// Rows that see nothing of the last part, every number of pairs, odd ones too.
TEST(Attention, BlocksOfRowsInParts) {
  for (size_t heads : {1, 2, 3, 4, 7, 8}) {
    for (size_t m = 1; m * heads <= attention::kPairs; ++m) {
      for (size_t rows : {m + 1, size_t{32}, size_t{33}, size_t{50}, size_t{129}}) {
        CheckAll({std::max(rows, m), 2, heads, 48, m, Scores::kAny, 1 << 20, 20, 30, 7, 40, 36, 12});
      }
    }
  }
}

// Scores of one part far below those of another.
TEST(Attention, ScalesInParts) {
  for (Scores scores : {Scores::kAny, Scores::kAlike, Scores::kExtreme}) {
    for (int32_t multiplier : {0, 1, 1 << 15, 2147483647}) {
      for (int32_t shift : {1, 20, 32, 62}) CheckAll({70, 1, 3, 64, 2, scores, multiplier, shift, 24, 0});
    }
  }
}

TEST(Attention, OnlyScalarIsWhole) {
  for (const attention::Kernel &kernel : attention::Kernels()) {
    EXPECT_EQ(kernel.score_part == nullptr, kernel.needs == 0) << kernel.name;
    EXPECT_EQ(kernel.value_part == nullptr, kernel.needs == 0) << kernel.name;
  }
}

TEST(Attention, LongContexts) {
  CheckAll({3001, 1, 3, 64, 2, Scores::kAny, 1 << 16, 22, 30, 0});
  // The largest cache: sums at their bounds.
  CheckAll({kv_cache::kMaxRows, 1, 2, 16, 1, Scores::kAlike, 1 << 16, 20, 30, 0});
  CheckAll({kv_cache::kMaxRows, 1, 1, 4, 1, Scores::kExtreme, 1 << 16, 62, 30, 0});
  // The widest window that sinks leave.
  Problem p = {kv_cache::kMaxRows + 100, 1, 1, 4, 1, Scores::kExtreme, 1 << 16, 62, 30, 0};
  p.sinks = 64, p.window = kv_cache::kMaxRows - 64;
  CheckAll(p);
}

#if defined(__aarch64__)
TEST(AttentionSelect, FollowsFeatures) {
  EXPECT_STREQ(attention::Select(0)->name, "scalar");
  EXPECT_STREQ(attention::Select(kFeatureNeon)->name, "neon");
  EXPECT_STREQ(attention::Select(kFeatureNeon | kFeatureI8mm)->name, "neon");  // i8mm is compiled with sdot
  EXPECT_STREQ(attention::Select(kFeatureNeon | kFeatureNeonDot)->name, "neondot");
  EXPECT_STREQ(attention::Select(kFeatureNeon | kFeatureNeonDot | kFeatureI8mm)->name, "i8mm");
}
#endif

}  // namespace
}  // namespace acorn
