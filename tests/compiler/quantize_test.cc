// Grids, GPTQ and ranges against plain double-precision restatements and against their promises.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "quantize/activations.h"
#include "quantize/cached.h"
#include "quantize/calibration.h"
#include "quantize/grid.h"
#include "tests/support/shared_data.h"
#include "tests/support/temp_folder.h"

namespace acorn::compiler {
namespace {

Matrix RandomWeights(int64_t n, int64_t k, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Matrix w(n, k);
  for (int64_t i = 0; i < w.size(); ++i) w.data()[i] = normal(random);
  return w;
}

/// Second moments of inputs whose columns are correlated, as those of real layers are.
Matrix CorrelatedMoments(int64_t k, uint32_t seed) {
  const Matrix mix = RandomWeights(k, k / 4, seed);
  const Matrix noise = RandomWeights(400, k, seed + 1);
  const Matrix x = RandomWeights(400, k / 4, seed + 2) * mix.transpose() + 0.3f * noise;
  Matrix moments;
  AddSecondMoments(&moments, x);
  return moments;
}

constexpr WeightFormat kFormats[] = {WeightFormat::kW8, WeightFormat::kW4, WeightFormat::kW4G32, WeightFormat::kW4G64,
                                     WeightFormat::kW4G128, WeightFormat::kW2G32};

class EveryFormat : public testing::TestWithParam<WeightFormat> {};

void ExpectOnGrid(const QuantizedMatrix &q) {
  const bool two_bits = q.format == WeightFormat::kW2G32;
  const int low = two_bits ? -3 : q.format == WeightFormat::kW8 ? -127 : -8;
  const int high = two_bits ? 3 : q.format == WeightFormat::kW8 ? 127 : 7;
  for (const int8_t w : q.weights) ASSERT_TRUE(w >= low && w <= high && (!two_bits || w % 2 != 0)) << int{w};
  if (!two_bits) {
    for (const uint8_t m : q.multipliers) ASSERT_GE(m, 1);
  }
  for (const double scale : q.scale) ASSERT_GT(scale, 0);
}

TEST_P(EveryFormat, MinMaxRoundingErrsByHalfAStepAtMost) {
  const Matrix w = RandomWeights(9, 256, 1);
  const QuantizedMatrix q = RoundToGrid(w, GetParam(), ScaleRule::kMinMax, {});
  ExpectOnGrid(q);
  for (int64_t n = 0; n < w.rows(); ++n) {
    for (int64_t k = 0; k < w.cols(); ++k) {
      const double step = q.scale[static_cast<size_t>(n)] * q.multiplier(n, k);
      const double value = step * q.weight(n, k);
      const double half = GetParam() == WeightFormat::kW2G32 ? step : 0.5 * step;  // its levels are two steps apart
      ASSERT_LE(std::abs(value - static_cast<double>(w(n, k))), half * (1 + 1e-4)) << n << " " << k;
    }
  }
}

TEST_P(EveryFormat, DequantizeIsTheDefinition) {
  const QuantizedMatrix q = RoundToGrid(RandomWeights(5, 128, 2), GetParam(), ScaleRule::kWeightedMse, {});
  const Matrix back = Dequantize(q);
  for (int64_t n = 0; n < q.n; ++n) {
    for (int64_t k = 0; k < q.k; ++k) {
      const double want = q.scale[static_cast<size_t>(n)] * q.multiplier(n, k) * q.weight(n, k);
      ASSERT_NEAR(static_cast<double>(back(n, k)), want, 1e-5 * (1 + std::abs(want)));
    }
  }
}

TEST_P(EveryFormat, GptqBeatsRoundingOnCorrelatedInputs) {
  const Matrix w = RandomWeights(24, 256, 3);
  const Matrix moments = CorrelatedMoments(256, 4);
  const QuantizedMatrix rounded = RoundToGrid(w, GetParam(), ScaleRule::kWeightedMse, moments.diagonal().transpose());
  const QuantizedMatrix gptq = Gptq(w, GetParam(), FactorHessian(moments, GroupSize(GetParam()), 0.01));
  ExpectOnGrid(gptq);
  EXPECT_LT(RelativeOutputError(w, gptq, moments), 0.6 * RelativeOutputError(w, rounded, moments));
}

TEST_P(EveryFormat, RowsOfZerosStayZero) {
  Matrix w = RandomWeights(3, 128, 5);
  w.row(1).setZero();
  const Matrix moments = CorrelatedMoments(128, 6);
  for (const QuantizedMatrix &q : {RoundToGrid(w, GetParam(), ScaleRule::kMinMax, {}),
                                   Gptq(w, GetParam(), FactorHessian(moments, GroupSize(GetParam()), 0.01))}) {
    EXPECT_EQ(q.AbsoluteSum(1), 0);
    EXPECT_GT(q.scale[1], 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, EveryFormat, testing::ValuesIn(kFormats),
                         [](const testing::TestParamInfo<WeightFormat> &format) { return FormatName(format.param); });

TEST(Gptq, FactorIsThatOfTheDampedInverse) {
  const Matrix moments = CorrelatedMoments(64, 7);
  const GptqFactor factor = FactorHessian(moments, 32, 0.01);
  // U^T U = (H + damping)^-1 in the factor's order, and groups stay whole.
  Eigen::MatrixXd damped(64, 64);
  const double extra = 0.01 * moments.diagonal().cast<double>().mean();
  for (int64_t i = 0; i < 64; ++i) {
    for (int64_t j = 0; j < 64; ++j) {
      damped(i, j) = static_cast<double>(moments(factor.order[static_cast<size_t>(i)], factor.order[static_cast<size_t>(j)]));
    }
    damped(i, i) += extra;
    EXPECT_EQ(factor.order[static_cast<size_t>(i)] / 32, factor.order[static_cast<size_t>(i / 32 * 32)] / 32);
  }
  const Eigen::MatrixXd u = factor.inverse.cast<double>();
  EXPECT_LT((u.transpose() * u * damped - Eigen::MatrixXd::Identity(64, 64)).cwiseAbs().maxCoeff(), 1e-3);
  for (int64_t i = 0; i < 64; ++i) {
    for (int64_t j = 0; j < i; ++j) ASSERT_EQ(u(i, j), 0);
  }
}

TEST(Gptq, WithoutCorrelationItIsRounding) {
  // A diagonal Hessian leaves nothing to spread: each weight goes to its nearest step.
  const Matrix w = RandomWeights(4, 128, 8);
  const Matrix identity = Matrix::Identity(128, 128);
  const QuantizedMatrix q = Gptq(w, WeightFormat::kW8, FactorHessian(identity, 0, 0.01));
  for (int64_t n = 0; n < 4; ++n) {
    const double step = q.scale[static_cast<size_t>(n)];
    for (int64_t k = 0; k < 128; ++k) {
      const double want = std::min(127.0, std::max(-127.0, std::nearbyint(static_cast<double>(w(n, k)) / step)));
      ASSERT_NEAR(
          q.weight(n, k), want,
          std::abs(std::abs(static_cast<double>(w(n, k)) / step - std::floor(std::abs(static_cast<double>(w(n, k)) / step))) -
                   0.5) < 1e-3
              ? 1
              : 0);
    }
  }
}

TEST(Gptq, SurvivesASingularHessian) {
  Matrix moments = Matrix::Zero(64, 64);
  moments(3, 3) = 1;
  const QuantizedMatrix q = Gptq(RandomWeights(4, 64, 9), WeightFormat::kW4G32, FactorHessian(moments, 32, 0.01));
  ExpectOnGrid(q);
  const QuantizedMatrix empty =
      Gptq(RandomWeights(4, 64, 9), WeightFormat::kW4G32, FactorHessian(Matrix::Zero(64, 64), 32, 0.01));
  ExpectOnGrid(empty);
}

TEST(Grid, MultipliersKeepSumsBelowTheAccumulator) {
  for (const int64_t k : {32, 576, 5632, 14336, 65536}) {
    const int64_t m = LargestMultiplier(k);
    EXPECT_GE(m, 1);
    EXPECT_LE(m, 255);
    EXPECT_LT(k * 8 * 127 * m, int64_t{1} << 31) << k;
  }
  EXPECT_EQ(LargestMultiplier(1536), 255);
}

TEST(Activations, SecondMomentsAreThose) {
  const Matrix x = RandomWeights(37, 400, 10);
  Matrix sum;
  AddSecondMoments(&sum, x.topRows(20));
  AddSecondMoments(&sum, x.bottomRows(17));
  const Eigen::MatrixXd want = x.cast<double>().transpose() * x.cast<double>();
  EXPECT_LT((sum.cast<double>() - want).cwiseAbs().maxCoeff(), 1e-3);
}

TEST(Activations, RoundingIsToTheGrid) {
  Matrix x(1, 6);
  x << 0.24f, 0.26f, -0.26f, 100.0f, -100.0f, 0.0f;
  RoundToStep(x, 0.5, 127);
  Matrix want(1, 6);
  want << 0.0f, 0.5f, -0.5f, 63.5f, -63.5f, 0.0f;
  EXPECT_EQ(x, want);
  Matrix heads(1, 4);
  heads << 0.3f, 0.3f, 0.3f, 0.3f;
  RoundHeads(heads, 2, {0.25, 0.1}, 127);
  EXPECT_FLOAT_EQ(heads(0, 0), 0.25f);
  EXPECT_FLOAT_EQ(heads(0, 3), 0.3f);
}

TEST(Activations, BestStepClipsAnOutlierThatCostsResolution) {
  Matrix samples = RandomWeights(256, 32, 11);
  const double ordinary = static_cast<double>(samples.cwiseAbs().maxCoeff());
  samples(7, 5) = 20;
  const double step = BestActivationStep(samples, RandomWeights(48, 32, 12), 20);
  EXPECT_LT(step * 127, 20 * 0.9);
  EXPECT_GT(step * 127, ordinary * 0.5);
  // Without outliers nearly the whole range is kept.
  const Matrix even = Matrix::Random(256, 32);
  EXPECT_GT(BestActivationStep(even, RandomWeights(48, 32, 12), 1.0) * 127, 0.85);
}

double ErrorOf(const Matrix &x, int64_t head_dim, const std::vector<double> &steps) {
  Matrix rounded = x;
  RoundHeads(rounded, head_dim, steps, kNibbleLimit);
  return static_cast<double>((rounded - x).squaredNorm());
}

TEST(Cached, StepsAreTheBestOfEachHead) {
  Matrix x = RandomWeights(300, 16, 13);
  x.rightCols(8) *= 5;
  const std::vector<double> best = BestHeadSteps(x, 8, kNibbleLimit);
  ASSERT_EQ(best.size(), 2u);
  EXPECT_NEAR(best[1] / best[0], 5, 1);
  for (double ratio : {0.5, 0.7, 1.4, 2.0}) {
    EXPECT_LT(ErrorOf(x, 8, best), ErrorOf(x, 8, {best[0] * ratio, best[1]}));
    EXPECT_LT(ErrorOf(x, 8, best), ErrorOf(x, 8, {best[0], best[1] * ratio}));
  }
  EXPECT_GT(BestHeadSteps(Matrix::Zero(4, 8), 8, kNibbleLimit)[0], 0);
}

TEST(Cached, ChannelsShareAStepAfterTheirFactors) {
  Matrix x = RandomWeights(300, 8, 14);
  for (int64_t c = 0; c < 8; ++c) x.col(c) *= std::pow(2.0f, static_cast<float>(c));
  const RowVector factors = ChannelFactors(x, kNibbleLimit);
  double logarithms = 0;
  for (const float factor : factors) logarithms += std::log(static_cast<double>(factor));
  EXPECT_NEAR(logarithms, 0, 1e-4);
  Matrix even = x;
  even.array().rowwise() /= factors.array();
  const std::vector<double> steps = BestHeadSteps(even, 1, kNibbleLimit);
  for (const double step : steps) EXPECT_NEAR(step / steps[0], 1, 0.08);
}

TEST(Cached, PrefixKeysKeepTheirScoresThoughTheyDoNotFit) {
  // Queries with a direction in common, as those that attend to a prefix have; a key of three times the range.
  const Matrix direction = RandomWeights(1, 32, 15);
  const Matrix queries = 0.3f * RandomWeights(400, 32, 16) + Matrix::Ones(400, 1) * direction;
  Matrix keys = RandomWeights(2, 16, 17);
  keys.row(0) *= 5;
  const std::vector<double> steps = {0.5};  // 16 dimensions, two query heads
  const Matrix integers = RoundForQueries(keys, queries, 16, steps, kNibbleLimit);
  for (const float integer : integers.reshaped()) {
    EXPECT_LE(std::abs(integer), 7);
    EXPECT_EQ(integer, std::round(integer));
  }
  Matrix nearest = keys;
  RoundHeads(nearest, 16, steps, kNibbleLimit);
  const auto error = [&](const Matrix &rounded) {
    double sum = 0;
    for (int64_t head : {0, 1}) {
      sum += static_cast<double>((queries.middleCols(16 * head, 16) * (rounded - keys).transpose()).squaredNorm());
    }
    return sum;
  };
  EXPECT_LT(error(0.5f * integers), 0.6 * error(nearest));
}

/// small_olmoe.gguf with a byte-level vocabulary of these texts, and a filler that keeps the data where it was aligned to.
std::string WithVocabulary(const std::vector<std::string> &texts) {
  const auto number = [](uint64_t value, int bytes) {
    std::string out;
    for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 255);
    return out;
  };
  const auto text = [&](const std::string &value) { return number(value.size(), 8) + value; };
  constexpr uint32_t kString = 8, kArray = 9;
  std::string keys = text("tokenizer.ggml.model") + number(kString, 4) + text("gpt2");
  keys += text("tokenizer.ggml.tokens") + number(kArray, 4) + number(kString, 4) + number(texts.size(), 8);
  for (const std::string &token : texts) keys += text(token);
  keys += text("filler") + number(kString, 4);
  keys += text(std::string(31 - (keys.size() + 7) % 32, '.'));
  std::string file = test::ReadFile(test::DataPath("small_olmoe.gguf"));
  file[16] = static_cast<char>(file[16] + 3);  // the count of keys
  return file.insert(24, keys);
}

TEST(Calibration, AVocabularyThatCanReadNothingIsNone) {
  const test::TempFolder folder;
  const int64_t vocab = OpenSourceModel(test::DataPath("small_olmoe.gguf"))->config().vocab;
  std::vector<std::string> texts;
  for (int64_t i = 0; i < vocab; ++i) texts.push_back("t" + std::to_string(i));
  const auto made_up = OpenSourceModel(folder.Write("made_up.gguf", WithVocabulary(texts)));
  EXPECT_TRUE(HasMadeUpTokenizer(*made_up));
  EXPECT_FALSE(HasTokenizer(*made_up));
  texts.back() = "a";
  const auto real = OpenSourceModel(folder.Write("real.gguf", WithVocabulary(texts)));
  EXPECT_FALSE(HasMadeUpTokenizer(*real));
  EXPECT_TRUE(HasTokenizer(*real));
}

TEST(Calibration, WindowsAreTheFirstOnesOrSeeded) {
  EXPECT_EQ(ChooseWindows(10, 3, 0), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(ChooseWindows(2, 5, 0), (std::vector<int64_t>{0, 1}));
  const std::vector<int64_t> seeded = ChooseWindows(100, 20, 7);
  EXPECT_EQ(seeded, ChooseWindows(100, 20, 7));
  EXPECT_NE(seeded, ChooseWindows(100, 20, 8));
  for (size_t i = 1; i < seeded.size(); ++i) EXPECT_LT(seeded[i - 1], seeded[i]);
  EXPECT_LT(seeded.back(), 100);
}

}  // namespace
}  // namespace acorn::compiler
