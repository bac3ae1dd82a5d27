// Gradients of convolution and recurrence, alone and in a whole model, against automatic differentiation of their formulas in
// float.
#include <gtest/gtest.h>

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "tests/compiler/train/float_twin.h"
#include "tests/compiler/train/small_model.h"
#include "tests/support/shared_data.h"
#include "train/model_twin.h"
#include "train/parameters.h"
#include "train/state_space_backward.h"
#include "write/model_writer.h"

namespace acorn::compiler {
namespace {

torch::Tensor Floats(const std::vector<double> &v) { return torch::tensor(v, torch::kDouble).to(torch::kFloat); }

/// xbc: [tokens, channels]; taps: [channels, taps]; before: [taps - 1, channels], undefined: zeros. Before the activation.
torch::Tensor Convolved(const torch::Tensor &xbc, const torch::Tensor &taps, const torch::Tensor &bias,
                        const torch::Tensor &before = {}) {
  const int64_t tokens = xbc.size(0), count = taps.size(1);
  const torch::Tensor padded = torch::cat({before.defined() ? before : torch::zeros({count - 1, xbc.size(1)}), xbc}, 0);
  torch::Tensor v = bias.unsqueeze(0).expand({tokens, -1});
  for (int64_t j = 0; j < count; ++j) v = v + padded.narrow(0, j, tokens) * taps.select(1, j);
  return v;
}

struct Recurrence {
  torch::Tensor bias, decay, skip;  // [heads]
  double min_step, max_step;
};
/// x: [tokens, heads * dim]; b, c: [tokens, groups * columns]; step: [tokens, heads]; before: the state in front of them, [heads,
/// dim, columns], undefined: zeros. Returns y, as x.
torch::Tensor Scanned(const torch::Tensor &x, const torch::Tensor &b, const torch::Tensor &c, const torch::Tensor &step,
                      int64_t groups, const Recurrence &of, const torch::Tensor &before = {}) {
  const int64_t tokens = x.size(0), heads = step.size(1), dim = x.size(1) / heads, columns = b.size(1) / groups;
  const auto of_heads = [&](const torch::Tensor &side) {
    return side.reshape({tokens, groups, columns}).repeat_interleave(heads / groups, 1);
  };
  const torch::Tensor xs = x.reshape({tokens, heads, dim}), bs = of_heads(b), cs = of_heads(c);
  const torch::Tensor dt = torch::softplus(step + of.bias).clamp(of.min_step, of.max_step), decay = torch::exp(dt * of.decay);
  torch::Tensor state = before.defined() ? before : torch::zeros({heads, dim, columns});
  std::vector<torch::Tensor> rows;
  for (int64_t t = 0; t < tokens; ++t) {
    const torch::Tensor in = (xs[t] * dt[t].unsqueeze(1)).unsqueeze(2) * bs[t].unsqueeze(1);
    state = state * decay[t].view({heads, 1, 1}) + in;
    rows.push_back((torch::matmul(state, cs[t].unsqueeze(2)).squeeze(2) + xs[t] * of.skip.unsqueeze(1)).flatten());
  }
  return torch::stack(rows);
}

/// Random integers [rows, width] with a stride, and the real numbers that they stand for.
struct RandomEdge {
  RandomEdge(int64_t rows, const std::vector<double> &units, double reach, uint32_t seed) {
    const auto width = static_cast<int64_t>(units.size());
    stride = width + 5;
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    integers.resize(static_cast<size_t>(rows * stride), 32767);
    real = torch::empty({rows, width});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < width; ++i) {
        const double q = std::round(std::clamp(normal(random) * reach / units[static_cast<size_t>(i)], -32767.0, 32767.0));
        integers[static_cast<size_t>(r * stride + i)] = static_cast<int16_t>(q);
        real[r][i] = q * units[static_cast<size_t>(i)];
      }
    }
    real.requires_grad_(true);
  }
  EdgeRows rows() const {
    EdgeRows edge;
    edge.data = integers.data();
    edge.stride = static_cast<size_t>(stride);
    return edge;
  }
  int64_t stride;
  std::vector<int16_t> integers;
  torch::Tensor real;
};

std::vector<double> Spread(const std::vector<double> &units, int64_t columns) {
  std::vector<double> all;
  for (const double unit : units) all.insert(all.end(), static_cast<size_t>(columns), unit);
  return all;
}

/// tolerance: of the largest.
void ExpectNear(const torch::Tensor &got, const torch::Tensor &want, double tolerance, const std::string &what) {
  EXPECT_LT((got - want).abs().max().item<double>(), tolerance * want.abs().max().item<double>()) << what;
}

TEST(StateSpaceGradients, OfTheConvolution) {
  constexpr int64_t kRows = 21, kChannels = 70;  // more than one task's
  for (const auto &[taps, with_prefix] : std::vector<std::pair<int64_t, bool>>{{2, false}, {4, false}, {4, true}}) {
    torch::manual_seed(4);
    ConvSpec spec;
    const torch::Tensor weights = torch::randn({kChannels, taps}), bias = torch::randn({kChannels});
    spec.taps = Eigen::Map<const Matrix>(weights.data_ptr<float>(), kChannels, taps);
    spec.bias = Eigen::Map<const RowVector>(bias.data_ptr<float>(), kChannels);
    for (int64_t c = 0; c < kChannels; ++c) {
      spec.in_scales.push_back(1e-4 * (1 + 0.02 * static_cast<double>(c)));
      spec.out_scales.push_back((c % 3 == 0 ? 1.5 : 12) / 32767);  // a third of the channels saturates often
    }
    spec.factor = ActivationFactors(ActivationKind::kSilu);
    const RandomEdge x(kRows, spec.in_scales, 1, 5);
    const torch::Tensor weight = torch::randn({kRows, kChannels});
    const torch::Tensor reach = Floats(spec.out_scales) * 32767.5;
    const torch::Tensor integers = torch::randint(-32767, 32768, {taps - 1, kChannels}, torch::kShort);
    const torch::Tensor before = integers.to(torch::kFloat) * Floats(spec.in_scales);
    const torch::Tensor v = Convolved(x.real, weights, bias, with_prefix ? before : torch::Tensor());
    (torch::silu(torch::max(torch::min(v, reach), -reach)) * weight).sum().backward();
    torch::Tensor got = torch::full({kRows, kChannels}, NAN);
    ConvBackward(kRows, spec, x.rows(), with_prefix ? integers.data_ptr<int16_t>() : nullptr, weight.data_ptr<float>(),
                 got.data_ptr<float>());
    ExpectNear(got, x.real.grad(), 2e-2, "x");  // the table's slopes are constant over a sixteenth
    ExpectClose(got, x.real.grad(), "x");
  }
}

void ExpectGradientsOfTheRecurrence(bool with_prefix) {
  constexpr int64_t kRows = 75, kDim = 6, kColumns = 10;  // whole blocks of rows and a part
  ScanSpec spec;
  spec.groups = 2;
  spec.x = {1e-3, 2e-3, 3e-3, 4e-3};
  spec.step = {1e-4, 2e-4, 3e-4, 4e-4};
  spec.b = {5e-4, 6e-4};
  spec.c = {7e-4, 8e-4};
  spec.step_bias = {-4, -2, -1, 1};
  spec.decay = {-0.01, -1, -4, -0.3};
  spec.skip = {0.5, -1, 2, 0};
  spec.min_step = 0.04;
  spec.max_step = 1.5;
  const RandomEdge x(kRows, Spread(spec.x, kDim), 1, 1), b(kRows, Spread(spec.b, kColumns), 1, 2), c(kRows, Spread(spec.c, kColumns), 1, 3);
  const RandomEdge step(kRows, spec.step, 1, 4);
  const Recurrence of = {Floats(spec.step_bias), Leaf(Floats(spec.decay)), Leaf(Floats(spec.skip)), spec.min_step,
                         spec.max_step};
  spec.state = {1e-8, 2e-8, 3e-8, 4e-8};
  torch::manual_seed(5);
  const torch::Tensor integers = torch::randint(-(1 << 28), 1 << 28, {4, kDim, kColumns}, torch::kInt);
  const torch::Tensor before = integers.to(torch::kFloat) * Floats(spec.state).view({4, 1, 1});
  const torch::Tensor y =
      Scanned(x.real, b.real, c.real, step.real, spec.groups, of, with_prefix ? before : torch::Tensor());
  const double unit = 8.0 / 32767;
  const torch::Tensor units = (y.detach() / unit).round().clamp(-32767, 32767);
  const double outside = (units.abs() == 32767).to(torch::kFloat).mean().item<double>();
  ASSERT_GT(outside, 0.01);
  ASSERT_LT(outside, 0.5);
  torch::manual_seed(6);
  const torch::Tensor weight = torch::randn({kRows, 4 * kDim});
  (y.clamp(-32767 * unit, 32767 * unit) * weight).sum().backward();

  const torch::Tensor out = units.to(torch::kShort).contiguous();
  EdgeRows out_rows;
  out_rows.data = out.data_ptr<int16_t>();
  out_rows.stride = static_cast<size_t>(4 * kDim);
  torch::Tensor dx = torch::empty({kRows, 4 * kDim}), db = torch::empty({kRows, 2 * kColumns}), dc = torch::empty_like(db);
  torch::Tensor dstep = torch::empty({kRows, 4}), decay = torch::zeros({4}), skip = torch::zeros({4});
  ScanBackward({kRows, kDim, kColumns}, spec,
               {with_prefix ? integers.data_ptr<int32_t>() : nullptr, x.rows(), b.rows(), c.rows(), step.rows(), out_rows},
               weight.data_ptr<float>(),
               {dx.data_ptr<float>(), db.data_ptr<float>(), dc.data_ptr<float>(), dstep.data_ptr<float>(), decay.data_ptr<float>(),
                skip.data_ptr<float>()});
  ExpectNear(dx, x.real.grad(), 1e-4, "x");
  ExpectNear(db, b.real.grad(), 1e-4, "B");
  ExpectNear(dc, c.real.grad(), 1e-4, "C");
  ExpectNear(dstep, step.real.grad(), 1e-4, "time step");
  ExpectNear(decay, of.decay.grad(), 1e-4, "A");
  ExpectNear(skip, of.skip.grad(), 1e-4, "D");
}

TEST(StateSpaceGradients, OfTheRecurrence) { ExpectGradientsOfTheRecurrence(false); }
TEST(StateSpaceGradients, OfTheRecurrenceBehindAPrefix) { ExpectGradientsOfTheRecurrence(true); }

/// A quantised state-space layer without an FFN as real numbers that take gradients.
struct FloatLayer {
  torch::Tensor norm, in, in_bias, gated_norm, out, out_bias;
  torch::Tensor taps, conv_bias;
  Recurrence recurrence;
};

FloatLayer FloatLayerOf(const QuantizedLayer &layer, const StateSpaceConfig &ssm) {
  const QuantizedStateSpace &part = layer.ssm;
  return {Leaf(ToTensor(layer.attn_norm)), Leaf(Real(layer.qkv)), Leaf(ToTensor(layer.qkv_bias)), Leaf(ToTensor(part.norm)),
          Leaf(Real(layer.o)), Leaf(ToTensor(layer.o_bias)), ToTensor(part.conv), ToTensor(part.conv_bias),
          {ToTensor(part.step_bias), Leaf(ToTensor(part.decay)), Leaf(ToTensor(part.skip)), ssm.min_step, ssm.max_step}};
}

torch::Tensor Ran(const FloatLayer &l, const torch::Tensor &x, const ModelConfig &config, int64_t block) {
  const StateSpaceConfig &ssm = config.ssm;
  const int64_t tokens = x.size(0), inner = ssm.inner(), side = ssm.groups * ssm.state;
  const torch::Tensor in = torch::mm(Normed(x, l.norm, config.rms_eps), l.in.t()) + l.in_bias;
  const torch::Tensor xbc = torch::silu(Convolved(in.narrow(1, inner, inner + 2 * side), l.taps, l.conv_bias));
  const torch::Tensor y = Scanned(xbc.narrow(1, 0, inner), xbc.narrow(1, inner, side), xbc.narrow(1, inner + side, side),
                                  in.narrow(1, 2 * inner + 2 * side, ssm.heads), ssm.groups, l.recurrence);
  const torch::Tensor gated = (y * torch::silu(in.narrow(1, 0, inner))).view({tokens, ssm.groups, inner / ssm.groups});
  const torch::Tensor normed = Normed(gated, l.gated_norm.view({ssm.groups, -1}), config.rms_eps).reshape({tokens, inner});
  return x + torch::mm(Transformed(normed, block), l.out.t()) + l.out_bias;
}

TEST(StateSpaceGradients, OfAWholeModel) {
  const auto source = OpenSourceModel(test::DataPath("small_mamba2"));
  const ModelConfig &config = source->config();
  RecipeOptions options;
  options.recipe = Recipe::kRtn;
  options.body_format = WeightFormat::kW8;
  QuantizedModel model = QuantizeSmall(*source, options);
  Parameters(config, &model, false).Apply();  // biases everywhere
  const CalibrationWindows windows = SomeWindows(config);
  const std::vector<int32_t> ids(windows.ids.begin(), windows.ids.begin() + 48);
  torch::manual_seed(3);
  const torch::Tensor weight = torch::randn({48, config.vocab});

  std::vector<FloatLayer> layers;
  torch::Tensor x = Real(model.embedding).index_select(0, torch::tensor(std::vector<int64_t>(ids.begin(), ids.end())));
  for (const QuantizedLayer &layer : model.layers) {
    layers.push_back(FloatLayerOf(layer, config.ssm));
    x = Ran(layers.back(), x, config, model.frame.writer.state_block);
  }
  (torch::mm(Normed(x, ToTensor(model.head.norm), config.rms_eps), Real(model.head.weight).t()) * weight).sum().backward();

  ModelTwin twin(config, &model, 48);
  ModelGradients gradients;
  twin.Accumulate(
      ids, [&](torch::Tensor *logits) { return logits->copy_(weight), 0.0; }, &gradients, true);

  const torch::NoGradGuard no_autograd;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const FloatLayer &want = layers[layer];
    const std::string name = "layer " + std::to_string(layer) + " ";
    const torch::Tensor *const norms[] = {&want.norm, &want.gated_norm};
    const torch::Tensor *const weights[] = {&want.in, &want.out};
    const torch::Tensor *const biases[] = {&want.in_bias, &want.out_bias};
    size_t norm = 0, linear = 0;
    for (size_t i = twin.layer_begins()[layer]; i < twin.layer_begins()[layer + 1]; ++i) {
      const StepGradients &got = gradients.body[i];
      switch (twin.graph().body()[i].step.kind) {
        case OpKind::kRmsNorm:
          ExpectClose(got.gain, norms[norm]->grad(), name + "norm " + std::to_string(norm));
          ++norm;
          break;
        case OpKind::kLinear: {
          const std::string which = name + "linear " + std::to_string(linear);
          ExpectClose(got.weight, weights[linear]->grad(), which + " weight");
          ExpectClose(got.bias, biases[linear]->grad(), which + " bias");
          ExpectClose(got.rows, (weights[linear]->grad() * *weights[linear]).sum(1), which + " rows");
          ++linear;
          break;
        }
        case OpKind::kScan:
          // Of a few heads, each the difference of long sums, to which every row's rounding adds (measured: 0.12).
          ExpectNear(got.decay, want.recurrence.decay.grad(), 0.25, name + "decay");
          ExpectClose(got.skip, want.recurrence.skip.grad(), name + "skip");
          break;
        default:
          break;
      }
    }
    EXPECT_EQ(norm, 2u);
    EXPECT_EQ(linear, 2u);
  }
}

}  // namespace
}  // namespace acorn::compiler
