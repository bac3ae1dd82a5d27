// Mixtures of experts through the whole compiler: what the written file computes is what the float reference says, up to rounding.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "graph/float_model.h"
#include "quantize/quantized_model.h"
#include "quantize/sparse_layer.h"
#include "tests/compiler/conversion_error.h"
#include "tests/support/shared_data.h"

namespace acorn::compiler {
namespace {

class SparseLayers : public testing::TestWithParam<const char *> {};

TEST_P(SparseLayers, ComputeWhatTheReferenceDoes) {
  for (const std::string &path : {test::DataPath(std::string("small_") + GetParam()),
                                  test::DataPath(std::string("small_") + GetParam() + ".gguf")}) {
    const auto source = OpenSourceModel(path);
    EXPECT_LT(ErrorOf(*source, Recipe::kRtn, WeightFormat::kW8), 0.02) << path;
    EXPECT_LT(ErrorOf(*source, Recipe::kFast, WeightFormat::kW8), 0.01) << path;
    // Random weights have no room for four bits, and a router that changes its mind changes everything.
    EXPECT_LT(ErrorOf(*source, Recipe::kFast, WeightFormat::kW4G32), 0.5) << path;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, SparseLayers, testing::Values("mixtral", "olmoe", "qwen2_moe", "qwen3_moe"),
                         [](const testing::TestParamInfo<const char *> &family) { return std::string(family.param); });

TEST(SparseLayer, AnExpertWithoutTokensIsRoundedForAll) {
  const auto source = OpenSourceModel(test::DataPath("small_mixtral"));
  const ModelConfig config = source->config();
  LayerWeights weights = LoadLayer(*source, 0);
  const FfnShape shape = ExpertShapeOf(config, {});
  const ExpertList experts = LoadExperts(config, shape, {}, &weights);
  RangeObserver ranges(config, 1, 1, 64, 64);
  ranges.ExpectExperts(config.experts, shape.block);
  Matrix x = Matrix::Random(64, config.hidden);
  ranges.OnEdge(Edge::kFfnIn, 0, 0, x);
  ActivationGrid grid;
  grid.ffn_in = 1.0 / 127;
  grid.expert_block = shape.block;
  grid.expert_down_in = 0.05;
  const GridObserver nothing(config, grid, 1);
  ExpertRounding rounding;
  rounding.moments = &nothing;
  rounding.ranges = &ranges;
  rounding.formats.assign(experts.size(), WeightFormat::kW8);
  const RoundedExperts rounded = RoundExperts(experts, grid, rounding);
  ASSERT_EQ(rounded.experts.size(), static_cast<size_t>(config.experts));
  EXPECT_GT(rounded.in_error, 0);
  EXPECT_LT(rounded.in_error, 1e-3);
  EXPECT_LT(rounded.down_error, 1e-3);
}

}  // namespace
}  // namespace acorn::compiler
