// Mixtures of experts through the whole compiler: what the written file computes is what the float reference says, up to rounding.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "base/mapped_file.h"
#include "graph/float_model.h"
#include "quantize/quantized_model.h"
#include "quantize/sparse_layer.h"
#include "tests/compiler/train/small_model.h"
#include "tests/support/shared_data.h"
#include "tests/support/temp_folder.h"
#include "write/opened_model.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kWindow = 48;

/// Logits of the file for `ids`, [ids, vocab], in natural units.
Matrix DeviceLogits(const std::string &path, const std::vector<int32_t> &ids, int64_t vocab) {
  const MappedFile file(path);
  acorn_options options = {};
  options.context_tokens = static_cast<uint32_t>(ids.size());
  OpenedModel opened(file, options);
  acorn_model_info info = {};
  opened.Check(acorn_model_get_info(opened.model(), &info));
  Matrix logits(static_cast<int64_t>(ids.size()), vocab);
  struct Rows {
    Matrix *logits;
    double unit;
  } rows = {&logits, std::ldexp(static_cast<double>(info.logit_multiplier), -info.logit_shift - 16)};
  const auto collect = [](void *ctx, size_t row, const int32_t *values, size_t count) {
    auto *to = static_cast<Rows *>(ctx);
    for (size_t i = 0; i < count; ++i) {
      (*to->logits)(static_cast<int64_t>(row), static_cast<int64_t>(i)) = static_cast<float>(values[i] * to->unit);
    }
    return 0;
  };
  opened.Check(acorn_session_score(opened.session(), ids.data(), ids.size(), collect, &rows));
  return logits;
}

/// Relative error of the file's logits, squares over all positions, without what shifts a whole row.
double ErrorOf(const SourceModel &source, Recipe recipe, WeightFormat format) {
  const test::TempFolder folder;
  const ModelConfig &config = source.config();
  const CalibrationWindows windows = SomeWindows(config, 6, kWindow);
  RecipeOptions options;
  options.recipe = recipe;
  options.body_format = format;
  Progress::Silence();
  FileSink sink(config, folder.File("m.acorn"));
  const RecipeResult result = QuantizeModel(source, windows, options, &sink);
  ModelFacts facts;
  facts.vocab_size = static_cast<uint32_t>(config.vocab);
  facts.max_context = static_cast<uint32_t>(config.max_context);
  sink.Finish(facts);
  std::vector<int32_t> ids = SomeWindows(config, 9, kWindow).ids;
  ids.erase(ids.begin(), ids.end() - kWindow);
  std::vector<int32_t> with_prefix = result.prefix_tokens;
  with_prefix.insert(with_prefix.end(), ids.begin(), ids.end());
  const Matrix x = RunLayers(source, with_prefix, {0, static_cast<int64_t>(with_prefix.size())});
  Matrix want = HeadScorer(source).Logits(x.bottomRows(kWindow));
  Matrix got = DeviceLogits(folder.File("m.acorn"), ids, config.vocab);
  want.colwise() -= want.rowwise().mean().eval();
  got.colwise() -= got.rowwise().mean().eval();
  return static_cast<double>((got - want).squaredNorm() / want.squaredNorm());
}

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
