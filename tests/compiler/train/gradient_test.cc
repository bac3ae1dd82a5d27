// Gradients of the twin against automatic differentiation of the same model in float, written here a second time.
#include <gtest/gtest.h>

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "graph/float_model.h"
#include "tests/compiler/train/float_twin.h"
#include "tests/compiler/train/small_model.h"
#include "tests/support/shared_data.h"
#include "train/model_twin.h"
#include "train/parameters.h"
#include "write/model_writer.h"

namespace acorn::compiler {
namespace {

/// A quantised layer as real numbers that take gradients.
struct FloatLayer {
  torch::Tensor attn_norm, ffn_norm, qkv, o, gate_up, down, qkv_bias, o_bias, gate_up_bias, down_bias;
};

/// x: [tokens, heads * dim]
torch::Tensor Turned(const torch::Tensor &x, int64_t heads, const RopeTable &table) {
  const int64_t tokens = x.size(0), dim = x.size(1) / heads, half = table.cos.cols();
  const torch::Tensor c = ToTensor(table.cos).narrow(0, 0, tokens).unsqueeze(1);
  const torch::Tensor s = ToTensor(table.sin).narrow(0, 0, tokens).unsqueeze(1);
  const torch::Tensor y = x.view({tokens, heads, dim});
  const torch::Tensor a = y.narrow(2, 0, half), b = y.narrow(2, half, half);
  return torch::cat({a * c - b * s, b * c + a * s, y.narrow(2, 2 * half, dim - 2 * half)}, 2);
}

/// x: [tokens, heads, dim], in natural units of the scores but for 1 / sqrt(dim).
torch::Tensor Attended(const torch::Tensor &q, const torch::Tensor &k, const torch::Tensor &v) {
  const int64_t tokens = q.size(0), group = q.size(1) / k.size(1);
  std::vector<torch::Tensor> heads;
  for (int64_t h = 0; h < q.size(1); ++h) {
    torch::Tensor scores = torch::mm(q.select(1, h), k.select(1, h / group).t()) / std::sqrt(static_cast<double>(q.size(2)));
    scores = scores.masked_fill(torch::ones({tokens, tokens}, torch::kBool).triu(1), -INFINITY);
    heads.push_back(torch::mm(torch::softmax(scores, 1), v.select(1, h / group)));
  }
  return torch::cat(heads, 1);
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
      x = x + torch::mm(Attended(q, k, v), l.o.t()) + l.o_bias;
      const torch::Tensor gate_up = torch::mm(Normed(x, l.ffn_norm, config_.rms_eps), l.gate_up.t()) + l.gate_up_bias;
      const std::vector<torch::Tensor> parts = gate_up.chunk(2, 1);
      x = x + torch::mm(Transformed(torch::silu(parts[0]) * parts[1], block_), l.down.t()) + l.down_bias;
    }
    return torch::mm(Normed(x, head_norm, config_.rms_eps), head.t());
  }

  std::vector<FloatLayer> layers;
  torch::Tensor head_norm, head;

 private:
  ModelConfig config_;
  int64_t block_;
  torch::Tensor table_;
};

TEST(Gradients, AgreeWithAutomaticDifferentiation) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  const ModelConfig &config = source->config();
  RecipeOptions options;
  options.recipe = Recipe::kRtn;  // without a prefix
  options.body_format = WeightFormat::kW8;
  QuantizedModel model = QuantizeSmall(*source, options);
  Parameters(config, &model, false).Apply();  // biases everywhere
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

/// Rounded to [-limit, limit] units, straight through: by x where it stays inside, by the unit as learned step sizes have it.
/// units: to the shape of x.
torch::Tensor Rounded(const torch::Tensor &x, const torch::Tensor &units, double limit) {
  const torch::Tensor inside = (x / units).clamp(-limit - 0.5, limit + 0.5);
  return units * (inside + (inside.round().clamp(-limit, limit) - inside).detach());
}

TEST(Gradients, OfACacheOf4BitsAgreeWithAutomaticDifferentiation) {
  const auto source = OpenSourceModel(test::DataPath("small_llama"));
  const ModelConfig &config = source->config();
  RecipeOptions options;
  options.recipe = Recipe::kRtn;
  options.kv_bits = 4;
  const QuantizedModel model = QuantizeSmall(*source, options);
  const QuantizedLayer &layer = model.layers.front();
  const LayerScales &s = layer.scales;
  const int64_t tokens = 40, dim = config.head_dim, block = model.frame.writer.cache.head_block;
  const int64_t q_width = config.heads * dim, kv_width = config.kv_heads * dim;
  ASSERT_GT(block, 1);

  // From the outputs of q, k and v, in integers that reach as far as 8 bits go for queries, and beyond what 4 bits hold for others.
  torch::manual_seed(9);
  const auto spread = [&](const std::vector<double> &units, double reach, double scale) {
    const auto heads = static_cast<int64_t>(units.size());
    const torch::Tensor sizes = torch::tensor(units, torch::kDouble).to(torch::kFloat).view({1, heads, 1});
    return (torch::randn({tokens, heads, dim}) * sizes * (reach / scale)).round().clamp(-32767, 32767).view({tokens, heads * dim});
  };
  const torch::Tensor integers =
      torch::cat({spread(s.q8, 40, s.q16), spread(s.k8, 4, s.k16), spread(s.v8, 4, s.v16)}, 1);
  const torch::Tensor weight = torch::randn({tokens, q_width});

  const auto leaf = [](const std::vector<double> &units) {
    const auto heads = static_cast<int64_t>(units.size());
    return Leaf(torch::tensor(units, torch::kDouble).to(torch::kFloat).log().view({1, heads, 1}));
  };
  const torch::Tensor q = Leaf(integers.narrow(1, 0, q_width) * s.q16);
  const torch::Tensor k = Leaf(integers.narrow(1, q_width, kv_width) * s.k16);
  const torch::Tensor v = Leaf(integers.narrow(1, q_width + kv_width, kv_width) * s.v16);
  const torch::Tensor q8 = leaf(s.q8), k8 = leaf(s.k8), v8 = leaf(s.v8);
  const RopeTable rope = MakeRopeTable(config, tokens);
  const auto positioned = [&](const torch::Tensor &x, const torch::Tensor &logs, int64_t heads, double limit) {
    const double fine = 127 * std::sqrt(static_cast<double>(block)) / 32767;  // of a unit: what 16 bits hold before the transform
    return Rounded(Transformed(Rounded(Turned(x, heads, rope), logs.exp() * fine, 32767), block), logs.exp(), limit);
  };
  const torch::Tensor mixed = Attended(positioned(q, q8, config.heads, 127), positioned(k, k8, config.kv_heads, 7),
                                       Rounded(v.view({tokens, config.kv_heads, dim}), v8.exp(), 7));
  (Rounded(mixed, torch::full({1}, s.attn_out), 127) * weight).sum().backward();

  LiveGraph graph;
  ModelWriter writer(&graph, config, model.frame.writer);
  writer.Begin(model.stream_scale, nullptr);
  writer.AddLayer(layer);
  Machine machine(tokens, 0);
  machine.Load(&graph);
  const auto first = std::find_if(graph.body().begin(), graph.body().end(),
                                  [](const LiveStep &live) { return live.step.kind == OpKind::kRotate; });
  const auto last = std::find_if(first, graph.body().end(),
                                 [](const LiveStep &live) { return live.step.kind == OpKind::kAttention; });
  Port whole = first->in;  // all columns of the value that q is a part of
  whole.width = machine.view().values[whole.value].width;
  torch::Tensor buffer = torch::zeros({tokens, static_cast<int64_t>(RowBytes(machine.view().values[whole.value]))}, torch::kUInt8);
  buffer.view(torch::kShort).narrow(1, 0, whole.width).copy_(integers);
  const std::vector<int32_t> ids(static_cast<size_t>(tokens));
  Tape tape(&machine, ids);
  tape.SetBuffer(whole, buffer);
  const auto count = static_cast<size_t>(last - first) + 1;
  tape.Run(&*first, &*first + count, true);
  tape.SetGradient(last->out, weight);
  std::vector<StepGradients> gradients(count);
  const torch::NoGradGuard no_autograd;
  tape.Backward(gradients.data(), false);

  const torch::Tensor got = tape.TakeGradient(whole);
  ExpectClose(got.narrow(1, 0, q_width), q.grad(), "q");
  ExpectClose(got.narrow(1, q_width, kv_width), k.grad(), "k");
  ExpectClose(got.narrow(1, q_width + kv_width, kv_width), v.grad(), "v");
  const HeadUnitGradients heads = GradientsOfHeadUnits(&*first, gradients.data(), count);
  ExpectClose(heads.q8, q8.grad(), "units of queries");
  ExpectClose(heads.k8, k8.grad(), "units of keys");
  ExpectClose(heads.v8, v8.grad(), "units of values");
}

}  // namespace
}  // namespace acorn::compiler
