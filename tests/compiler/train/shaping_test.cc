// The first stage: scales change nothing but what is rounded, and gradients go through them.
#include <gtest/gtest.h>

#include <torch/torch.h>

#include <cmath>

#include "graph/float_model.h"
#include "passes/hadamard.h"
#include "quantize/grid.h"
#include "tests/compiler/train/small_model.h"
#include "tests/support/shared_data.h"
#include "train/model_twin.h"
#include "train/rounding.h"
#include "train/shaping.h"
#include "write/op_integers.h"

namespace acorn::compiler {
namespace {

Matrix RandomMatrix(int64_t rows, int64_t columns) {
  const torch::Tensor values = torch::randn({rows, columns});
  return Eigen::Map<const Matrix>(values.data_ptr<float>(), rows, columns);
}

torch::Tensor Transform(const torch::Tensor &x, int64_t block) {
  torch::Tensor h = torch::ones({1, 1});
  while (h.size(0) < block) h = torch::cat({torch::cat({h, h}, 1), torch::cat({h, -h}, 1)}, 0);
  return torch::mm(x.reshape({-1, block}), h / std::sqrt(static_cast<double>(block))).view(x.sizes());
}

TEST(ShapedWeight, GradientsAgreeWithAutomaticDifferentiation) {
  torch::manual_seed(5);
  for (const int64_t block : {1, 32}) {
    for (const WeightFormat format : {WeightFormat::kW8, WeightFormat::kW4G32}) {
      const int64_t n = 37, k = 96;
      const Matrix base = RandomMatrix(n, k);
      const torch::Tensor in = (torch::randn({k}) * 0.2).clamp(-0.4, 0.4).requires_grad_(true);
      const torch::Tensor out = (torch::randn({n}) * 0.2).clamp(-0.4, 0.4).requires_grad_(true);
      const torch::Tensor real =
          Transform(torch::from_blob(const_cast<float *>(base.data()), {n, k}, torch::kFloat).clone() * torch::exp(in) *
                        torch::exp(out).unsqueeze(1),
                    block);
      const torch::Tensor by_weight = torch::randn({n, k});
      (real * by_weight).sum().backward();

      Matrix wide = base;
      HadamardRows(wide, block);
      QuantizedMatrix integers = RoundToGrid(wide * 4, format, ScaleRule::kMinMax, {});  // no value leaves these grids
      ShapedWeight shaped(base, block, &integers);
      const std::vector<float> clip(static_cast<size_t>(shaped.grids()), 0.0f);
      const float *const in_logs = in.data_ptr<float>(), *const out_logs = out.data_ptr<float>();
      shaped.Round(in_logs, out_logs, clip.data());
      std::vector<float> by_in(k, 0.0f), by_out(n, 0.0f), by_clip(clip.size(), 0.0f);
      shaped.Gradient(in_logs, out_logs, clip.data(), by_weight.data_ptr<float>(), by_in.data(), by_out.data(), by_clip.data());
      for (int64_t i = 0; i < k; ++i) EXPECT_NEAR(by_in[static_cast<size_t>(i)], in.grad()[i].item<float>(), 2e-3) << i;
      for (int64_t i = 0; i < n; ++i) EXPECT_NEAR(by_out[static_cast<size_t>(i)], out.grad()[i].item<float>(), 2e-3) << i;

      const torch::NoGradGuard no_autograd;
      const Matrix now = shaped.Real(in_logs, out_logs), back = Dequantize(integers);
      for (int64_t r = 0; r < n; ++r) {
        for (int64_t c = 0; c < k; ++c) {
          EXPECT_NEAR(now(r, c), real[r][c].item<float>(), 1e-4);
          const double step = integers.scale[static_cast<size_t>(r)] * integers.multiplier(r, c);
          EXPECT_LE(std::abs(back(r, c) - now(r, c)), step * 0.5001);
        }
      }
    }
  }
}

/// Relative difference of two models' logits on a window.
double Difference(const torch::Tensor &a, const torch::Tensor &b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

class ShapedModel : public testing::TestWithParam<const char *> {
 protected:
  void ExpectScalesToLeaveTheFunctionAlone(int kv_bits);
};

/// Everything that `--kv 4` puts between v, q, k and attention stays, but for the bits: 15 steps would hide what is to be seen.
void WidenCache(QuantizedModel *model) {
  model->frame.writer.cache.bits = 8;
  for (QuantizedLayer &layer : model->layers) {
    // Twice the reach of 7 steps.
    for (double &step : layer.scales.k8) step /= 9;
    for (double &step : layer.scales.v8) step /= 9;
    RaiseToOneBinade(&layer.scales.v8, layer.scales.attn_out);
  }
}

void ShapedModel::ExpectScalesToLeaveTheFunctionAlone(int kv_bits) {
  const bool shared = std::string(GetParam()) != "small_llama";
  const std::string folder = std::string("models/tiny/") + GetParam();
  if (shared) ACORN_NEED_SHARED(folder);
  const auto source = OpenSourceModel(shared ? test::SharedPath(folder) : test::DataPath("small_llama"));
  const ModelConfig &config = source->config();
  RecipeOptions options;
  options.body_format = WeightFormat::kW8;
  options.kv_bits = kv_bits;
  if (kv_bits == 4) options.prefix_tokens.emplace();  // without one
  std::vector<LayerWeights> unrounded;
  QuantizedModel model = QuantizeSmall(*source, options, &unrounded);
  if (kv_bits == 4) WidenCache(&model);
  const CalibrationWindows windows = SomeWindows(config);
  const std::vector<int32_t> ids(windows.ids.begin(), windows.ids.begin() + 64);
  ModelTwin twin(config, &model, 64);
  const torch::Tensor before = twin.Logits(ids).to(torch::kFloat) * twin.logit_scale();
  Shaping shaping(config, &model, std::move(unrounded));
  torch::manual_seed(11);
  // Equivalent scales by up to a third either way; clipping and ranges stay.
  const std::vector<torch::Tensor> start = shaping.Values();
  std::vector<torch::Tensor> values = shaping.Values();
  for (torch::Tensor &value : values) {
    const bool is_scale = value.numel() == config.hidden || value.numel() == model.frame.ffn.padded ||
                          value.numel() == config.kv_heads * config.head_dim;
    if (is_scale) value.copy_(torch::rand_like(value) * 0.6 - 0.3);
  }
  // Clips of weights with as many rows as these have come first in each layer and stay.
  for (size_t layer = 0, each = values.size() / model.layers.size(); layer < model.layers.size(); ++layer) {
    for (size_t i = 0; i < Shaping::kWeights; ++i) values[layer * each + i].copy_(start[layer * each + i]);
  }
  shaping.SetValues(values);
  shaping.Apply();
  twin.Repack();
  twin.Refresh();
  const torch::Tensor after = twin.Logits(ids).to(torch::kFloat) * twin.logit_scale();
  // 8-bit weights and edges, rounded anew: a sign or a row taken wrong is 20 % and more.
  EXPECT_LT(Difference(after, before), 0.05);
}

TEST_P(ShapedModel, ScalesLeaveTheFunctionAlone) { ExpectScalesToLeaveTheFunctionAlone(8); }
TEST_P(ShapedModel, ScalesLeaveTheFunctionAloneBeforeACacheOf4Bits) { ExpectScalesToLeaveTheFunctionAlone(4); }

INSTANTIATE_TEST_SUITE_P(Models, ShapedModel, testing::Values("small_llama", "llama", "qwen2", "qwen3", "phi3", "gemma", "stablelm"),
                         [](const auto &c) { return std::string(c.param); });

/// Columns of a weight as they meet what a norm of gain 1 hands out.
Matrix Gained(Matrix weight, const RowVector &gain) {
  weight.array().rowwise() *= gain.array();
  return weight;
}

// A recurrence makes much of what rounding changes; so these are compared before it.
TEST(ShapedStateSpace, GainsTimesColumnsStay) {
  for (const char *name : {"small_mamba2", "small_bamba"}) {
    const auto source = OpenSourceModel(test::DataPath(name));
    std::vector<LayerWeights> unrounded;
    QuantizedModel model = QuantizeSmall(*source, {}, &unrounded);
    const int64_t block = model.frame.writer.state_block;
    Shaping shaping(source->config(), &model, std::move(unrounded));
    const auto products = [&](int64_t layer) {
      const QuantizedLayer &of = model.layers[static_cast<size_t>(layer)];
      Matrix out = shaping.Real(layer, Shaping::kO);
      HadamardRows(out, block);  // back before it
      return std::vector<Matrix>{Gained(shaping.Real(layer, Shaping::kQkv), of.attn_norm), Gained(out, of.ssm.norm)};
    };
    const std::vector<Matrix> before = products(0);
    const RowVector attn_norm = model.layers[0].attn_norm, gated_norm = model.layers[0].ssm.norm;
    torch::manual_seed(11);
    std::vector<torch::Tensor> values = shaping.Values();
    for (torch::Tensor &value : values) value.copy_(torch::rand_like(value) * 0.6 - 0.3);
    shaping.SetValues(values);
    shaping.Apply();
    EXPECT_NE(model.layers[0].attn_norm, attn_norm) << name;
    EXPECT_NE(model.layers[0].ssm.norm, gated_norm) << name;
    const std::vector<Matrix> after = products(0);
    for (size_t i = 0; i < before.size(); ++i) {
      EXPECT_LT((after[i] - before[i]).cwiseAbs().maxCoeff(), 1e-5f * before[i].cwiseAbs().maxCoeff()) << name << " " << i;
    }
  }
}

TEST(Rounding, GptqOnLearnedGridsIsCloserThanRounding) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  const ModelConfig &config = source->config();
  RecipeOptions options;
  options.body_format = WeightFormat::kW4;
  std::vector<LayerWeights> unrounded;
  QuantizedModel model = QuantizeSmall(*source, options, &unrounded);
  const CalibrationWindows windows = SomeWindows(config);
  std::vector<std::vector<int32_t>> ids;
  for (int i = 0; i < 4; ++i) ids.emplace_back(windows.ids.begin() + i * 64, windows.ids.begin() + (i + 1) * 64);
  const Matrix want = HeadScorer(*source).Logits(RunLayers(*source, ids[0], {0, 64}));
  const torch::Tensor float_logits = torch::from_blob(const_cast<float *>(want.data()), {64, config.vocab}, torch::kFloat).clone();
  ModelTwin twin(config, &model, 64);
  Shaping shaping(config, &model, std::move(unrounded));
  shaping.Apply();
  twin.Repack();
  twin.Refresh();
  const double nearest = Difference(twin.Logits(ids[0]).to(torch::kFloat) * twin.logit_scale(), float_logits);
  const std::vector<double> scales = model.layers[0].gate_up.scale;
  RoundOnLearnedGrids(shaping, ids, &twin, &model);
  const double gptq = Difference(twin.Logits(ids[0]).to(torch::kFloat) * twin.logit_scale(), float_logits);
  EXPECT_LT(gptq, nearest);
  for (size_t i = 0; i < scales.size(); ++i) EXPECT_NEAR(model.layers[0].gate_up.scale[i] / scales[i], 1, 0.2);
}

}  // namespace
}  // namespace acorn::compiler
