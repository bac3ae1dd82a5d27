// Elastic pruning in float: orders of importance, layers that compute what they did once sorted, and narrow ones beside whole ones
// of which the rest is zero.
#include "passes/elastic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>

#include "base/progress.h"
#include "graph/float_model.h"
#include "passes/equalise.h"
#include "passes/importance.h"
#include "passes/layer_rates.h"
#include "quantize/calibration.h"
#include "tests/support/shared_data.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kWindow = 64;

Matrix Random(int64_t rows, int64_t cols, unsigned seed) {
  srand(seed);
  return Matrix::Random(rows, cols);
}

std::vector<int32_t> Ids(const SourceModel &source, int64_t windows) {
  std::vector<int32_t> ids(static_cast<size_t>(windows * kWindow));
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>(static_cast<int64_t>(i * 37 + i / 11 * 5) % source.config().vocab);
  }
  return ids;
}

Matrix Logits(const SourceModel &source, const LayerChange &change = {}) {
  return HeadScorer(source).Logits(RunLayers(source, Ids(source, 1), {0, 20, 48, kWindow}, nullptr, {}, change));
}

ElasticPlan Plan(const SourceModel &source, std::vector<int> rates = {0}) {
  Progress::Silence();
  return PlanElastic(source, Ids(source, 4), kWindow, {std::move(rates), {}, true});
}

/// A model with every bias that its family could have, and clipped values if asked for.
class BiasedModel final : public SourceModel {
 public:
  explicit BiasedModel(const SourceModel &source, double limit = 0)
      : SourceModel(source, WithBiases(source.config(), limit)), source_(source) {}
  Matrix LoadRows(TensorRole role, int64_t layer, int64_t first, int64_t count) const override {
    if (HasRole(source_.config(), role, layer)) return source_.LoadRows(role, layer, first, count);
    return Random(1, RoleShape(config(), role).k, static_cast<unsigned>(layer) * 100 + static_cast<unsigned>(role));
  }

 private:
  static ModelConfig WithBiases(ModelConfig config, double limit) {
    config.q_bias = config.k_bias = config.v_bias = config.o_bias = config.mlp_bias = true;
    config.qkv_limit = limit;
    return config;
  }

  const SourceModel &source_;
};

/// Every logit within 1e-4 of the largest one, as the float reference itself against its goldens.
void ExpectSame(const Matrix &got, const Matrix &want) {
  EXPECT_LE((got - want).cwiseAbs().maxCoeff(), 1e-4f * want.cwiseAbs().maxCoeff());
}

void ExpectSameFunction(const SourceModel &source) {
  ElasticPlan plan = Plan(source);
  const Matrix want = Logits(source);
  ExpectSame(Logits(SortedModel(source, plan.layers)), want);
  ElasticOptions options;
  options.parts.svd = false;
  ExpectSame(Logits(SortedModel(source, PlanElastic(source, Ids(source, 4), kWindow, options).layers)), want);
}

TEST(SortedModel, ComputesWhatTheModelDoes) {
  for (const char *name : {"small_llama", "small_bamba", "small_mixtral", "small_granite_h"}) {
    SCOPED_TRACE(name);
    ExpectSameFunction(*OpenSourceModel(test::DataPath(name)));
  }
}

class SortedFamilies : public testing::TestWithParam<const char *> {};

TEST_P(SortedFamilies, ComputeWhatTheyDid) {
  const std::string folder = std::string("models/tiny/") + GetParam();
  ACORN_NEED_SHARED(folder);
  ExpectSameFunction(*OpenSourceModel(test::SharedPath(folder)));
}

INSTANTIATE_TEST_SUITE_P(Shared, SortedFamilies,
                         testing::Values("llama", "llama3", "qwen2", "qwen3", "gemma", "phi3", "stablelm", "mixtral", "olmoe",
                                         "qwen2_moe", "mamba2", "bamba", "granite_h"),
                         [](const testing::TestParamInfo<const char *> &family) { return std::string(family.param); });

TEST(SortedModel, TakesBiasesAndClipsAlong) {
  ACORN_NEED_SHARED("models/tiny/llama");
  const auto source = OpenSourceModel(test::SharedPath("models/tiny/llama"));
  const BiasedModel biased(*source);
  ExpectSameFunction(biased);
  const SortedModel sorted(biased, Plan(biased).layers);
  EXPECT_FALSE(sorted.config().v_bias);  // part of O's
  EXPECT_TRUE(sorted.config().o_bias);
  const BiasedModel clipped(*source, 0.5);
  ExpectSameFunction(clipped);
  EXPECT_TRUE(SortedModel(clipped, Plan(clipped).layers).config().v_bias);
}

/// Rotary scaling that sits in the weights of the rotated rows, wherever these stand.
TEST(SortedModel, FoldsTheAttentionFactorIntoRotatedRows) {
  class Scaled final : public SourceModel {
   public:
    explicit Scaled(const SourceModel &source) : SourceModel(source, With(source.config())), source_(source) {}
    Matrix LoadRows(TensorRole role, int64_t layer, int64_t first, int64_t count) const override {
      return source_.LoadRows(role, layer, first, count);
    }

   private:
    static ModelConfig With(ModelConfig config) {
      config.rope.attention_factor = 1.7;
      config.rotary_dims = config.head_dim / 2;
      return config;
    }
    const SourceModel &source_;
  };
  ACORN_NEED_SHARED("models/tiny/llama");
  const auto source = OpenSourceModel(test::SharedPath("models/tiny/llama"));
  ExpectSameFunction(Scaled(*source));
}

TEST(SortedModel, RowsAreThoseOfTheWholeTensor) {
  const auto source = OpenSourceModel(test::DataPath("small_mixtral"));
  const SortedModel sorted(*source, Plan(*source).layers);
  for (int i = 0; i < kTensorRoles; ++i) {
    const auto role = static_cast<TensorRole>(i);
    if (!HasRole(sorted.config(), role, 1)) continue;
    const Matrix whole = sorted.Load(role, 1);
    EXPECT_EQ(whole.rows(), RoleShape(sorted.config(), role).n) << TensorRoleName(role);
    const int64_t first = whole.rows() / 3, count = whole.rows() / 2;
    EXPECT_EQ(sorted.LoadRows(role, 1, first, count), whole.middleRows(first, count)) << TensorRoleName(role);
  }
}

/// Equivalent scaling takes a sorted layer's rotary pairs and O's columns where they stand.
TEST(SortedModel, IsEqualisedWithoutAChange) {
  for (const char *name : {"llama", "bamba"}) {
    const std::string folder = std::string("models/tiny/") + name;
    ACORN_NEED_SHARED(folder);
    const auto source = OpenSourceModel(test::SharedPath(folder));
    const SortedModel sorted(*source, Plan(*source).layers);
    const ModelConfig &config = sorted.config();
    const RopeTable rope = MakeRopeTable(config, kWindow);
    int64_t layer = 0;
    while (config.IsStateSpace(layer)) ++layer;
    LayerWeights weights = LoadLayer(sorted, layer);
    // Channels far apart, so that there is something to scale; partners alike, as scaling leaves them.
    for (int64_t row = 0; row < weights.k.rows(); row += 2 * LayerOrder::kPairBlock) weights.k.row(row + 3) *= 30;
    weights.v.row(5) *= 40;
    Matrix want = Random(kWindow, config.hidden, 8);
    RangeObserver ranges(config, 1, 1, kWindow, kWindow);
    Matrix got = want;
    RunLayer(config, weights, layer, want, {0, kWindow}, rope, nullptr, &ranges);
    const Equalisation done = EqualiseLayer(config, &weights, ranges, WeightFormat::kW4G32, 127, nullptr);
    EXPECT_NE(done.strength[static_cast<size_t>(ScalingPair::kQueryKey)], 0) << name;
    EXPECT_NE(done.strength[static_cast<size_t>(ScalingPair::kValueOut)], 0) << name;
    RunLayer(config, weights, layer, got, {0, kWindow}, rope, nullptr, nullptr);
    ExpectSame(got, want);
  }
}

/// The first layer of a sorted model, run whole with the rest zeroed and run narrow.
struct BothWays {
  Matrix zeroed, narrow;
};

BothWays RunBothWays(const SourceModel &sorted, const LayerWidths &widths, const ModelConfig &narrow_config,
                     const LayerWeights &narrow) {
  Matrix x = 3 * Random(kWindow, sorted.config().hidden, 5);
  BothWays out{x, x};
  const RopeTable rope = MakeRopeTable(sorted.config(), kWindow);
  LayerWeights zeroed = LoadLayer(sorted, 0);
  DropBeyond(sorted.config(), widths, &zeroed);
  RunLayer(sorted.config(), zeroed, 0, out.zeroed, {0, kWindow}, rope, nullptr, nullptr);
  RunLayer(narrow_config, narrow, 0, out.narrow, {0, kWindow}, rope, nullptr, nullptr);
  return out;
}

/// Rows of heads [dim] of which the first `kept` remain.
Matrix FirstOfHeads(const Matrix &rows, int64_t dim, int64_t kept) {
  Matrix out(rows.rows() / dim * kept, rows.cols());
  for (int64_t head = 0; head * dim < rows.rows(); ++head) out.middleRows(head * kept, kept) = rows.middleRows(head * dim, kept);
  return out;
}

TEST(DropBeyond, AnAttentionLayerComputesWhatTheNarrowOneDoes) {
  ACORN_NEED_SHARED("models/tiny/qwen3");
  const auto source = OpenSourceModel(test::SharedPath("models/tiny/qwen3"));  // heads of 32
  class WithoutNorm final : public SourceModel {
   public:
    explicit WithoutNorm(const SourceModel &other) : SourceModel(other, With(other.config())), other_(other) {}
    Matrix LoadRows(TensorRole role, int64_t layer, int64_t first, int64_t count) const override {
      return other_.LoadRows(role, layer, first, count);
    }

   private:
    static ModelConfig With(ModelConfig config) {
      config.qk_norm = false;
      return config;
    }
    const SourceModel &other_;
  };
  const WithoutNorm plain(*source);
  const SortedModel sorted(plain, Plan(plain).layers);
  const ModelConfig &config = sorted.config();
  ASSERT_EQ(config.head_dim, 32);
  LayerWidths widths = WholeWidths(config, 0);
  widths.ffn = 96;
  widths.qk = widths.v = 16;
  // A configuration has one width for the heads of Q, K and V.
  ModelConfig narrow_config = config;
  narrow_config.head_dim = 16;
  narrow_config.attention_scale = 1 / std::sqrt(32.0);
  narrow_config.ffn = 96;
  LayerWeights narrow = LoadLayer(sorted, 0);
  for (Matrix *m : {&narrow.q, &narrow.k, &narrow.v}) *m = FirstOfHeads(*m, 32, 16);
  narrow.o = Matrix(narrow.o.leftCols(16 * config.heads));
  narrow.gate = Matrix(narrow.gate.topRows(96));
  narrow.up = Matrix(narrow.up.topRows(96));
  narrow.down = Matrix(narrow.down.leftCols(96));
  std::vector<uint8_t> pairs;
  for (int64_t head = 0; head < config.kv_heads; ++head) {
    pairs.insert(pairs.end(), narrow.order.pairs.begin() + head * 16, narrow.order.pairs.begin() + head * 16 + 8);
  }
  narrow.order.pairs = pairs;
  const BothWays out = RunBothWays(sorted, widths, narrow_config, narrow);
  ExpectSame(out.zeroed, out.narrow);
}

TEST(DropBeyond, AStateSpaceLayerComputesWhatTheNarrowOneDoes) {
  ACORN_NEED_SHARED("models/tiny/bamba");
  const auto source = OpenSourceModel(test::SharedPath("models/tiny/bamba"));
  const SortedModel sorted(*source, Plan(*source).layers);
  const ModelConfig &config = sorted.config();
  const StateSpaceConfig &ssm = config.ssm;
  ASSERT_TRUE(config.IsStateSpace(0));
  LayerWidths widths = WholeWidths(config, 0);
  widths.channels = 8;
  widths.state = 16;
  ModelConfig narrow_config = config;
  narrow_config.ssm.head_dim = 8;
  narrow_config.ssm.state = 16;
  LayerWeights narrow = LoadLayer(sorted, 0);
  ASSERT_TRUE(narrow.order.channel_major);
  const int64_t kept = 8 * ssm.heads;
  std::vector<int64_t> rows(static_cast<size_t>(kept));
  std::iota(rows.begin(), rows.end(), 0);
  for (const int64_t first : {ssm.inner(), ssm.inner() + ssm.state}) {
    for (int64_t i = 0; i < 16; ++i) rows.push_back(first + i);
  }
  StateSpaceWeights &w = narrow.ssm;
  w.conv_in = Matrix(w.conv_in(rows, Eigen::all));
  w.conv = Matrix(w.conv(rows, Eigen::all));
  w.conv_bias = RowVector(w.conv_bias(rows));
  w.gate = Matrix(w.gate.topRows(kept));
  w.norm = RowVector(w.norm.head(kept));
  w.out = Matrix(w.out.leftCols(kept));
  const BothWays out = RunBothWays(sorted, widths, narrow_config, narrow);
  ExpectSame(out.zeroed, out.narrow);
}

TEST(DropBeyond, CutsEveryRoutedExpertAndNoSharedOne) {
  ACORN_NEED_SHARED("models/tiny/qwen2_moe");
  const auto source = OpenSourceModel(test::SharedPath("models/tiny/qwen2_moe"));
  LayerWeights weights = LoadLayer(*source, 0);
  const Matrix shared = weights.shared.down;
  LayerWidths widths = WholeWidths(source->config(), 0);
  EXPECT_EQ(widths.ffn, source->config().expert_ffn);
  widths.ffn = 32;
  DropBeyond(source->config(), widths, &weights);
  EXPECT_EQ(weights.shared.down, shared);
  for (int64_t expert = 0; expert < source->config().experts; ++expert) {
    const auto of_expert = weights.experts(expert);
    EXPECT_EQ(of_expert->gate.bottomRows(of_expert->gate.rows() - 32).cwiseAbs().maxCoeff(), 0);
    EXPECT_EQ(of_expert->down.rightCols(of_expert->down.cols() - 32).cwiseAbs().maxCoeff(), 0);
    EXPECT_GT(of_expert->down.leftCols(32).cwiseAbs().minCoeff(), 0);
  }
}

TEST(Importance, LeverageIsTheFormulaAndKnowsNoUnit) {
  const Matrix x = Random(50, 12, 1);
  const Matrix moments = x.transpose() * x;
  const double ridge = 0.3;
  Eigen::MatrixXd c = moments.cast<double>(), ridged = c;
  ridged.diagonal().array() += ridge * c.diagonal().mean();
  const Eigen::MatrixXd want = ridged.llt().solve(c);  // the diagonal is that of c times the inverse: both are symmetric
  const std::vector<double> got = RidgeLeverage(moments, ridge), scaled = RidgeLeverage(100 * moments, ridge);
  for (int64_t i = 0; i < 12; ++i) {
    EXPECT_NEAR(got[static_cast<size_t>(i)], want(i, i), 1e-9);
    EXPECT_NEAR(scaled[static_cast<size_t>(i)], want(i, i), 1e-6);
  }
  EXPECT_EQ(RidgeLeverage(Matrix::Zero(3, 3), 1), std::vector<double>(3, 0));
  EXPECT_EQ(ByFallingScore({1, 3, 3, 2}), (std::vector<int32_t>{1, 2, 3, 0}));
}

/// Each dropped channel is the one that adds least to the error of the output, others dropped already.
TEST(Importance, OutputLossIsThatOfTheDroppedTogether) {
  Matrix x = Random(80, 9, 2);
  x.col(4) = -x.col(7);  // two channels whose outputs nearly cancel
  Matrix w = Random(5, 9, 3);
  w.col(4) = w.col(7) * 1.05f;
  const std::vector<int32_t> order = ByOutputLoss(x.transpose() * x, w);
  std::vector<int32_t> dropped;
  const auto loss = [&](const std::vector<int32_t> &channels) {
    return static_cast<double>((x(Eigen::all, channels) * w(Eigen::all, channels).transpose()).squaredNorm());
  };
  std::vector<int32_t> left(9);
  std::iota(left.begin(), left.end(), 0);
  for (size_t i = order.size(); i-- > 0;) {
    double least = 1e30;
    for (const int32_t channel : left) {
      std::vector<int32_t> with = dropped;
      with.push_back(channel);
      least = std::min(least, loss(with));
    }
    dropped.push_back(order[i]);
    left.erase(std::find(left.begin(), left.end(), order[i]));
    EXPECT_NEAR(loss(dropped), least, 1e-3 * least + 1e-4);
  }
}

/// No basis loses less with any number of ranks, measured at the outputs of both query heads.
TEST(BasisOfValues, IsInvertibleAndBestForEveryRank) {
  const int64_t dim = 16;
  const Matrix v = Random(200, dim, 4) * Random(dim, dim, 5), o1 = Random(30, dim, 6), o2 = Random(30, dim, 7);
  const Matrix moments = v.transpose() * v, gram = o1.transpose() * o1 + o2.transpose() * o2;
  const ValueBasis basis = BasisOfValues(moments, gram);
  EXPECT_LT((basis.outputs * basis.values - Matrix::Identity(dim, dim)).cwiseAbs().maxCoeff(), 1e-3f);
  const Matrix turned = v * basis.values.transpose();
  Eigen::MatrixXd both(v.rows(), 60);
  both << (v * o1.transpose()).cast<double>(), (v * o2.transpose()).cast<double>();
  // The squares of the singular values, the smallest first.
  const Eigen::VectorXd squares = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(both.transpose() * both).eigenvalues();
  for (int64_t kept = 0; kept < dim; ++kept) {
    const Matrix part = turned.leftCols(kept) * basis.outputs.leftCols(kept).transpose() - v;
    const double lost = static_cast<double>((part * o1.transpose()).squaredNorm() + (part * o2.transpose()).squaredNorm());
    const double least = squares.head(squares.size() - kept).sum();  // of any matrix of this rank
    EXPECT_NEAR(lost, least, 1e-3 * least + 1e-2);
  }
  for (int64_t i = 0; i < dim; ++i) {  // sigma lies on V's channels
    EXPECT_NEAR((basis.outputs.transpose() * gram * basis.outputs)(i, i), 1, 1e-3);
  }
}

TEST(LayerRates, FollowTheSoftmaxAndKeepTheMean) {
  const std::vector<double> influence{0.4, 0.1, 0.05, 0.2};
  const std::vector<int64_t> elems{100, 100, 300, 0};
  for (const double rate : {0.0, 0.15, 0.35, 0.7}) {
    const std::vector<double> rates = LayerRates(influence, elems, rate);
    double sum = 0;
    for (size_t i = 0; i < rates.size(); ++i) sum += rates[i] * static_cast<double>(elems[i]) / 500;
    EXPECT_NEAR(sum, rate, 1e-9);
    EXPECT_LE(*std::max_element(rates.begin(), rates.end()), 0.85);
    if (rate == 0.15) {
      EXPECT_NEAR(rates[1] / rates[0], std::exp(0.3 / 0.1), 1e-6);
    }
  }
  for (const double rate : LayerRates({}, elems, 0.25)) EXPECT_NEAR(rate, 0.25, 1e-9);
}

TEST(Profiles, AreNestedInStepsAndHitTheirRate) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  ModelConfig config = source->config();
  config.layers = 6;
  config.hidden = 576;
  config.heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  config.ffn = 1500;  // no whole number of steps
  ProfileRequest request;
  request.rates = {0, 5, 15, 25, 35, 60};
  request.steps.assign(6, {128, 16, 16, 0, 0});
  request.influence = {0.6, 0.1, 0.02, 0.03, 0.08, 0.3};
  const std::vector<RateProfile> profiles = MakeProfiles(config, request);
  ASSERT_EQ(profiles.size(), 6u);
  for (int64_t layer = 0; layer < 6; ++layer) EXPECT_EQ(profiles[0].layers[static_cast<size_t>(layer)], WholeWidths(config, layer));
  for (size_t i = 1; i < profiles.size(); ++i) {
    EXPECT_EQ(profiles[i].rate, request.rates[i]);
    EXPECT_NEAR(RealisedRate(config, request.steps, profiles[i]), request.rates[i] / 100.0, 0.01);
    for (size_t layer = 0; layer < 6; ++layer) {
      const LayerWidths &wide = profiles[i - 1].layers[layer], &narrow = profiles[i].layers[layer];
      EXPECT_LE(narrow.ffn, wide.ffn);
      EXPECT_LE(narrow.qk, wide.qk);
      EXPECT_LE(narrow.v, wide.v);
      EXPECT_TRUE(narrow.ffn == 1500 || narrow.ffn % 128 == 0) << narrow.ffn;
      EXPECT_TRUE(narrow.qk > 0 && narrow.qk % 16 == 0 && narrow.v > 0 && narrow.v % 16 == 0);
    }
  }
}

TEST(Profiles, SpareWhatMixesTokensByItsShare) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  ModelConfig config = source->config();
  config.layers = 2;
  config.hidden = 64;
  config.heads = config.kv_heads = 4;
  config.head_dim = 64;
  config.ffn = 512;
  ProfileRequest request;
  request.rates = {10, 30};
  request.steps.assign(2, {64, 16, 16, 0, 0});
  const auto dropped = [&](double share) {
    request.mixer_share = share;
    const std::vector<RateProfile> profiles = MakeProfiles(config, request);
    for (const RateProfile &profile : profiles) {
      EXPECT_NEAR(RealisedRate(config, request.steps, profile), profile.rate / 100.0, 0.03) << share;
    }
    const LayerWidths &kept = profiles.back().layers[0];
    return std::pair<int64_t, int64_t>(512 - kept.ffn, 64 - kept.qk + 64 - kept.v);
  };
  const auto alike = dropped(1), half = dropped(0.5), none = dropped(0);
  EXPECT_GT(alike.second, 0);
  EXPECT_EQ(none.second, 0);
  EXPECT_LE(half.second, alike.second);
  EXPECT_GT(none.first, alike.first);
}

/// Where the FFNs say nothing, they bear a rate alone.
TEST(PlanElastic, RatesGoWhereTheyCostLeast) {
  ACORN_NEED_SHARED("models/dense");
  Progress::Silence();
  const auto source = OpenSourceModel(test::SharedPath("models/dense"));
  class Without final : public SourceModel {
   public:
    Without(const SourceModel &other, TensorRole role) : SourceModel(other, other.config()), other_(other), role_(role) {}
    Matrix LoadRows(TensorRole role, int64_t layer, int64_t first, int64_t count) const override {
      const Matrix rows = other_.LoadRows(role, layer, first, count);
      return role == role_ ? Matrix(Matrix::Zero(rows.rows(), rows.cols())) : rows;
    }

   private:
    const SourceModel &other_;
    TensorRole role_;
  };
  const Without mute(*source, TensorRole::kDown);
  CalibrationOptions texts;
  texts.window = kWindow;
  texts.windows = 8;
  const std::vector<int32_t> ids = MakeCalibration(mute, texts).ids;
  ElasticOptions options;
  options.rates = {0, 30};
  EXPECT_EQ(PlanElastic(mute, ids, kWindow, options).mixer_share, 0);
  options.mixer_shares = false;
  EXPECT_EQ(PlanElastic(mute, ids, kWindow, options).mixer_share, 1);
}

/// What is dropped is what matters least: logits move less than with channels in the model's own order.
TEST(PlanElastic, SortedModelsLoseLess) {
  ACORN_NEED_SHARED("models/hybrid");
  const auto source = OpenSourceModel(test::SharedPath("models/hybrid"));
  const auto distance = [&](const SortParts &parts) {
    ElasticOptions options;
    options.rates = {25};
    options.parts = parts;
    const ElasticPlan plan = PlanElastic(*source, Ids(*source, 4), kWindow, options);
    const SortedModel sorted(*source, plan.layers);
    const LayerChange drop = [&](int64_t layer, LayerWeights *weights) {
      DropBeyond(sorted.config(), plan.profiles[0].layers[static_cast<size_t>(layer)], weights);
    };
    return static_cast<double>((Logits(sorted, drop) - Logits(*source)).squaredNorm());
  };
  Progress::Silence();
  EXPECT_LT(distance({}), 0.8 * distance({false, false}));
}

}  // namespace
}  // namespace acorn::compiler
