// Bits by expert: what is measured, and who gets fewer under a budget.
#include "quantize/expert_bits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/parallel.h"
#include "base/progress.h"
#include "graph/float_model.h"
#include "quantize/trials.h"
#include "tests/compiler/expect_error.h"
#include "tests/support/shared_data.h"

namespace acorn::compiler {
namespace {

[[maybe_unused]] const bool kSilent = (Progress::Silence(), true);

class ExpertBits : public testing::Test {
 protected:
  void SetUp() override {
    ACORN_NEED_SHARED("models/tiny/qwen2_moe");
    source_ = OpenSourceModel(test::SharedPath("models/tiny/qwen2_moe"));
    windows_.window = 64;
    uint32_t state = 1;
    for (int i = 0; i < 12 * 64; ++i) {
      state = state * 1664525u + 1013904223u;
      windows_.ids.push_back(static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(source_->config().vocab)));
    }
    options_.prefix_tokens = std::vector<int32_t>();
  }
  void TearDown() override { SetThreadCount(0); }

  ExpertChoice Choose(ExpertRanking ranking, const ExpertBudget &budget, uint64_t seed = 1) {
    return ChooseExpertBits(*source_, windows_, options_, ranking, budget, seed);
  }
  static std::vector<double> All(const ExpertChoice &choice) {
    std::vector<double> all;
    for (const auto &layer : choice.importance) all.insert(all.end(), layer.begin(), layer.end());
    return all;
  }

  std::unique_ptr<SourceModel> source_;
  CalibrationWindows windows_;
  RecipeOptions options_;
};

TEST(BitsOfExpert, CountsMultipliersAndScales) {
  // [256, 256] three times: a scale of 32 bits for each channel is an eighth of a bit a weight.
  EXPECT_DOUBLE_EQ(BitsOfExpert(WeightFormat::kW2G32, 256, 256), 2.25 + 0.125);
  EXPECT_DOUBLE_EQ(BitsOfExpert(WeightFormat::kW4G32, 256, 256), 4.25 + 0.125);
  EXPECT_DOUBLE_EQ(BitsOfExpert(WeightFormat::kW4, 256, 256), 4.125);
  // Without whole groups a depth of 48 gets 8 bits: down's.
  EXPECT_DOUBLE_EQ(BitsOfExpert(WeightFormat::kW2G32, 64, 48),
                   (2 * (48 * 64 * 2.25 + 48 * 32) + 64 * 48 * 8 + 64 * 32) / (3 * 64 * 48));
}

TEST_F(ExpertBits, EveryRankingKeepsToItsBudgetOfBits) {
  const double most = 3.5;
  std::set<std::vector<WeightFormat>> different;
  for (const ExpertRanking ranking :
       {ExpertRanking::kImportance, ExpertRanking::kLoss, ExpertRanking::kUsage, ExpertRanking::kRandom}) {
    const ExpertChoice choice = Choose(ranking, {most, 0});
    ASSERT_EQ(choice.formats.size(), 3u);
    EXPECT_EQ(choice.experts, 24);
    const int64_t ffn = ExpertShapeOf(source_->config(), options_).padded;
    const double low = BitsOfExpert(WeightFormat::kW2G32, 64, ffn), high = BitsOfExpert(WeightFormat::kW4G32, 64, ffn);
    int64_t lowered = 0;
    double dearest = 0, cheapest = INFINITY;  // of those in 2 bits, of the others
    std::vector<WeightFormat> formats;
    for (size_t layer = 0; layer < 3; ++layer) {
      for (size_t e = 0; e < 8; ++e) {
        const bool two = choice.formats[layer][e] == WeightFormat::kW2G32;
        formats.push_back(choice.formats[layer][e]);
        lowered += two ? 1 : 0;
        if (two) dearest = std::max(dearest, choice.importance[layer][e]);
        if (!two) cheapest = std::min(cheapest, choice.importance[layer][e]);
      }
    }
    different.insert(formats);
    EXPECT_EQ(lowered, choice.lowered);
    EXPECT_LE(dearest, cheapest);
    EXPECT_NEAR(choice.bits, (low * static_cast<double>(lowered) + high * static_cast<double>(24 - lowered)) / 24, 1e-12);
    EXPECT_LE(choice.bits, most);
    EXPECT_GT(choice.bits, most - (high - low) / 24 - 1e-12) << "one fewer would have done";
  }
  EXPECT_GT(different.size(), 2u);
}

TEST_F(ExpertBits, LossesAreMeasuredAndSharedOut) {
  const ExpertChoice each = Choose(ExpertRanking::kImportance, {0, 1e9}), shared = Choose(ExpertRanking::kLoss, {0, 1e9});
  EXPECT_EQ(each.lowered, 24) << "any loss is allowed";
  EXPECT_DOUBLE_EQ(each.loss_of_all, shared.loss_of_all);
  EXPECT_NEAR(each.loss, each.loss_of_all, 1e-9 + 1e-6 * each.loss_of_all) << "estimates add up to what all were measured at";
  EXPECT_NEAR(shared.loss, shared.loss_of_all, 1e-9 + 1e-6 * shared.loss_of_all);
  // The cheaper way sees the same: ranks agree far better than by chance.
  const std::vector<double> a = All(each), b = All(shared);
  int agree = 0, pairs = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      agree += (a[i] < a[j]) == (b[i] < b[j]) ? 1 : 0;
      ++pairs;
    }
  }
  EXPECT_GT(agree, 0.75 * pairs);
}

TEST_F(ExpertBits, ALossInBetweenLowersSome) {
  const double all = Choose(ExpertRanking::kLoss, {0, 1e9}).loss_of_all;
  const ExpertChoice choice = Choose(ExpertRanking::kLoss, {0, std::expm1(all / 2)});
  EXPECT_GT(choice.lowered, 0);
  EXPECT_LT(choice.lowered, 24);
  EXPECT_LE(choice.loss, all / 2);
}

TEST_F(ExpertBits, TheSameOnAnyThreads) {
  SetThreadCount(1);
  const ExpertChoice one = Choose(ExpertRanking::kImportance, {3.5, 0});
  SetThreadCount(3);
  const ExpertChoice three = Choose(ExpertRanking::kImportance, {3.5, 0});
  EXPECT_EQ(one.importance, three.importance);
  EXPECT_EQ(one.formats, three.formats);
}

/// Tokens of each expert of each layer, in the float model.
class CountTokens : public LayerObserver {
 public:
  void OnEdge(Edge, int64_t, int64_t, MatrixRef) override {}
  void OnExpertEdge(Edge edge, int64_t layer, int64_t expert, const std::vector<int64_t> &tokens, MatrixRef) override {
    if (edge == Edge::kDownOut && expert != kSharedExpert) count[layer][expert] += static_cast<double>(tokens.size());
  }
  std::map<int64_t, std::map<int64_t, double>> count;
};

// Trials run on weights that conversion has transformed: what is measured is the source's own routing all the same.
TEST(ExpertBitsOfHybrids, ExpertsSeeTheTokensOfTheSource) {
  const auto source = OpenSourceModel(test::DataPath("small_granite_h"));
  const ModelConfig &config = source->config();
  CalibrationWindows windows;
  windows.window = 64;
  uint32_t state = 1;
  for (int i = 0; i < 12 * 64; ++i) {
    state = state * 1664525u + 1013904223u;
    windows.ids.push_back(static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(config.vocab)));
  }
  windows.prefix_candidates = {1, 2};
  const ExpertChoice choice = ChooseExpertBits(*source, windows, {}, ExpertRanking::kUsage, {4, 0}, 1);
  EXPECT_EQ(choice.prefix_tokens, std::vector<int32_t>()) << "a session starts from states of zero";

  const SearchTokens tokens = ChooseSearchTokens(windows, 8, config.layers, config.hidden);
  Matrix x = Embed(*source, tokens.trial);
  CountTokens seen;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    RunLayer(config, LoadLayer(*source, layer), layer, x, EvenBoundaries(x.rows(), tokens.trial_window),
             MakeRopeTable(config, tokens.trial_window), nullptr, &seen);
  }
  const double few = 0.01 * static_cast<double>(x.rows());  // whose logits are nearly equal
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for (int64_t e = 0; e < config.experts; ++e) {
      EXPECT_NEAR(choice.importance[static_cast<size_t>(layer)][static_cast<size_t>(e)], seen.count[layer][e], few)
          << "layer " << layer << ", expert " << e;
    }
  }
}

TEST_F(ExpertBits, RefusesFewerBitsThanTwoAndMoreThanFour) {
  EXPECT_ERROR(Choose(ExpertRanking::kRandom, {2.0, 0}), ExitCode::kUsage, "--expert-budget: 2 bits are less than the ");
  EXPECT_ERROR(Choose(ExpertRanking::kRandom, {6, 0}), ExitCode::kUsage, "--expert-budget: 6 bits are more than the ");
  EXPECT_ERROR(Choose(ExpertRanking::kImportance, {6, 0}), ExitCode::kUsage, "that experts of 4 bits take");
  const double most = BitsOfExpert(WeightFormat::kW4G32, 64, ExpertShapeOf(source_->config(), options_).padded);
  EXPECT_EQ(Choose(ExpertRanking::kRandom, {most, 0}).lowered, 0);
}

}  // namespace
}  // namespace acorn::compiler
