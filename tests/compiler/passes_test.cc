// The passes against their definitions.
#include <gtest/gtest.h>

#include <cmath>

#include "passes/equalise.h"
#include "passes/hadamard.h"

namespace acorn::compiler {
namespace {

TEST(Hadamard, IsTheSylvesterMatrixInNaturalOrder) {
  for (const int64_t block : {1, 2, 32, 64, 128}) {
    Matrix rows = Matrix::Identity(block, block);
    HadamardRows(rows, block);
    for (int64_t i = 0; i < block; ++i) {
      for (int64_t j = 0; j < block; ++j) {
        // Entry (i, j) is -1 to the number of common one bits.
        const double sign = __builtin_popcountll(static_cast<uint64_t>(i & j)) % 2 == 0 ? 1 : -1;
        ASSERT_NEAR(rows(i, j), sign / std::sqrt(static_cast<double>(block)), 1e-6);
      }
    }
  }
}

TEST(Hadamard, FoldedIntoAWeightItChangesNothing) {
  Matrix x = Matrix::Random(5, 192), w = Matrix::Random(7, 192);
  const Matrix before = x * w.transpose();
  HadamardRows(x, 64);
  HadamardRows(w, 64);
  EXPECT_LT((x * w.transpose() - before).cwiseAbs().maxCoeff(), 1e-4);
}

TEST(Hadamard, BlockIsTheLargestThatPadsCheaply) {
  const auto expect = [](int64_t ffn, int64_t padded, int64_t block) {
    const FfnShape shape = ChooseHadamardBlock(ffn);
    EXPECT_EQ(shape.padded, padded) << ffn;
    EXPECT_EQ(shape.block, block) << ffn;
  };
  expect(1536, 1536, 128);
  expect(896, 896, 128);
  expect(5632, 5632, 128);
  expect(172, 192, 64);
  expect(96, 96, 32);
  expect(160, 160, 32);
  expect(1, 32, 32);
  EXPECT_EQ(WithoutHadamard(172, 32).padded, 192);
  EXPECT_EQ(WithoutHadamard(172, 0).padded, 172);
  EXPECT_EQ(WithoutHadamard(172, 32).block, 1);
}

ModelConfig SmallConfig() {
  ModelConfig config;
  config.family = "llama";
  config.hidden = 64;
  config.layers = 1;
  config.ffn = 96;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.rotary_dims = 8;  // partial: half of each head is not rotated
  config.vocab = 8;
  config.max_context = 64;
  return config;
}

/// Weights whose inputs and outputs have channels of very different reach.
LayerWeights UnevenWeights(const ModelConfig &config) {
  srand(3);
  LayerWeights w;
  const auto uneven = [](int64_t n) {
    RowVector v = RowVector::Random(n);
    return RowVector((v.array() * 2).exp().matrix());
  };
  const int64_t q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
  w.attn_norm = uneven(config.hidden);
  w.ffn_norm = uneven(config.hidden);
  if (config.norm == NormKind::kLayer) {
    w.attn_norm_bias = uneven(config.hidden);
    w.ffn_norm_bias = uneven(config.hidden);
  }
  w.q = 0.1f * Matrix::Random(q, config.hidden);
  w.k = 0.1f * Matrix::Random(kv, config.hidden);
  w.v = uneven(kv).asDiagonal() * Matrix::Random(kv, config.hidden);
  w.o = Matrix::Random(config.hidden, q);
  w.gate = Matrix::Random(config.ffn, config.hidden);
  w.up = uneven(config.ffn).asDiagonal() * Matrix::Random(config.ffn, config.hidden);
  w.down = Matrix::Random(config.hidden, config.ffn);
  w.q_bias = RowVector::Random(q);
  w.k_bias = uneven(kv);
  w.v_bias = RowVector::Random(kv);
  w.up_bias = RowVector::Random(config.ffn);
  return w;
}

/// Transforms the input of down as the weights expect it, so that a run computes the layer's real output.
class Transform : public LayerObserver {
 public:
  explicit Transform(int64_t block) : block_(block) {}
  bool Wants(Edge edge) const override { return edge == Edge::kGlu; }
  void OnEdge(Edge, int64_t, int64_t, MatrixRef values) override { HadamardRows(values, block_); }

 private:
  int64_t block_;
};

/// The strengths of a layer's scaling for a cache of kv_limit, behind a transform of heads in blocks; it must compute the same.
Equalisation ExpectSameLayer(NormKind norm, double kv_limit, int64_t head_block) {
  ModelConfig config = SmallConfig();
  config.norm = norm;
  LayerWeights w = UnevenWeights(config);
  HadamardRows(w.down, 32);
  const RopeTable rope = MakeRopeTable(config, 64);
  const Matrix input = Matrix::Random(64, config.hidden);
  RangeObserver ranges(config, 32, head_block, 64, 64);
  Matrix before = input;
  RunLayer(config, w, 0, before, {0, 64}, rope, nullptr, &ranges);
  const Equalisation scaled = EqualiseLayer(config, &w, ranges, WeightFormat::kW8, kv_limit);
  EXPECT_GT(scaled.strength[static_cast<size_t>(ScalingPair::kNormQkv)], 0);
  Transform transform(32);
  Matrix after = input;
  RunLayer(config, w, 0, after, {0, 64}, rope, nullptr, &transform);
  EXPECT_LT((after - before).cwiseAbs().maxCoeff(), 2e-5f * before.cwiseAbs().maxCoeff());
  return scaled;
}

class EqualiseNorms : public testing::TestWithParam<NormKind> {};

TEST_P(EqualiseNorms, ChangesNothingThatALayerComputes) {
  EXPECT_GT(ExpectSameLayer(GetParam(), 127, 1).strength[static_cast<size_t>(ScalingPair::kQueryKey)], 0);
}

TEST_P(EqualiseNorms, OfACacheOf4BitsScaleValuesAlone) {
  const Equalisation scaled = ExpectSameLayer(GetParam(), 7, HeadBlock(SmallConfig().head_dim));
  EXPECT_EQ(scaled.strength[static_cast<size_t>(ScalingPair::kQueryKey)], 0);
  EXPECT_EQ(scaled.strength[static_cast<size_t>(ScalingPair::kValueOut)], 1);
}

INSTANTIATE_TEST_SUITE_P(Norms, EqualiseNorms, testing::Values(NormKind::kRms, NormKind::kLayer),
                         [](const testing::TestParamInfo<NormKind> &norm) {
                           return norm.param == NormKind::kRms ? "rms" : "layer";
                         });

TEST(Equalise, ANormBetweenWeightsAndScoresForbidsQueryKey) {
  ModelConfig config = SmallConfig();
  for (const ScalingPair pair :
       {ScalingPair::kNormQkv, ScalingPair::kNormGateUp, ScalingPair::kValueOut, ScalingPair::kQueryKey}) {
    EXPECT_EQ(RefusalOf(config, pair), nullptr) << ScalingPairName(pair);
  }
  EXPECT_NE(RefusalOf(config, ScalingPair::kUpDown), nullptr);
  config.qk_norm = true;
  EXPECT_NE(RefusalOf(config, ScalingPair::kQueryKey), nullptr);
  EXPECT_EQ(RefusalOf(config, ScalingPair::kValueOut), nullptr);
}

}  // namespace
}  // namespace acorn::compiler
