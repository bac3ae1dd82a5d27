#include "train/elastic_model.h"

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "train/product.h"

namespace acorn::compiler {
namespace {

using torch::Tensor;

constexpr double kAlpha = 16;  // an addition is kAlpha / rank * b a (UniQL: 16 at rank 8)

/// A view: the weights outlive it.
Tensor View(const Matrix &m) { return torch::from_blob(const_cast<float *>(m.data()), {m.rows(), m.cols()}, torch::kFloat); }
Tensor View(const RowVector &v) {
  return v.size() == 0 ? Tensor() : torch::from_blob(const_cast<float *>(v.data()), {v.size()}, torch::kFloat);
}

Matrix ToMatrix(const Tensor &x) {
  const Tensor whole = x.detach().contiguous();
  return Eigen::Map<const Matrix>(whole.data_ptr<float>(), whole.size(0), whole.size(1));
}

/// The first `kept` of each `size` rows.
Tensor KeepOfEach(const Tensor &rows, int64_t size, int64_t kept) {
  if (!rows.defined() || kept == size) return rows;
  if (rows.dim() == 1) return rows.view({-1, size}).narrow(1, 0, kept).reshape({-1});
  return rows.view({-1, size, rows.size(1)}).narrow(1, 0, kept).reshape({-1, rows.size(1)});
}

Tensor KeepFirst(const Tensor &rows, int64_t kept) { return rows.defined() ? rows.narrow(0, 0, kept) : rows; }

/// x / sqrt(mean(x^2) + eps) * gain, over the last dimension.
Tensor RmsNormed(const Tensor &x, const Tensor &gain, double eps) {
  return x * (x.square().mean(-1, true) + eps).rsqrt() * gain;
}

Tensor Activated(const Tensor &x, ActivationKind kind) {
  switch (kind) {
    case ActivationKind::kSilu:
      return torch::silu(x);
    case ActivationKind::kGeluTanh:
      return at::gelu(x, "tanh");
    case ActivationKind::kGelu:
      return at::gelu(x);
  }
  return x;
}

/// [t, outer, inner, block] as [t, inner, outer, block], which turns heads before blocks into blocks before heads, and back.
Tensor Swapped(const Tensor &x, int64_t outer, int64_t block) {
  return x.reshape({x.size(0), outer, -1, block}).permute({0, 2, 1, 3}).reshape({x.size(0), -1});
}

Rotary MakeRotary(const ModelConfig &config, const LayerOrder &order, const RopeTable &table) {
  const int64_t positions = table.cos.rows(), kv_heads = config.kv_heads;
  const bool blocked = !order.pairs.empty();
  const int64_t pairs = blocked ? config.head_dim / 2 : config.rotary_dims / 2;
  Rotary rotary = {torch::ones({positions, kv_heads, pairs}), torch::zeros({positions, kv_heads, pairs}), blocked};
  for (int64_t i = 0; i < kv_heads * pairs; ++i) {
    const int64_t frequency = blocked ? order.pairs[static_cast<size_t>(i)] : i % pairs;
    if (blocked && frequency == LayerOrder::kNotRotated) continue;
    for (int64_t t = 0; t < positions; ++t) {
      rotary.cos.data_ptr<float>()[t * kv_heads * pairs + i] = table.cos(t, frequency);
      rotary.sin.data_ptr<float>()[t * kv_heads * pairs + i] = table.sin(t, frequency);
    }
  }
  return rotary;
}

/// out[t] = sum over j of taps[:, j] * x[t - (width - 1) + j] + bias.  x: [t, channels], taps: [channels, width]
Tensor Convolved(const Tensor &x, const Tensor &taps, const Tensor &bias) {
  const int64_t width = taps.size(1);
  const Tensor padded = torch::cat({torch::zeros({width - 1, x.size(1)}), x});
  Tensor sum = padded.narrow(0, 0, x.size(0)) * taps.select(1, 0);
  for (int64_t j = 1; j < width; ++j) sum = sum + padded.narrow(0, j, x.size(0)) * taps.select(1, j);
  return bias.defined() ? sum + bias : sum;
}

/// Rows of q and k that LoadLayer() multiplied by RopeConfig::attention_factor, as factors.
RowVector FactorsOf(const Matrix &loaded, const Matrix &source) {
  RowVector factors = RowVector::Ones(loaded.rows());
  for (int64_t i = 0; i < loaded.rows(); ++i) {
    if (source.row(i).norm() > 0) factors(i) = loaded.row(i).norm() / source.row(i).norm();
  }
  return factors;
}

}  // namespace

std::vector<const ElasticModel::LinearWeight *> ElasticModel::Layer::linears() const {
  std::vector<const LinearWeight *> all;
  for (const LinearWeight *linear : {&q, &k, &v, &o, &gate, &up, &down, &ssm_gate, &conv_in, &step, &out}) {
    if (linear->weight.defined()) all.push_back(linear);
  }
  return all;
}

ElasticModel::ElasticModel(const SourceModel &source, int64_t positions, int64_t rank, uint64_t seed)
    : source_(source), config_(source.config()), rank_(rank) {
  const RopeTable rope = MakeRopeTable(config_, positions);
  layers_.reserve(static_cast<size_t>(config_.layers));  // tensors look at what lies in it
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    layers_.push_back(NewLayer(source, layer, rope, &seed));
    whole_.push_back(WholeWidths(config_, layer));
  }
  final_norm_ = LoadVector(source, TensorRole::kFinalNorm);
  final_norm_bias_ = LoadVector(source, TensorRole::kFinalNormBias);
  head_matrix_ = source.Load(TensorRole::kHead);
  head_ = View(head_matrix_);
}

ElasticModel::LinearWeight ElasticModel::NewLinear(TensorRole role, const Matrix &weight, const RowVector &bias, uint64_t *random) {
  if (weight.size() == 0) return {};
  const int64_t n = weight.rows(), k = weight.cols();
  // Uniform with the variance 1 / (3 k), as LoRA's own code begins; b at zero adds nothing.
  Tensor a = torch::empty({rank_, k});
  const double reach = 1 / std::sqrt(static_cast<double>(k));
  for (int64_t i = 0; i < a.numel(); ++i) {
    const double unit = static_cast<double>(NextRandom(random) >> 11) * 0x1p-53;
    a.data_ptr<float>()[i] = static_cast<float>(reach * (2 * unit - 1));
  }
  LinearWeight linear = {role, View(weight), View(bias), a.requires_grad_(), torch::zeros({n, rank_}).requires_grad_()};
  parameters_.push_back(linear.a);
  parameters_.push_back(linear.b);
  return linear;
}

ElasticModel::Layer ElasticModel::NewLayer(const SourceModel &source, int64_t layer, const RopeTable &rope, uint64_t *random) {
  Layer result;
  result.weights = LoadLayer(source, layer);
  const LayerWeights &w = result.weights;
  if (config_.IsStateSpace(layer)) {
    result.ssm_gate = NewLinear(TensorRole::kSsmGate, w.ssm.gate, {}, random);
    result.conv_in = NewLinear(TensorRole::kSsmConvIn, w.ssm.conv_in, {}, random);
    result.step = NewLinear(TensorRole::kSsmStep, w.ssm.step, w.ssm.step_bias, random);
    result.out = NewLinear(TensorRole::kSsmOut, w.ssm.out, {}, random);
  } else {
    result.q = NewLinear(TensorRole::kQ, w.q, w.q_bias, random);
    result.k = NewLinear(TensorRole::kK, w.k, w.k_bias, random);
    result.v = NewLinear(TensorRole::kV, w.v, w.v_bias, random);
    result.o = NewLinear(TensorRole::kO, w.o, w.o_bias, random);
    result.rotary = MakeRotary(config_, w.order, rope);
  }
  result.gate = NewLinear(TensorRole::kGate, w.gate, w.gate_bias, random);
  result.up = NewLinear(TensorRole::kUp, w.up, w.up_bias, random);
  result.down = NewLinear(TensorRole::kDown, w.down, w.down_bias, random);
  return result;
}

Tensor ElasticModel::Linear(const Pass &pass, const LinearWeight &linear, const Tensor &x, const Keep &keep) const {
  // Inputs that are dropped stand at the end.
  const Tensor weight = keep(linear.weight).narrow(1, 0, x.size(1)), bias = keep(linear.bias);
  if (!pass.with_additions) return LowRankLinear(x, weight, bias, {}, {}, 0);
  return LowRankLinear(x, weight, bias, linear.a.narrow(1, 0, x.size(1)), keep(linear.b), kAlpha / static_cast<double>(rank_));
}

Tensor ElasticModel::Norm(const Tensor &x, const RowVector &gain, const RowVector &bias) const {
  if (config_.norm == NormKind::kLayer) return torch::layer_norm(x, {x.size(1)}, View(gain), View(bias), config_.rms_eps);
  return RmsNormed(x, View(gain), config_.rms_eps);
}

Tensor ElasticModel::AttentionPart(const Pass &pass, const Tensor &x) const {
  const Layer &layer = *pass.layer;
  const LayerWeights &w = layer.weights;
  const int64_t tokens = x.size(0), dim = config_.head_dim, qk = pass.widths.qk, values = pass.widths.v;
  const Keep keep_qk = [&](const Tensor &rows) { return KeepOfEach(rows, dim, qk); };
  const Keep keep_v = [&](const Tensor &rows) { return KeepOfEach(rows, dim, values); };
  const Tensor in = Norm(x, w.attn_norm, w.attn_norm_bias);
  const auto limited = [&](const Tensor &rows) {
    return config_.qkv_limit == 0 ? rows : rows.clamp(-config_.qkv_limit, config_.qkv_limit);
  };
  const auto heads_of = [&](const LinearWeight &linear, const RowVector &norm, int64_t heads) {
    Tensor rows = Linear(pass, linear, in, keep_qk);
    if (config_.qk_norm) {
      rows = RmsNormed(rows.view({tokens, -1, norm.size()}), View(norm), config_.rms_eps);
      rows = limited(rows);
    }
    return Rotate(rows.reshape({tokens, heads, qk}), layer.rotary);
  };
  const Tensor q = heads_of(layer.q, w.q_norm, config_.heads), k = heads_of(layer.k, w.k_norm, config_.kv_heads);
  const Tensor v = limited(Linear(pass, layer.v, in, keep_v)).view({tokens, config_.kv_heads, values});
  const double scale = config_.attention_scale != 0 ? config_.attention_scale : 1 / std::sqrt(static_cast<double>(dim));
  const Tensor attended = CausalAttention(q, k, v, scale, config_.WindowOf(pass.layer - layers_.data()));
  const Tensor out_in = w.order.rank_major ? Swapped(attended, config_.heads, LayerOrder::kRankBlock)
                                           : attended.reshape({tokens, config_.heads * values});
  return Linear(pass, layer.o, out_in, [](const Tensor &rows) { return rows; });
}

Tensor ElasticModel::StateSpacePart(const Pass &pass, const Tensor &x) const {
  const Layer &layer = *pass.layer;
  const StateSpaceWeights &w = layer.weights.ssm;
  const StateSpaceConfig &config = config_.ssm;
  const int64_t tokens = x.size(0), state = pass.widths.state, channels = pass.widths.channels, kept = config.heads * channels;
  const int64_t states = config.groups * state;
  const bool channel_major = layer.weights.order.channel_major;
  const Keep keep_channels = [&](const Tensor &rows) { return KeepFirst(rows, kept); };
  const Keep keep_inputs = [&](const Tensor &rows) {  // of the convolution: x, then B and C of each group
    if (!rows.defined() || kept + 2 * states == config.conv_channels()) return rows;
    const Tensor bc = rows.narrow(0, config.inner(), 2 * config.groups * config.state);
    return torch::cat({rows.narrow(0, 0, kept), KeepOfEach(bc, config.state, state)});
  };
  const Tensor in = Norm(x, layer.weights.attn_norm, layer.weights.attn_norm_bias);
  const Tensor gate = Linear(pass, layer.ssm_gate, in, keep_channels);
  const Tensor convolved = Activated(
      Convolved(Linear(pass, layer.conv_in, in, keep_inputs), keep_inputs(View(w.conv)), keep_inputs(View(w.conv_bias))),
      config_.activation);
  const Tensor steps = torch::softplus(Linear(pass, layer.step, in, [](const Tensor &rows) { return rows; }))
                           .clamp(config.min_step, config.max_step);
  Tensor channels_in = convolved.narrow(1, 0, kept);
  if (channel_major) channels_in = Swapped(channels_in, channels / LayerOrder::kChannelBlock, LayerOrder::kChannelBlock);
  const Tensor b = convolved.narrow(1, kept, states).reshape({tokens, config.groups, state});
  const Tensor c = convolved.narrow(1, kept + states, states).reshape({tokens, config.groups, state});
  const Tensor scanned =
      Scan(channels_in.reshape({tokens, config.heads, channels}), steps, b, c, View(w.decay), View(w.skip));
  const Tensor in_order =
      channel_major ? Swapped(scanned, config.heads, LayerOrder::kChannelBlock) : scanned.reshape({tokens, kept});
  const Tensor gated = (in_order * torch::silu(gate)).view({tokens, config.groups, -1});
  const Tensor gain = KeepFirst(View(w.norm), kept).view({config.groups, -1});
  const Tensor normed = RmsNormed(gated, gain, config_.rms_eps * w.norm_eps_factor).view({tokens, kept});
  return Linear(pass, layer.out, normed, [](const Tensor &rows) { return rows; });
}

Tensor ElasticModel::FfnPart(const Pass &pass, const Tensor &x) const {
  const Layer &layer = *pass.layer;
  const Keep keep = [&](const Tensor &rows) { return KeepFirst(rows, std::min(pass.widths.ffn, layer.gate.weight.size(0))); };
  const Tensor in = Norm(x, layer.weights.ffn_norm, layer.weights.ffn_norm_bias);
  const Tensor gate = Activated(Linear(pass, layer.gate, in, keep), config_.activation);
  return Linear(pass, layer.down, gate * Linear(pass, layer.up, in, keep), [](const Tensor &rows) { return rows; });
}

Tensor ElasticModel::Hidden(const std::vector<int32_t> &ids, const std::vector<LayerWidths> &widths, bool with_additions) const {
  const Matrix embedded = Embed(source_, ids);
  Tensor x = View(embedded).clone();
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Pass pass = {&layers_[i], widths[i], with_additions};
    x = x + config_.residual_scale *
                (config_.IsStateSpace(static_cast<int64_t>(i)) ? StateSpacePart(pass, x) : AttentionPart(pass, x));
    if (config_.HasFfn(static_cast<int64_t>(i))) x = x + config_.residual_scale * FfnPart(pass, x);
  }
  return Norm(x, final_norm_, final_norm_bias_) * config_.logit_scale;
}

Tensor ElasticModel::Normed(const std::vector<int32_t> &ids, const std::vector<LayerWidths> &widths) const {
  return Hidden(ids, widths, true);
}

Tensor ElasticModel::SourceNormed(const std::vector<int32_t> &ids) const {
  const torch::NoGradGuard no_gradient;
  return Hidden(ids, whole_, false);
}

Tensor ElasticModel::Logits(const Tensor &normed) const {
  const torch::NoGradGuard no_gradient;
  return Product(normed.detach(), head_.t());
}

void ElasticModel::BackwardOfLogits(const Tensor &normed, const Tensor &gradient) const {
  normed.backward(Product(gradient, head_));
}

void ElasticModel::ScaleAdditions(double factor) {
  const torch::NoGradGuard no_gradient;
  for (const Layer &layer : layers_) {
    for (const LinearWeight *linear : layer.linears()) Tensor(linear->b).mul_(factor);
  }
}

std::vector<LowRankAddition> ElasticModel::Additions() const {
  std::vector<LowRankAddition> additions;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const auto layer = static_cast<int64_t>(i);
    for (const LinearWeight *linear : layers_[i].linears()) {
      LowRankAddition addition = {linear->role, layer, ToMatrix(linear->b), ToMatrix(linear->a)};
      addition.b *= static_cast<float>(kAlpha / static_cast<double>(rank_));
      const bool has_factor = linear->role == TensorRole::kQ || linear->role == TensorRole::kK;
      if (has_factor && config_.rope.attention_factor != 1) {
        const RowVector factors = FactorsOf(ToMatrix(linear->weight), source_.Load(linear->role, layer));
        addition.b.array().colwise() /= factors.transpose().array();
      }
      additions.push_back(std::move(addition));
    }
  }
  return additions;
}

}  // namespace acorn::compiler
