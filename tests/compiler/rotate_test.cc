// Merged rotations: orthogonal, nothing that a model computes changes, and the search takes what its trials find best.
#include "passes/rotate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/progress.h"
#include "graph/float_model.h"
#include "quantize/rotation_search.h"
#include "tests/support/shared_data.h"

namespace acorn::compiler {
namespace {

Matrix Dense(int64_t width, uint64_t seed) {
  Matrix rows = Matrix::Identity(width, width);
  Rotation(width, seed).Apply(rows);
  return rows;
}

TEST(Rotation, IsAnOrthogonalMatrixOfEqualMagnitudesInEachBlock) {
  for (const int64_t width : {2, 8, 12, 20, 28, 36, 60, 64, 84, 240, 336, 576, 704, 896}) {
    const Matrix r = Dense(width, 5);
    const Eigen::MatrixXd exact = r.cast<double>();
    EXPECT_LT((exact * exact.transpose() - Eigen::MatrixXd::Identity(width, width)).cwiseAbs().maxCoeff(), 2e-6) << width;
    const int64_t block = Rotation::Block(width);
    const float magnitude = 1 / std::sqrt(static_cast<float>(block));
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        ASSERT_NEAR(std::abs(r(i, j)), i / block == j / block ? magnitude : 0, 1e-6f) << width << ": " << i << ", " << j;
      }
    }
  }
}

TEST(Rotation, BlockIsTheLargestThatHasAConstruction) {
  EXPECT_EQ(Rotation::Block(2048), 2048);
  EXPECT_EQ(Rotation::Block(576), 576);    // 12 * 12 * 4
  EXPECT_EQ(Rotation::Block(896), 896);    // 28 * 32
  EXPECT_EQ(Rotation::Block(960), 960);    // 20 * 12 * 4
  EXPECT_EQ(Rotation::Block(5120), 5120);  // 20 * 256
  EXPECT_EQ(Rotation::Block(704), 64);     // 11 blocks
  EXPECT_EQ(Rotation::Block(36), 12);      // 3 blocks: 36 has one four for its two threes
  EXPECT_EQ(Rotation::Block(6), 2);
  EXPECT_EQ(Rotation::Block(63), 1);
}

TEST(Rotation, SeedDecidesTheSigns) {
  EXPECT_EQ(Dense(64, 3), Dense(64, 3));
  EXPECT_NE(Dense(64, 3), Dense(64, 4));
}

/// A model with every bias and with gains far from 1.
class BiasedModel final : public SourceModel {
 public:
  explicit BiasedModel(const SourceModel &source) : SourceModel(source, WithBiases(source.config())), source_(source) {}
  Matrix LoadRows(TensorRole role, int64_t layer, int64_t first, int64_t count) const override {
    if (HasRole(source_.config(), role) && RoleShape(config(), role).n != 1) return source_.LoadRows(role, layer, first, count);
    srand(static_cast<unsigned>(layer) * 100 + static_cast<unsigned>(role));
    const RowVector noise = RowVector::Random(RoleShape(config(), role).k);
    return HasRole(source_.config(), role) ? Matrix((2 * noise).array().exp().matrix()) : Matrix(noise);
  }

 private:
  static ModelConfig WithBiases(ModelConfig config) {
    config.q_bias = config.k_bias = config.v_bias = config.o_bias = config.mlp_bias = true;
    return config;
  }

  const SourceModel &source_;
};

Matrix Logits(const SourceModel &source) {
  std::vector<int32_t> ids(48);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(static_cast<int64_t>(i * 37) % source.config().vocab);
  return HeadScorer(source).Logits(RunLayers(source, ids, {0, 20, 48}));
}

/// Every logit within 1e-4 of the largest one, as the float reference itself against its goldens.
void ExpectSameFunction(const SourceModel &source) {
  const Matrix want = Logits(source);
  for (const RotationKind kind : {RotationKind::kR2, RotationKind::kR1R2}) {
    if (kind == RotationKind::kR2 && !source.config().HasAttention()) continue;
    ASSERT_EQ(RefusalOf(source.config(), kind), nullptr) << RotationName(kind);
    const RotatedModel rotated(source, kind, 7);
    EXPECT_LE((Logits(rotated) - want).cwiseAbs().maxCoeff(), 1e-4f * want.cwiseAbs().maxCoeff()) << RotationName(kind);
  }
}

TEST(RotatedModel, ComputesWhatTheModelDoes) { ExpectSameFunction(*OpenSourceModel(test::DataPath("small_llama"))); }

TEST(RotatedModel, ComputesWhatAStateSpaceModelDoes) {
  ExpectSameFunction(*OpenSourceModel(test::DataPath("small_mamba2")));
  ExpectSameFunction(*OpenSourceModel(test::DataPath("small_bamba")));
}

TEST(RotatedModel, TakesBiasesAndGainsAlong) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  ExpectSameFunction(BiasedModel(*source));
}

class RotatedFamilies : public testing::TestWithParam<const char *> {};

TEST_P(RotatedFamilies, ComputeWhatTheyDid) {
  const std::string folder = std::string("models/tiny/") + GetParam();
  ACORN_NEED_SHARED(folder);
  ExpectSameFunction(*OpenSourceModel(test::SharedPath(folder)));
}

INSTANTIATE_TEST_SUITE_P(Shared, RotatedFamilies, testing::Values("llama", "llama3", "mistral", "qwen2", "qwen3"),
                         [](const testing::TestParamInfo<const char *> &family) { return std::string(family.param); });

TEST(RotatedModel, SeparatesATiedHeadOnlyFromARotatedStream) {
  ACORN_NEED_SHARED("models/tiny/qwen2");
  const auto source = OpenSourceModel(test::SharedPath("models/tiny/qwen2"));
  ASSERT_TRUE(source->config().tied_head);
  EXPECT_TRUE(RotatedModel(*source, RotationKind::kR2, 1).config().tied_head);
  const RotatedModel rotated(*source, RotationKind::kR1R2, 1);
  EXPECT_FALSE(rotated.config().tied_head);
  const Matrix norm = rotated.Load(TensorRole::kFinalNorm);
  EXPECT_EQ(norm, Matrix::Ones(1, norm.cols()));
}

TEST(RotatedModel, RowsAreThoseOfTheWholeTensor) {
  const auto small = OpenSourceModel(test::DataPath("small_llama"));
  const BiasedModel source(*small);
  const RotatedModel rotated(source, RotationKind::kR1R2, 2);
  for (int i = 0; i < kTensorRoles; ++i) {
    const auto role = static_cast<TensorRole>(i);
    if (!HasRole(source.config(), role)) continue;
    const Matrix whole = rotated.Load(role, 1);
    EXPECT_EQ(whole.rows(), RoleShape(source.config(), role).n) << TensorRoleName(role);
    EXPECT_EQ(whole.cols(), RoleShape(source.config(), role).k) << TensorRoleName(role);
    const int64_t count = whole.rows() / 2;
    EXPECT_EQ(rotated.LoadRows(role, 1, count, count), whole.middleRows(count, count)) << TensorRoleName(role);
  }
}

TEST(Rotation, SpreadsAChannelThatStandsOut) {
  Matrix row = Matrix::Zero(1, 64);
  row(0, 17) = 8;
  Rotation(64, 1).Apply(row);
  EXPECT_NEAR(row.cwiseAbs().maxCoeff(), 1, 1e-6);
  EXPECT_NEAR(row.cwiseAbs().minCoeff(), 1, 1e-6);
}

TEST(Rotation, RefusesWhatWouldChangeTheModel) {
  ModelConfig config = OpenSourceModel(test::DataPath("small_llama"))->config();
  for (const RotationKind kind : {RotationKind::kNone, RotationKind::kR2, RotationKind::kR1R2}) {
    EXPECT_EQ(RefusalOf(config, kind), nullptr) << RotationName(kind);
  }
  config.qk_norm = true;  // between the weights and the scores: neither the stream nor the values
  EXPECT_EQ(RefusalOf(config, RotationKind::kR1R2), nullptr);
  config.family = "with norms after the layers";
  EXPECT_EQ(RefusalOf(config, RotationKind::kR2), nullptr);
  EXPECT_NE(RefusalOf(config, RotationKind::kR1R2), nullptr);
  config.family = "llama";
  config.hidden = 63;
  EXPECT_EQ(RefusalOf(config, RotationKind::kR2), nullptr);
  EXPECT_NE(RefusalOf(config, RotationKind::kR1R2), nullptr);
  config.hidden = 64;
  config.qkv_limit = 8;
  EXPECT_NE(RefusalOf(config, RotationKind::kR2), nullptr);
  config.head_dim = 15;
  EXPECT_NE(RefusalOf(config, RotationKind::kR2), nullptr);
  EXPECT_EQ(RefusalOf(config, RotationKind::kNone), nullptr);
  config = OpenSourceModel(test::DataPath("small_mamba2"))->config();
  EXPECT_NE(RefusalOf(config, RotationKind::kR2), nullptr);
  EXPECT_EQ(RefusalOf(config, RotationKind::kR1R2), nullptr);
}

/// The line of progress is for people.
[[maybe_unused]] const bool kSilent = (Progress::Silence(), true);

class NoSink : public ModelSink {
 public:
  void Begin(const ModelFrame &, double, QuantizedMatrix) override {}
  void Layer(QuantizedLayer) override {}
  void Head(QuantizedHead) override {}
};

TEST(RotationSearch, TakesTheTrialOfLowestPerplexity) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  CalibrationWindows windows;
  windows.window = 64;
  for (int i = 0; i < 4 * 64; ++i) windows.ids.push_back(i * i % 127);
  RecipeOptions recipe;
  recipe.body_format = WeightFormat::kW4;
  for (const RotationKind kind : {RotationKind::kR2, RotationKind::kR1R2}) {
    const RotationChoice choice = ChooseRotation(*source, windows, {kind, 2}, &recipe);
    ASSERT_TRUE(recipe.prefix_tokens.has_value());
    const auto perplexity = [&](const SourceModel &model) {
      NoSink sink;
      return QuantizeModel(model, windows, recipe, &sink).simulated_perplexity;
    };
    uint64_t best = 0;
    double lowest = perplexity(*source);
    for (const uint64_t seed : {1, 2}) {
      const double value = perplexity(RotatedModel(*source, kind, seed));
      if (value >= lowest) continue;
      lowest = value;
      best = seed;
    }
    EXPECT_EQ(choice.seed, best) << RotationName(kind);
    EXPECT_EQ(choice.model == nullptr, best == 0) << RotationName(kind);
    EXPECT_EQ(perplexity(choice.model != nullptr ? static_cast<const SourceModel &>(*choice.model) : *source), lowest);
  }
}

TEST(RotationSearch, NothingToChooseNothingTried) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  CalibrationWindows windows;
  windows.window = 32;
  windows.ids.resize(64, 5);
  RecipeOptions recipe;
  EXPECT_EQ(ChooseRotation(*source, windows, {RotationKind::kNone, 4}, &recipe).model, nullptr);
  EXPECT_FALSE(recipe.prefix_tokens.has_value());
  const RotationChoice choice = ChooseRotation(*source, windows, {RotationKind::kR2, 1}, &recipe);
  ASSERT_NE(choice.model, nullptr);
  EXPECT_EQ(choice.seed, 1u);
  EXPECT_EQ(choice.model->Load(TensorRole::kV, 1), RotatedModel(*source, RotationKind::kR2, 1).Load(TensorRole::kV, 1));
}

}  // namespace
}  // namespace acorn::compiler
