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
  /// A weight's, of an expert of the model.
  double Bits(WeightFormat format) const { return BitsOfExpert(format, 64, ExpertShapeOf(source_->config(), options_).padded); }
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

constexpr ExpertRanking kRankings[] = {ExpertRanking::kImportance, ExpertRanking::kLoss, ExpertRanking::kUsage,
                                       ExpertRanking::kRandom};

TEST(StepsDown, CheapestBitsFirst) {
  const auto expert = [](double four, double two) {
    return std::vector<ExpertPoint>{{WeightFormat::kW8, 8, 0}, {WeightFormat::kW4G32, 4, four}, {WeightFormat::kW2G32, 2, two}};
  };
  // Prices: 1 then 10; 2 then 3; 3 at once, since 4 bits alone cost 5 a bit; nothing is saved by 4 bits, then 1.5.
  std::vector<std::vector<ExpertPoint>> experts = {expert(4, 24), expert(8, 14), expert(20, 18), expert(7, 9)};
  experts[3][1].bits = 8;
  const std::vector<ExpertStep> steps = StepsDown(experts);
  const std::vector<std::vector<size_t>> wanted = {{0, 0, 1}, {3, 0, 2}, {1, 0, 1}, {1, 1, 2}, {2, 0, 2}, {0, 1, 2}};
  ASSERT_EQ(steps.size(), wanted.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    EXPECT_EQ((std::vector<size_t>{steps[i].expert, steps[i].from, steps[i].to}), wanted[i]) << i;
    const auto &points = experts[steps[i].expert];
    EXPECT_DOUBLE_EQ(steps[i].loss, points[steps[i].to].loss - points[steps[i].from].loss);
    EXPECT_DOUBLE_EQ(steps[i].price, steps[i].loss / (points[steps[i].from].bits - points[steps[i].to].bits));
  }
}

// Depths without whole groups have 8 bits whatever is chosen.
TEST(StepsDown, NothingSavedIsNoStep) {
  EXPECT_TRUE(StepsDown({{{WeightFormat::kW8, 8, 0}, {WeightFormat::kW4G32, 8, 0}, {WeightFormat::kW2G32, 8, 0}}}).empty());
  EXPECT_TRUE(StepsDown({}).empty());
}

TEST_F(ExpertBits, EveryRankingKeepsToItsBudgetOfBits) {
  const double most = 3.5;
  const double low = Bits(WeightFormat::kW2G32), high = Bits(WeightFormat::kW4G32);
  std::set<std::vector<WeightFormat>> different;
  for (const ExpertRanking ranking : kRankings) {
    const ExpertChoice choice = Choose(ranking, {most, 0});
    ASSERT_EQ(choice.formats.size(), 3u);
    EXPECT_EQ(choice.experts, 24);
    int64_t lowered = 0;
    double sum_low = 0, sum_high = 0, dearest = 0, cheapest = INFINITY;
    std::vector<WeightFormat> formats;
    for (size_t layer = 0; layer < 3; ++layer) {
      for (size_t e = 0; e < 8; ++e) {
        const WeightFormat format = choice.formats[layer][e];
        EXPECT_NE(format, WeightFormat::kW8) << "4 bits would do, and slots are as large as the largest expert";
        formats.push_back(format);
        lowered += format == WeightFormat::kW2G32 ? 1 : 0;
        const double importance = choice.importance[layer][e];
        (format == WeightFormat::kW2G32 ? sum_low : sum_high) += importance;
        if (format == WeightFormat::kW2G32) dearest = std::max(dearest, importance);
        if (format != WeightFormat::kW2G32) cheapest = std::min(cheapest, importance);
      }
    }
    different.insert(formats);
    EXPECT_EQ(lowered, choice.in_two);
    EXPECT_EQ(24 - lowered, choice.in_four);
    EXPECT_LT(sum_low / static_cast<double>(lowered), sum_high / static_cast<double>(24 - lowered)) << "those missed least go first";
    // Where losses are measured 4 bits count too.
    if (ranking == ExpertRanking::kUsage || ranking == ExpertRanking::kRandom) {
      EXPECT_LE(dearest, cheapest);
    }
    EXPECT_NEAR(choice.bits, (low * static_cast<double>(lowered) + high * static_cast<double>(24 - lowered)) / 24, 1e-12);
    EXPECT_LE(choice.bits, most);
    EXPECT_GT(choice.bits, most - (high - low) / 24 - 1e-12) << "one fewer would have done";
  }
  EXPECT_GT(different.size(), 2u);
}

TEST_F(ExpertBits, ABudgetAboveFourBitsGivesSomeEight) {
  const double two = Bits(WeightFormat::kW2G32), four = Bits(WeightFormat::kW4G32), eight = Bits(WeightFormat::kW8);
  const double most = 6;
  for (const ExpertRanking ranking : kRankings) {
    const ExpertChoice choice = Choose(ranking, {most, 0});
    std::map<WeightFormat, int64_t> count;
    std::map<WeightFormat, double> sum;
    for (size_t layer = 0; layer < 3; ++layer) {
      for (size_t e = 0; e < 8; ++e) {
        ++count[choice.formats[layer][e]];
        sum[choice.formats[layer][e]] += choice.importance[layer][e];
      }
    }
    EXPECT_EQ(count[WeightFormat::kW2G32], choice.in_two);
    EXPECT_EQ(count[WeightFormat::kW4G32], choice.in_four);
    const auto in_eight = count[WeightFormat::kW8], in_less = 24 - in_eight;
    EXPECT_GT(in_eight, 0);
    EXPECT_GT(in_less, 0);
    const bool measured = ranking == ExpertRanking::kImportance || ranking == ExpertRanking::kLoss;
    EXPECT_EQ(choice.loss > 0, measured);
    EXPECT_LT((sum[WeightFormat::kW2G32] + sum[WeightFormat::kW4G32]) / static_cast<double>(in_less),
              sum[WeightFormat::kW8] / static_cast<double>(in_eight));
    EXPECT_NEAR(choice.bits,
                (two * static_cast<double>(choice.in_two) + four * static_cast<double>(choice.in_four) +
                 eight * static_cast<double>(in_eight)) / 24, 1e-12);
    EXPECT_LE(choice.bits, most);
    EXPECT_GT(choice.bits, most - (eight - two) / 24 - 1e-12) << "one step fewer would have done";
  }
}

TEST_F(ExpertBits, LossesAreMeasuredAndSharedOut) {
  const ExpertChoice each = Choose(ExpertRanking::kImportance, {0, 1e9}), shared = Choose(ExpertRanking::kLoss, {0, 1e9});
  EXPECT_EQ(each.in_two, 24) << "any loss is allowed";
  EXPECT_DOUBLE_EQ(each.loss_of_two, shared.loss_of_two);
  EXPECT_DOUBLE_EQ(each.loss_of_four, shared.loss_of_four);
  EXPECT_LT(each.loss_of_four, 0.3 * each.loss_of_two);
  EXPECT_NEAR(each.loss, each.loss_of_two, 1e-9 + 1e-6 * each.loss_of_two) << "estimates add up to what all were measured at";
  EXPECT_NEAR(shared.loss, shared.loss_of_two, 1e-9 + 1e-6 * shared.loss_of_two);
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
  const ExpertChoice all = Choose(ExpertRanking::kLoss, {0, 1e9});
  const double between = 0.5 * (all.loss_of_four + all.loss_of_two), little = 0.5 * all.loss_of_four;
  const ExpertChoice some = Choose(ExpertRanking::kLoss, {0, std::expm1(between)});
  EXPECT_GT(some.in_two, 0);
  EXPECT_LT(some.in_two, 24);
  EXPECT_EQ(some.in_two + some.in_four, 24) << "all in 4 bits lose less than that";
  EXPECT_LE(some.loss, between);
  EXPECT_GT(some.loss, all.loss_of_four);
  const ExpertChoice few = Choose(ExpertRanking::kLoss, {0, std::expm1(little)});
  EXPECT_LT(few.in_two + few.in_four, 24) << "8 bits are needed";
  EXPECT_GT(few.in_two + few.in_four, 0);
  EXPECT_LE(few.loss, little);
  EXPECT_EQ(Choose(ExpertRanking::kLoss, {0, 1e-12}).bits, Bits(WeightFormat::kW8));
}

// Without groups in 4 bits the FFN is as wide as the source's, with groups in 2 a multiple of 32: the choice is made for that.
TEST_F(ExpertBits, FourBitsAChannel) {
  const WeightFormat channel = WeightFormat::kW4;
  options_.expert_formats.assign(3, std::vector<WeightFormat>(8, channel));
  const int64_t ffn = (source_->config().expert_ffn + 31) / 32 * 32;
  const double two = BitsOfExpert(WeightFormat::kW2G32, 64, ffn), four = BitsOfExpert(channel, 64, ffn);
  const ExpertChoice choice = Choose(ExpertRanking::kLoss, {0.5 * (two + four), 0});
  EXPECT_EQ(choice.in_two + choice.in_four, 24);
  EXPECT_GT(choice.in_two, 0);
  EXPECT_GT(choice.in_four, 0);
  EXPECT_NEAR(choice.bits, (two * static_cast<double>(choice.in_two) + four * static_cast<double>(choice.in_four)) / 24, 1e-12);
  EXPECT_LE(choice.bits, 0.5 * (two + four));
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

TEST_F(ExpertBits, RefusesFewerBitsThanTwoAndMoreThanEight) {
  EXPECT_ERROR(Choose(ExpertRanking::kRandom, {2.0, 0}), ExitCode::kUsage, "--expert-budget: 2 bits are less than the ");
  EXPECT_ERROR(Choose(ExpertRanking::kRandom, {9, 0}), ExitCode::kUsage, "--expert-budget: 9 bits are more than the ");
  EXPECT_ERROR(Choose(ExpertRanking::kImportance, {9, 0}), ExitCode::kUsage, "that experts of 8 bits take");
  EXPECT_EQ(Choose(ExpertRanking::kRandom, {Bits(WeightFormat::kW8), 0}).in_four, 0);
  EXPECT_EQ(Choose(ExpertRanking::kRandom, {Bits(WeightFormat::kW4G32), 0}).in_four, 24);
  EXPECT_EQ(Choose(ExpertRanking::kRandom, {Bits(WeightFormat::kW2G32), 0}).in_two, 24);
}

}  // namespace
}  // namespace acorn::compiler
