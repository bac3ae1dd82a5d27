// The router's dials: who is dropped, who is preferred, what that does to weights. The plain router is compared with the
// independent reference in tests/reference and tests/session.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

#include "ops/route.h"
#include "tests/reference/reference_arithmetic.h"
#include "tests/support/packed_weight.h"

namespace acorn::test {
namespace {

// 1 unit of a logit is 2^-10 natural units.
constexpr int32_t kOctaves = 94548;  // 2^26 * log2(e) / 2^10

ExpertsOp Op(uint32_t top_k, Scoring scoring) {
  ExpertsOp op = {};
  op.top_k = top_k;
  op.scoring = scoring;
  op.octaves = {kOctaves << 10, 10};
  return op;
}

struct Cache {
  std::set<uint32_t> there;
  ExpertSource source() {
    ExpertSource source = {};
    source.ctx = this;
    source.is_there = [](void *ctx, uint32_t, uint32_t expert) { return static_cast<Cache *>(ctx)->there.count(expert) != 0; };
    return source;
  }
};

std::vector<int32_t> RandomLogits(Random *random, size_t experts) {
  std::vector<int32_t> logits(experts);
  for (int32_t &logit : logits) logit = static_cast<int32_t>(random->Between(-4000, 4000) / 500 * 500);  // ties
  return logits;
}

TEST(Route, EqualsTheReference) {
  Random random(5);
  for (int run = 0; run < 500; ++run) {
    const auto experts = static_cast<size_t>(random.Between(1, 70));
    const auto top_k = static_cast<uint32_t>(random.Between(1, static_cast<int64_t>(experts)));
    const auto scoring = static_cast<Scoring>(random.Between(1, 4));
    const ExpertsOp op = Op(top_k, scoring);
    const std::vector<int32_t> logits = RandomLogits(&random, experts);
    std::vector<Route> routes(top_k);
    RouteToken(routes.data(), logits.data(), experts, op);
    const auto expected =
        reference::Route(logits, top_k, static_cast<uint32_t>(scoring), {op.octaves.multiplier, op.octaves.shift});
    for (size_t i = 0; i < top_k; ++i) {
      EXPECT_EQ(routes[i].expert, expected[i].expert);
      EXPECT_EQ(routes[i].weight, expected[i].weight);
    }
    // Dials that are off change nothing.
    Cache cache;
    std::vector<Route> again(top_k);
    RouteWithDials(again.data(), logits.data(), experts, op, {0, 0}, cache.source());
    for (size_t i = 0; i < top_k; ++i) {
      EXPECT_EQ(routes[i].expert, again[i].expert);
      EXPECT_EQ(routes[i].weight, again[i].weight);
    }
  }
}

TEST(Route, DropsTheLeastAndKeepsTheSum) {
  Random random(6);
  Cache cache;
  for (int run = 0; run < 500; ++run) {
    const ExpertsOp op = Op(8, Scoring::kSoftmaxOfChosen);
    const std::vector<int32_t> logits = RandomLogits(&random, 32);
    std::vector<Route> all(8), some(8);
    RouteToken(all.data(), logits.data(), 32, op);
    const auto drop = static_cast<uint32_t>(random.Between(1, 32768));
    RouteWithDials(some.data(), logits.data(), 32, op, {drop, 0}, cache.source());
    const auto kept = static_cast<size_t>(std::find_if(some.begin(), some.end(), [](const Route &r) { return r.expert == kNoExpert; }) - some.begin());
    ASSERT_GE(kept, 1u);
    uint64_t whole = 0, dropped = 0;
    int64_t sum = 0;
    for (size_t i = 0; i < 8; ++i) {
      whole += all[i].weight;
      if (i >= kept) dropped += all[i].weight;
      EXPECT_EQ(some[i].expert, i < kept ? all[i].expert : kNoExpert);
      if (i >= kept) {
        EXPECT_EQ(some[i].weight, 0);
      }
      sum += some[i].weight;
    }
    EXPECT_LE(dropped << 15, whole * drop);
    if (kept > 1) {
      EXPECT_GT((dropped + all[kept - 1].weight) << 15, whole * drop);
    }
    EXPECT_NEAR(static_cast<double>(sum), static_cast<double>(whole), 8);
  }
}

TEST(Route, PrefersWhatIsThereButNeverOverTheLikeliest) {
  Random random(7);
  for (int run = 0; run < 500; ++run) {
    const ExpertsOp op = Op(4, Scoring::kSoftmaxOfChosen);
    const std::vector<int32_t> logits = RandomLogits(&random, 16);
    Cache cache;
    for (int i = 0; i < 6; ++i) cache.there.insert(static_cast<uint32_t>(random.Between(0, 15)));
    std::vector<Route> plain(4), much(4);
    RouteToken(plain.data(), logits.data(), 16, op);
    RouteWithDials(much.data(), logits.data(), 16, op, {0, 65536}, cache.source());
    EXPECT_EQ(much[0].expert, plain[0].expert);
    // A bonus of the whole range: nobody outside is chosen while somebody inside is left.
    size_t inside = 0;
    for (size_t i = 1; i < 4; ++i) inside += cache.there.count(much[i].expert);
    const size_t possible = cache.there.size() - cache.there.count(much[0].expert);
    bool tie = false;  // the lowest that is there and the highest that is not may be equal with the bonus
    for (size_t i = 1; i < 4; ++i) tie = tie || logits[much[i].expert] == *std::max_element(logits.begin(), logits.end());
    if (!tie) {
      EXPECT_GE(inside, std::min<size_t>(3, possible));
    }
    for (size_t i = 1; i < 4; ++i) EXPECT_LE(much[i].weight, much[i - 1].weight);
    // A small one: only near ties change.
    RouteWithDials(much.data(), logits.data(), 16, op, {0, 1}, cache.source());
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(logits[much[i].expert], logits[plain[i].expert]);
    // Where one is chosen, it is the likeliest.
    RouteWithDials(much.data(), logits.data(), 16, Op(1, Scoring::kSoftmaxOfAll), {0, 65536}, cache.source());
    EXPECT_EQ(much[0].expert, plain[0].expert);
  }
}

}  // namespace
}  // namespace acorn::test
