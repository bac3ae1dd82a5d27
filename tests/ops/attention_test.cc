// Attention of few rows over many keys: with threads that KV heads alone would leave without work, the keys are split, within the
// scratch that the plan gives, and every output is as one thread computes it.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "ops/op.h"
#include "tests/support/formula.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn::test {
namespace {

constexpr size_t kKeys = 1600;

std::atomic<int> parts_scored{0};
const attention::Kernel *best = nullptr;

void CountedScorePart(const attention::Args &args) {
  ++parts_scored;
  best->score_part(args);
}

void RunOnThreads(void *ctx, Parallel::Task task, void *arg, uint32_t count) {
  std::atomic<uint32_t> next{0};
  std::vector<std::thread> threads;
  for (uint32_t thread = 0; thread < *static_cast<uint32_t *>(ctx); ++thread) {
    threads.emplace_back([&, thread] {
      for (uint32_t i; (i = next.fetch_add(1)) < count;) task(arg, i, thread);
    });
  }
  for (std::thread &thread : threads) thread.join();
}

/// One layer's attention over a cache of kKeys rows of which the last m are queries.
class Layer {
 public:
  Layer(uint32_t kv_heads, uint32_t heads, uint32_t bits, size_t m)
      : m_(m),
        width_(heads * kDim + kRest),
        cache_{kv_heads, kDim, bits, 0, nullptr, nullptr},
        k_(kv_cache::CacheBytes(kKeys, kv_heads, kDim, bits)),
        v_(k_.size()),
        q_(m * width_),
        exp_multipliers_(heads, 1 << 20),
        out_multipliers_(heads, (1 << 30) + 12345) {
    Corners corners(heads * 100 + m);
    for (uint8_t &b : k_) b = static_cast<uint8_t>(corners.Between(1, 255));
    for (int8_t &b : v_) b = static_cast<int8_t>(corners.Signed(127));
    for (int8_t &b : q_) b = static_cast<int8_t>(corners.Signed(127));
    op_.q = {0, 0, heads * kDim};
    op_.out = {1, 0, static_cast<uint32_t>(width_)};
    op_.k_dim = op_.v_dim = op_.run = kDim;
    op_.heads = heads;
    op_.exp_multipliers = exp_multipliers_.data();
    op_.exp_shift = 24;
    op_.out_multipliers = out_multipliers_.data();
    op_.out_shift = 30;
    op_.zero_point = 3;
  }

  std::vector<int8_t> Run(const attention::Kernel &kernel, uint32_t threads, Stop *stop = nullptr) {
    std::vector<int8_t> y(m_ * width_, 99);
    const kv_cache::Extent extent = {0, kKeys, m_};
    KernelSet kernels = {};
    kernels.attention = &kernel;
    Graph graph = {};
    graph.caches = {&cache_, 1};
    const CachePlace place = {k_.data(), v_.data()};
    const Place values[] = {{reinterpret_cast<uint8_t *>(q_.data()), width_}, {reinterpret_cast<uint8_t *>(y.data()), width_}};
    const OpNeeds needs = Needs(op_, cache_, {&kernels, threads, m_, extent});
    GuardedBuffer<uint8_t> scratch(threads * needs.thread_bytes);
    RunContext context = {};
    context.graph = &graph;
    context.kernels = &kernels;
    context.parallel = {&threads, &RunOnThreads, threads};
    context.values = values;
    context.caches = &place;
    context.thread_scratch = scratch.data();
    context.thread_scratch_bytes = needs.thread_bytes;
    context.extent = extent;
    context.stop = stop;
    context.m = m_;
    context.first_token = kKeys - m_;
    acorn::Run(op_, context);
    return y;
  }

 private:
  static constexpr uint32_t kDim = 64, kRest = 5;

  size_t m_, width_;
  Cache cache_;
  GuardedBuffer<uint8_t> k_;
  GuardedBuffer<int8_t> v_;
  std::vector<int8_t> q_;
  std::vector<int32_t> exp_multipliers_, out_multipliers_;
  AttentionOp op_ = {};
};

struct Shape {
  uint32_t kv_heads, heads;
  size_t m;
  uint32_t threads;
  int parts;  // of all KV heads; 0: not split
};

constexpr Shape kShapes[] = {
    {3, 9, 1, 2, 6},   {3, 9, 2, 2, 0},  // pairs 3 and 6: scores of 18 do not fit the scratch of two threads
    {3, 9, 1, 3, 0},   {3, 9, 1, 4, 12}, {1, 4, 1, 2, 2}, {1, 4, 2, 3, 3}, {1, 8, 1, 8, 5}, {1, 9, 1, 2, 0},
    {4, 4, 1, 2, 0},   {5, 5, 1, 2, 10}, {2, 14, 1, 3, 6}, {8, 32, 1, 3, 0},
};

TEST(AttentionOp, SplitsKeysForThreads) {
  best = attention::Select(HostFeatures());
  attention::Kernel counted = *best;
  if (counted.score_part == nullptr) GTEST_SKIP() << "no variant that can be split";
  counted.score_part = &CountedScorePart;
  for (const Shape &s : kShapes) {
    for (const uint32_t bits : {8, 4}) {
      SCOPED_TRACE(testing::Message() << s.heads << " heads of " << s.kv_heads << ", m=" << s.m << ", threads=" << s.threads);
      Layer layer(s.kv_heads, s.heads, bits, s.m);
      const std::vector<int8_t> alone = layer.Run(attention::Kernels()[attention::Kernels().size() - 1], 1);
      parts_scored = 0;
      EXPECT_EQ(layer.Run(counted, s.threads), alone);
      EXPECT_EQ(parts_scored, s.parts);
    }
  }
}

TEST(AttentionOp, AStoppedSplitEnds) {
  const attention::Kernel *kernel = attention::Select(HostFeatures());
  Layer layer(3, 9, 8, 1);
  Stop stop;
  stop.Ask(Stop::kCancel);
  layer.Run(*kernel, 2, &stop);
  EXPECT_EQ(stop.Take(), Status::kCancelled);
  const std::vector<int8_t> alone = layer.Run(*kernel, 1);
  EXPECT_EQ(layer.Run(*kernel, 2, &stop), alone);
}

}  // namespace
}  // namespace acorn::test
