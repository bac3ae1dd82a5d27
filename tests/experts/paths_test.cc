// Statistics of which experts follow which.
#include "experts/paths.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

namespace acorn {
namespace {

struct alignas(Arena::kAlignment) Line {
  uint8_t bytes[Arena::kAlignment];
};

class OpenPaths {
 public:
  OpenPaths(uint32_t layers, uint32_t experts) {
    Arena counting;
    paths.Open(&counting, layers, experts);
    bytes = counting.used();
    lines_ = std::make_unique<Line[]>(bytes / sizeof(Line) + 1);
    Arena arena(lines_[0].bytes);
    paths.Open(&arena, layers, experts);
  }
  void Saw(uint32_t layer, const std::vector<uint32_t> &experts) { paths.Saw(layer, {experts.data(), experts.size()}); }
  std::vector<uint32_t> Likely(uint32_t layer, size_t most) const {
    std::vector<uint32_t> experts(most);
    experts.resize(paths.Likely(layer, {experts.data(), most}));
    return experts;
  }

  ExpertPaths paths;
  uint64_t bytes = 0;

 private:
  std::unique_ptr<Line[]> lines_;
};

using Experts = std::vector<uint32_t>;

TEST(ExpertPaths, NameWhatHasFollowedMostOftenFirst) {
  OpenPaths open(3, 8);
  EXPECT_EQ(open.Likely(0, 4), Experts());
  for (const Experts &last : {Experts{5, 6}, Experts{6, 7}, Experts{6, 5}}) {
    open.Saw(0, {1, 2});
    open.Saw(1, {3, 0});
    open.Saw(2, last);
  }
  open.Saw(0, {1, 4});  // the second expert is not part of the key
  open.Saw(1, {3, 7});
  EXPECT_EQ(open.Likely(2, 4), (Experts{6, 5, 7}));
  EXPECT_EQ(open.Likely(2, 2), (Experts{6, 5}));
  EXPECT_EQ(open.Likely(2, 1), (Experts{6}));
  open.Saw(2, {0});
  open.Saw(0, {1});
  open.Saw(1, {2});
  EXPECT_EQ(open.Likely(2, 4), Experts()) << "a path that was never walked";
}

TEST(ExpertPaths, LeadOnToTheNextToken) {
  OpenPaths open(2, 4);
  for (int token = 0; token < 3; ++token) {
    open.Saw(0, {1});
    open.Saw(1, {2});
  }
  EXPECT_EQ(open.Likely(0, 4), (Experts{1}));
}

// However many pairs come, the tables stay as they are, and what comes again and again gets a row.
TEST(ExpertPaths, ManyPairsShareFewRows) {
  constexpr uint32_t kExperts = 128;
  OpenPaths open(2, kExperts);
  EXPECT_LT(open.bytes, uint64_t{2} * ExpertPaths::kMostPaths * (kExperts + 16));
  std::mt19937 generator(1);
  const auto random = [&] { return static_cast<uint32_t>(generator()); };
  for (int token = 0; token < 20000; ++token) {
    open.Saw(0, {random() % kExperts});
    open.Saw(1, {random() % kExperts});
  }
  int known = 0;
  for (int token = 0; token < 200; ++token) {
    const uint32_t place = random() % 8;  // of few paths
    open.Saw(0, {17 * place % kExperts});
    open.Saw(1, {5 * place % kExperts});
    const Experts likely = open.Likely(0, 4);
    EXPECT_TRUE(std::all_of(likely.begin(), likely.end(), [&](uint32_t expert) { return expert < kExperts; }));
    if (token >= 100) known += likely.empty() ? 0 : 1;
  }
  EXPECT_GT(known, 60);
}

// Counts of a byte are halved together before one of them is full.
TEST(ExpertPaths, LongRunsKeepTheOrder) {
  OpenPaths open(1, 4);
  for (int token = 0; token < 3000; ++token) open.Saw(0, token % 3 == 0 ? Experts{0, 2} : Experts{0, 1});
  EXPECT_EQ(open.Likely(0, 4), (Experts{0, 1, 2}));
}

}  // namespace
}  // namespace acorn
