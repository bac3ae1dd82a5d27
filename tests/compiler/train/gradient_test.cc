// Gradients of the twin against automatic differentiation of the same model in float, written here a second time.
#include <gtest/gtest.h>

#include <torch/torch.h>

#include <cmath>

#include "graph/float_model.h"
#include "tests/compiler/train/small_model.h"
#include "tests/support/shared_data.h"
#include "train/model_twin.h"
#include "train/parameters.h"

namespace acorn::compiler {
namespace {

torch::Tensor ToTensor(const Matrix &m) {
  return torch::from_blob(const_cast<float *>(m.data()), {m.rows(), m.cols()}, torch::kFloat).clone();
}
torch::Tensor ToTensor(const RowVector &v) {
  return torch::from_blob(const_cast<float *>(v.data()), {v.size()}, torch::kFloat).clone();
}

/// A quantised layer as real numbers that take gradients.
struct FloatLayer {
  torch::Tensor attn_norm, ffn_norm, qkv, o, gate_up, down, qkv_bias, o_bias, gate_up_bias, down_bias;
};

torch::Tensor Leaf(torch::Tensor t) { return t.requires_grad_(true); }
torch::Tensor Real(const QuantizedMatrix &matrix) {
  Matrix real(matrix.n, matrix.k);
  for (int64_t n = 0; n < matrix.n; ++n) {
    for (int64_t k = 0; k < matrix.k; ++k) {
      real(n, k) = static_cast<float>(matrix.scale[static_cast<size_t>(n)] * matrix.multiplier(n, k) * matrix.weight(n, k));
    }
  }
  return ToTensor(real);
}

torch::Tensor Normed(const torch::Tensor &x, const torch::Tensor &gain, double eps) {
  return x * torch::rsqrt(x.square().mean(-1, true) + eps) * gain;
}

/// x: [tokens, heads * dim]
torch::Tensor Turned(const torch::Tensor &x, int64_t heads, const RopeTable &table) {
  const int64_t tokens = x.size(0), dim = x.size(1) / heads, half = table.cos.cols();
  const torch::Tensor c = ToTensor(table.cos).narrow(0, 0, tokens).unsqueeze(1);
  const torch::Tensor s = ToTensor(table.sin).narrow(0, 0, tokens).unsqueeze(1);
  const torch::Tensor y = x.view({tokens, heads, dim});
  const torch::Tensor a = y.narrow(2, 0, half), b = y.narrow(2, half, half);
  return torch::cat({a * c - b * s, b * c + a * s, y.narrow(2, 2 * half, dim - 2 * half)}, 2);
}

class FloatTwin {
 public:
  FloatTwin(const ModelConfig &config, const QuantizedModel &model) : config_(config), block_(model.frame.ffn.block) {
    for (const QuantizedLayer &layer : model.layers) {
      layers.push_back({Leaf(ToTensor(layer.attn_norm)), Leaf(ToTensor(layer.ffn_norm)), Leaf(Real(layer.qkv)),
                        Leaf(Real(layer.o)), Leaf(Real(layer.gate_up)), Leaf(Real(layer.down)), Leaf(ToTensor(layer.qkv_bias)),
                        Leaf(ToTensor(layer.o_bias)), Leaf(ToTensor(layer.gate_up_bias)), Leaf(ToTensor(layer.down_bias))});
    }
    head_norm = Leaf(ToTensor(model.head.norm));
    head = Leaf(Real(model.head.weight));
    table_ = Real(model.embedding.n == 0 ? model.head.weight : model.embedding);
  }

  torch::Tensor Logits(const std::vector<int32_t> &ids) const {
    const auto tokens = static_cast<int64_t>(ids.size());
    const RopeTable rope = MakeRopeTable(config_, tokens);
    torch::Tensor x = table_.index_select(0, torch::tensor(std::vector<int64_t>(ids.begin(), ids.end())));
    const int64_t dim = config_.head_dim, q_width = config_.heads * dim, kv_width = config_.kv_heads * dim;
    for (const FloatLayer &l : layers) {
      const torch::Tensor qkv = torch::mm(Normed(x, l.attn_norm, config_.rms_eps), l.qkv.t()) + l.qkv_bias;
      const torch::Tensor q = Turned(qkv.narrow(1, 0, q_width).contiguous(), config_.heads, rope);
      const torch::Tensor k = Turned(qkv.narrow(1, q_width, kv_width).contiguous(), config_.kv_heads, rope);
      const torch::Tensor v = qkv.narrow(1, q_width + kv_width, kv_width).contiguous().view({tokens, config_.kv_heads, dim});
      const int64_t group = config_.heads / config_.kv_heads;
      std::vector<torch::Tensor> heads;
      for (int64_t h = 0; h < config_.heads; ++h) {
        torch::Tensor scores = torch::mm(q.select(1, h), k.select(1, h / group).t()) / std::sqrt(static_cast<double>(dim));
        scores = scores.masked_fill(torch::ones({tokens, tokens}, torch::kBool).triu(1), -INFINITY);
        heads.push_back(torch::mm(torch::softmax(scores, 1), v.select(1, h / group)));
      }
      x = x + torch::mm(torch::cat(heads, 1), l.o.t()) + l.o_bias;
      const torch::Tensor gate_up = torch::mm(Normed(x, l.ffn_norm, config_.rms_eps), l.gate_up.t()) + l.gate_up_bias;
      const std::vector<torch::Tensor> parts = gate_up.chunk(2, 1);
      x = x + torch::mm(Transformed(torch::silu(parts[0]) * parts[1]), l.down.t()) + l.down_bias;
    }
    return torch::mm(Normed(x, head_norm, config_.rms_eps), head.t());
  }

  std::vector<FloatLayer> layers;
  torch::Tensor head_norm, head;

 private:
  torch::Tensor Transformed(const torch::Tensor &x) const {  // orthonormal Hadamard transform of each block
    torch::Tensor y = x.reshape({-1, block_});
    for (int64_t half = 1; half < block_; half *= 2) {
      const torch::Tensor pairs = y.view({-1, block_ / (2 * half), 2, half});
      const torch::Tensor a = pairs.select(2, 0), b = pairs.select(2, 1);
      y = torch::stack({a + b, a - b}, 2).reshape({-1, block_});
    }
    return (y / std::sqrt(static_cast<double>(block_))).view(x.sizes());
  }

  ModelConfig config_;
  int64_t block_;
  torch::Tensor table_;
};

/// Of the direction: 1 minus the cosine of the angle; of the length: relative.
void ExpectClose(const torch::Tensor &got, const torch::Tensor &want, const std::string &what) {
  ASSERT_TRUE(got.defined()) << what;
  ASSERT_EQ(got.numel(), want.numel()) << what;
  const double cosine = (got.flatten() * want.flatten()).sum().item<double>() /
                        (got.norm().item<double>() * want.norm().item<double>());
  // Both are taken at rounded and at exact activations, and 8 bits differ by a percent or so.
  EXPECT_GT(cosine, 0.995) << what;
  EXPECT_NEAR(got.norm().item<double>() / want.norm().item<double>(), 1, 0.05) << what;
}

TEST(Gradients, AgreeWithAutomaticDifferentiation) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  const ModelConfig &config = source->config();
  RecipeOptions options;
  options.recipe = Recipe::kRtn;  // without a prefix
  options.body_format = WeightFormat::kW8;
  QuantizedModel model = QuantizeSmall(*source, options);
  Parameters(config, &model).Apply();  // biases everywhere
  const CalibrationWindows windows = SomeWindows(config);
  const std::vector<int32_t> ids(windows.ids.begin(), windows.ids.begin() + 48);
  torch::manual_seed(3);
  const torch::Tensor weight = torch::randn({48, config.vocab});

  const FloatTwin reference(config, model);
  (reference.Logits(ids) * weight).sum().backward();

  ModelTwin twin(config, &model, 48);
  ModelGradients gradients;
  twin.Accumulate(
      ids, [&](torch::Tensor *logits) { return logits->copy_(weight), 0.0; }, &gradients, true);

  const torch::NoGradGuard no_autograd;
  for (size_t layer = 0; layer < reference.layers.size(); ++layer) {
    const FloatLayer &want = reference.layers[layer];
    const std::string name = "layer " + std::to_string(layer) + " ";
    const torch::Tensor *const norms[] = {&want.attn_norm, &want.ffn_norm};
    const torch::Tensor *const weights[] = {&want.qkv, &want.o, &want.gate_up, &want.down};
    const torch::Tensor *const biases[] = {&want.qkv_bias, &want.o_bias, &want.gate_up_bias, &want.down_bias};
    size_t norm = 0, linear = 0;
    for (size_t i = twin.layer_begins()[layer]; i < twin.layer_begins()[layer + 1]; ++i) {
      const OpKind kind = twin.graph().body()[i].step.kind;
      const StepGradients &got = gradients.body[i];
      if (kind == OpKind::kRmsNorm) ExpectClose(got.gain, norms[norm]->grad(), name + "norm " + std::to_string(norm)), ++norm;
      if (kind != OpKind::kLinear) continue;
      const std::string which = name + "linear " + std::to_string(linear);
      ExpectClose(got.weight, weights[linear]->grad(), which + " weight");
      ExpectClose(got.bias, biases[linear]->grad(), which + " bias");
      // By the logarithm of a row's scale: the row's weights times their gradients.
      ExpectClose(got.rows, (weights[linear]->grad() * *weights[linear]).sum(1), which + " rows");
      ++linear;
    }
  }
  ExpectClose(gradients.head[0].gain, reference.head_norm.grad(), "head norm");
  ExpectClose(gradients.head[1].weight, reference.head.grad(), "head");
}

}  // namespace
}  // namespace acorn::compiler
