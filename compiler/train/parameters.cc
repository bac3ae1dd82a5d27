#include "train/parameters.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "quantize/cached.h"
#include "write/op_integers.h"

namespace acorn::compiler {
namespace {

constexpr double kRangeRate = 0.5;   // a range is one number for a whole edge: slower than the numbers of single channels
constexpr double kZeroRate = 20;     // units, not shares
constexpr double kOffsetRate = 2;    // steps of a weight's grid, not shares
constexpr double kReachShare = 0.1;  // of an output's reach: a typical magnitude, the unit of its bias

std::vector<double> Scaled(const std::vector<double> &start, const torch::Tensor &logs) {
  const float *by = logs.data_ptr<float>();
  std::vector<double> result(start.size());
  for (size_t i = 0; i < start.size(); ++i) result[i] = start[i] * std::exp(static_cast<double>(by[i]));
  return result;
}

RowVector Gained(const RowVector &start, const torch::Tensor &shares) {
  const float *by = shares.data_ptr<float>();
  RowVector result = start;
  for (int64_t i = 0; i < start.size(); ++i) result[i] *= 1 + by[i];
  return result;
}

/// The bias of a norm moves in units of its gains, which are typical magnitudes of its output.
RowVector Shifted(const RowVector &start, const RowVector &gain, const torch::Tensor &shares) {
  const float *by = shares.data_ptr<float>();
  RowVector result = start;
  for (int64_t i = 0; i < start.size(); ++i) result[i] += by[i] * std::abs(gain[i]);
  return result;
}

torch::Tensor ToTensor(const RowVector &row) {
  return torch::from_blob(const_cast<float *>(row.data()), {row.size()}, torch::kFloat).clone();
}

/// Real numbers of the constant prefix [rows, heads, dim], and back.
std::vector<double> RealPrefix(const std::vector<int8_t> &integers, const std::vector<double> &scales, size_t dim) {
  std::vector<double> real(integers.size());
  for (size_t i = 0; i < real.size(); ++i) real[i] = integers[i] * scales[i / dim % scales.size()];
  return real;
}
std::vector<int8_t> IntegerPrefix(const std::vector<double> &real, const std::vector<double> &scales, size_t dim, double limit) {
  std::vector<int8_t> integers(real.size());
  for (size_t i = 0; i < real.size(); ++i) {
    const double units = std::round(real[i] / scales[i / dim % scales.size()]);
    integers[i] = static_cast<int8_t>(std::min(std::max(units, -limit), limit));
  }
  return integers;
}

std::vector<double> Moved(const std::vector<double> &start, const torch::Tensor &shares, double unit) {
  const float *by = shares.data_ptr<float>();
  std::vector<double> result = start;
  for (size_t i = 0; i < start.size(); ++i) result[i] += static_cast<double>(by[i]) * unit;
  return result;
}

/// A typical magnitude of cached rows: the unit of the prefix.
double PrefixUnit(const std::vector<double> &scales, double limit) {
  if (scales.empty()) return 0;  // a layer without attention has no such rows
  return *std::max_element(scales.begin(), scales.end()) * limit * kReachShare;
}

/// Units of the biases of n columns, from the unit of the 16-bit edge that they end in, which has twice the reach.
RowVector BiasUnits(int64_t n, double scale) {
  return RowVector::Constant(n, static_cast<float>(scale * EdgeLimit(EdgeType::kS16) / 2 * kReachShare));
}

/// The same of q, k and v, or of a state-space layer's gate, conv_in and step.
RowVector InputBiasUnits(const QuantizedLayer &layer) {
  const LayerScales &s = layer.scales;
  if (layer.ssm.empty()) return BiasUnits(layer.qkv.n, std::min({s.q16, s.k16, s.v16}));
  const StateSpaceScales &ssm = layer.ssm.scales;
  RowVector units = BiasUnits(layer.qkv.n, ssm.gate16);
  int64_t column = layer.qkv.n - static_cast<int64_t>(ssm.conv_in16.size() + ssm.step16.size());
  for (const std::vector<double> *scales : {&ssm.conv_in16, &ssm.step16}) {
    for (const double scale : *scales) units.segment(column++, 1) = BiasUnits(1, scale);
  }
  return units;
}

int32_t ZeroPoint(double value) { return static_cast<int32_t>(std::lround(std::min(std::max(value, -64.0), 64.0))); }

}  // namespace

Parameters::LinearParameters Parameters::NewLinear(const QuantizedMatrix &matrix, const RowVector &bias,
                                                   RowVector bias_unit) {
  LinearParameters linear;
  linear.rows = adam_.New(matrix.n, 1);
  linear.bias = adam_.New(matrix.n, 1);
  linear.scale = matrix.scale;
  linear.bias_start.assign(static_cast<size_t>(matrix.n), 0);
  for (int64_t i = 0; i < bias.size(); ++i) linear.bias_start[static_cast<size_t>(i)] = static_cast<double>(bias[i]);
  linear.bias_unit = std::move(bias_unit);
  return linear;
}

Parameters::Parameters(const ModelConfig &config, QuantizedModel *model, bool integers, const Shaping *shaping)
    : model_(model),
      head_dim_(static_cast<size_t>(config.head_dim)),
      cache_limit_(CacheLimit(model->frame.writer.cache.bits)) {
  for (const QuantizedLayer &from : model->layers) {
    const LayerScales &s = from.scales;
    LayerParameters layer;
    layer.qkv = NewLinear(from.qkv, from.qkv_bias, InputBiasUnits(from));
    layer.o = NewLinear(from.o, from.o_bias, BiasUnits(from.o.n, s.o16));
    layer.gate_up = NewLinear(from.gate_up, from.gate_up_bias, BiasUnits(from.gate_up.n, std::min(s.gate16, s.up16)));
    layer.down = NewLinear(from.down, from.down_bias, BiasUnits(from.down.n, s.down16));
    layer.attn_norm = adam_.New(from.attn_norm.size(), 1);
    layer.ffn_norm = adam_.New(from.ffn_norm.size(), 1);
    layer.attn_norm_bias = adam_.New(from.attn_norm_bias.size(), 1);
    layer.ffn_norm_bias = adam_.New(from.ffn_norm_bias.size(), 1);
    layer.q_norm = adam_.New(from.q_norm.size(), 1);
    layer.k_norm = adam_.New(from.k_norm.size(), 1);
    layer.attn_in = adam_.New(1, kRangeRate);
    layer.attn_out = adam_.New(1, kRangeRate);
    layer.ffn_in = adam_.New(1, kRangeRate);
    layer.down_in = adam_.New(1, kRangeRate);
    layer.attn_in_zero = adam_.New(1, kZeroRate);
    layer.attn_out_zero = adam_.New(1, kZeroRate);
    layer.ffn_in_zero = adam_.New(1, kZeroRate);
    layer.down_in_zero = adam_.New(1, kZeroRate);
    layer.q8 = adam_.New(static_cast<int64_t>(s.q8.size()), kRangeRate);
    layer.k8 = adam_.New(static_cast<int64_t>(s.k8.size()), kRangeRate);
    layer.v8 = adam_.New(static_cast<int64_t>(s.v8.size()), kRangeRate);
    layer.gated_norm = adam_.New(from.ssm.norm.size(), 1);
    layer.decay = adam_.New(from.ssm.decay.size(), 1);
    layer.skip = adam_.New(from.ssm.skip.size(), 1);
    layer.prefix_k_start = RealPrefix(from.prefix_k, s.k8, static_cast<size_t>(config.head_dim));
    layer.prefix_v_start = RealPrefix(from.prefix_v, s.v8, static_cast<size_t>(config.head_dim));
    layer.prefix_k = adam_.New(static_cast<int64_t>(layer.prefix_k_start.size()), 1);
    layer.prefix_v = adam_.New(static_cast<int64_t>(layer.prefix_v_start.size()), 1);
    layer.scales = s;
    layer.attn_norm_start = from.attn_norm;
    layer.ffn_norm_start = from.ffn_norm;
    layer.attn_norm_bias_start = from.attn_norm_bias;
    layer.ffn_norm_bias_start = from.ffn_norm_bias;
    layer.q_norm_start = from.q_norm;
    layer.k_norm_start = from.k_norm;
    layer.gated_norm_start = from.ssm.norm;
    layer.decay_start = from.ssm.decay;
    layer.skip_start = from.ssm.skip;
    layers_.push_back(std::move(layer));
  }
  if (integers) {
    for (size_t i = 0; i < model->layers.size(); ++i) {
      QuantizedLayer &layer = model->layers[i];
      QuantizedMatrix *const matrices[] = {&layer.qkv, &layer.o, &layer.gate_up, &layer.down};
      for (int weight = 0; weight < Shaping::kWeights; ++weight) {
        if (matrices[weight]->n == 0) continue;  // of an FFN that is not there
        offsets_.emplace_back(matrices[weight]);
        if (shaping == nullptr) continue;
        offsets_.back().StartFrom(shaping->Real(static_cast<int64_t>(i), static_cast<Shaping::Weight>(weight)));
      }
    }
  }
  const QuantizedHead &head = model->head;
  head_rows_ = adam_.New(head.weight.n, 1);
  head_norm_ = adam_.New(head.norm.size(), 1);
  head_norm_bias_ = adam_.New(head.norm_bias.size(), 1);
  head_in_ = adam_.New(1, kRangeRate);
  head_in_zero_ = adam_.New(1, kZeroRate);
  head_scale_ = head.weight.scale;
  head_norm_start_ = head.norm;
  head_norm_bias_start_ = head.norm_bias;
  head_in_start_ = head.in_scale;
  if (model->embedding.n == 0 && model->head.embedding_scale.empty()) model->head.embedding_scale = head_scale_;
}

void Parameters::ApplyLinear(const LinearParameters &linear, QuantizedMatrix *matrix, RowVector *bias) const {
  matrix->scale = Scaled(linear.scale, adam_.value(linear.rows));
  const float *by = adam_.value(linear.bias).data_ptr<float>();
  bias->resize(matrix->n);
  for (int64_t i = 0; i < matrix->n; ++i) {
    (*bias)[i] = static_cast<float>(linear.bias_start[static_cast<size_t>(i)] + static_cast<double>(by[i] * linear.bias_unit[i]));
  }
}

void Parameters::ApplyLayer(const LayerParameters &layer, QuantizedLayer *to) const {
  ApplyLinear(layer.qkv, &to->qkv, &to->qkv_bias);
  ApplyLinear(layer.o, &to->o, &to->o_bias);
  ApplyLinear(layer.gate_up, &to->gate_up, &to->gate_up_bias);
  ApplyLinear(layer.down, &to->down, &to->down_bias);
  to->attn_norm = Gained(layer.attn_norm_start, adam_.value(layer.attn_norm));
  to->ffn_norm = Gained(layer.ffn_norm_start, adam_.value(layer.ffn_norm));
  to->attn_norm_bias = Shifted(layer.attn_norm_bias_start, layer.attn_norm_start, adam_.value(layer.attn_norm_bias));
  to->ffn_norm_bias = Shifted(layer.ffn_norm_bias_start, layer.ffn_norm_start, adam_.value(layer.ffn_norm_bias));
  to->q_norm = Gained(layer.q_norm_start, adam_.value(layer.q_norm));
  to->k_norm = Gained(layer.k_norm_start, adam_.value(layer.k_norm));
  to->ssm.norm = Gained(layer.gated_norm_start, adam_.value(layer.gated_norm));
  to->ssm.decay = Gained(layer.decay_start, adam_.value(layer.decay));
  to->ssm.skip = Gained(layer.skip_start, adam_.value(layer.skip));
  LayerScales &s = to->scales;
  s.attn_in = layer.scales.attn_in * std::exp(adam_.number(layer.attn_in));
  s.attn_out = layer.scales.attn_out * std::exp(adam_.number(layer.attn_out));
  s.ffn_in = layer.scales.ffn_in * std::exp(adam_.number(layer.ffn_in));
  s.down_in = layer.scales.down_in * std::exp(adam_.number(layer.down_in));
  const auto zero = [&](EdgeType type, size_t parameter) {
    return type == EdgeType::kS8 ? ZeroPoint(adam_.number(parameter)) : 0;
  };
  s.attn_in_zero = zero(to->inputs.attn_in, layer.attn_in_zero);
  s.attn_out_zero = ZeroPoint(adam_.number(layer.attn_out_zero));
  s.ffn_in_zero = zero(to->inputs.ffn_in, layer.ffn_in_zero);
  s.down_in_zero = zero(to->inputs.down_in, layer.down_in_zero);
  s.q8 = Scaled(layer.scales.q8, adam_.value(layer.q8));
  s.k8 = Scaled(layer.scales.k8, adam_.value(layer.k8));
  s.v8 = Scaled(layer.scales.v8, adam_.value(layer.v8));
  RaiseToOneBinade(&s.v8, s.attn_out);
  to->prefix_k = IntegerPrefix(
      Moved(layer.prefix_k_start, adam_.value(layer.prefix_k), PrefixUnit(layer.scales.k8, cache_limit_)), s.k8, head_dim_,
      cache_limit_);
  to->prefix_v = IntegerPrefix(
      Moved(layer.prefix_v_start, adam_.value(layer.prefix_v), PrefixUnit(layer.scales.v8, cache_limit_)), s.v8, head_dim_,
      cache_limit_);
}

bool Parameters::Apply() {
  for (size_t i = 0; i < layers_.size(); ++i) ApplyLayer(layers_[i], &model_->layers[i]);
  QuantizedHead &head = model_->head;
  head.weight.scale = Scaled(head_scale_, adam_.value(head_rows_));
  head.norm = Gained(head_norm_start_, adam_.value(head_norm_));
  head.norm_bias = Shifted(head_norm_bias_start_, head_norm_start_, adam_.value(head_norm_bias_));
  head.in_scale = head_in_start_ * std::exp(adam_.number(head_in_));
  head.in_zero = ZeroPoint(adam_.number(head_in_zero_));
  return !offsets_.empty();
}

void Parameters::LinearGradients(const LinearParameters &linear, const StepGradients &gradients) {
  adam_.SetGradient(linear.rows, gradients.rows);
  adam_.SetGradient(linear.bias, gradients.bias * ToTensor(linear.bias_unit));
}

void Parameters::LayerGradients(const LayerParameters &layer, const LiveStep *steps, const StepGradients *gradients,
                                size_t count) {
  const LinearParameters *const linears[] = {&layer.qkv, &layer.o, &layer.gate_up, &layer.down};
  const bool head_norms = layer.q_norm_start.size() != 0;
  struct Norm {
    size_t gain;
    const RowVector *start;
    size_t bias;         // of a LayerNorm
    size_t scale, zero;  // of an 8-bit output
  };
  const Norm attn{layer.attn_norm, &layer.attn_norm_start, layer.attn_norm_bias, layer.attn_in, layer.attn_in_zero};
  const Norm ffn{layer.ffn_norm, &layer.ffn_norm_start, layer.ffn_norm_bias, layer.ffn_in, layer.ffn_in_zero};
  std::vector<Norm> norms = {attn};
  if (head_norms) {
    norms.push_back({layer.q_norm, &layer.q_norm_start, 0, 0, 0});
    norms.push_back({layer.k_norm, &layer.k_norm_start, 0, 0, 0});
  }
  if (layer.gated_norm_start.size() != 0) norms.push_back({layer.gated_norm, &layer.gated_norm_start, 0, 0, 0});
  norms.push_back(ffn);
  const HeadUnitGradients heads = GradientsOfHeadUnits(steps, gradients, count);
  adam_.SetGradient(layer.q8, heads.q8);
  adam_.SetGradient(layer.k8, heads.k8);
  adam_.SetGradient(layer.v8, heads.v8);
  size_t linear = 0, norm = 0;
  for (size_t i = 0; i < count; ++i) {
    const StepGradients &g = gradients[i];
    switch (steps[i].step.kind) {
      case OpKind::kLayerNorm:
        adam_.SetGradient(norms[norm].bias, g.bias * ToTensor(*norms[norm].start).abs());
        [[fallthrough]];
      case OpKind::kRmsNorm: {
        const Norm &to = norms[norm++];
        adam_.SetGradient(to.gain, g.gain * ToTensor(*to.start));
        if (steps[i].out.type == EdgeType::kS8) {
          adam_.SetGradient(to.scale, g.out_scale);
          adam_.SetGradient(to.zero, g.out_zero);
        }
        break;
      }
      case OpKind::kLinear:
        LinearGradients(*linears[linear++], g);
        break;
      case OpKind::kAppend:
        if (g.prefix_k.defined()) {
          adam_.SetGradient(layer.prefix_k, g.prefix_k.flatten() * PrefixUnit(layer.scales.k8, cache_limit_));
          adam_.SetGradient(layer.prefix_v, g.prefix_v.flatten() * PrefixUnit(layer.scales.v8, cache_limit_));
        }
        break;
      case OpKind::kAttention:
        adam_.SetGradient(layer.attn_out, g.out_scale);
        adam_.SetGradient(layer.attn_out_zero, g.out_zero);
        break;
      case OpKind::kHadamard: {
        if (!steps[i].scales.empty()) break;  // of heads
        // Of down's input, of a state-space layer's out, or of another one of 15 bits: whichever the next linear layer reads.
        const LinearParameters *next = linears[linear];
        adam_.SetGradient(next == &layer.qkv       ? layer.attn_in
                          : next == &layer.o       ? layer.attn_out
                          : next == &layer.gate_up ? layer.ffn_in
                                                   : layer.down_in,
                          g.out_scale);
        if (next == &layer.o) adam_.SetGradient(layer.attn_out_zero, g.out_zero);
        if (next == &layer.down) adam_.SetGradient(layer.down_in_zero, g.out_zero);
        break;
      }
      case OpKind::kScan:
        adam_.SetGradient(layer.decay, g.decay * ToTensor(layer.decay_start));
        adam_.SetGradient(layer.skip, g.skip * ToTensor(layer.skip_start));
        break;
      default:
        break;
    }
  }
}

void Parameters::Step(const ModelTwin &twin, const ModelGradients &gradients, double rate) {
  const std::vector<size_t> &begins = twin.layer_begins();
  for (size_t i = 0; i < layers_.size(); ++i) {
    LayerGradients(layers_[i], twin.graph().body().data() + begins[i], gradients.body.data() + begins[i],
                   begins[i + 1] - begins[i]);
  }
  for (size_t i = 0; i < gradients.head.size(); ++i) {
    const StepGradients &g = gradients.head[i];
    const OpKind kind = twin.graph().head()[i].step.kind;
    if (kind == OpKind::kLayerNorm) adam_.SetGradient(head_norm_bias_, g.bias * ToTensor(head_norm_start_).abs());
    if (kind == OpKind::kRmsNorm || kind == OpKind::kLayerNorm) {
      adam_.SetGradient(head_norm_, g.gain * ToTensor(head_norm_start_));
      adam_.SetGradient(head_in_, g.out_scale);
      adam_.SetGradient(head_in_zero_, g.out_zero);
    } else {
      adam_.SetGradient(head_rows_, g.rows);
    }
  }
  adam_.Step(rate);
  for (size_t i = 0, next = 0; i < gradients.body.size() && !offsets_.empty(); ++i) {
    if (twin.graph().body()[i].step.kind == OpKind::kLinear) offsets_[next++].Step(gradients.body[i].weight, rate * kOffsetRate);
  }
}

std::vector<torch::Tensor> Parameters::Values() const {
  std::vector<torch::Tensor> values = adam_.Values();
  for (const Offsets &offsets : offsets_) values.push_back(offsets.Integers());
  return values;
}

void Parameters::SetValues(const std::vector<torch::Tensor> &values) {
  adam_.SetValues(values);
  const size_t first = values.size() - offsets_.size();
  for (size_t i = 0; i < offsets_.size(); ++i) offsets_[i].SetIntegers(values[first + i]);
}

std::vector<torch::Tensor> Parameters::State() const {
  std::vector<torch::Tensor> state = adam_.State();
  for (const Offsets &offsets : offsets_) {
    for (torch::Tensor &tensor : offsets.State()) state.push_back(std::move(tensor));
  }
  return state;
}

void Parameters::SetState(const std::vector<torch::Tensor> &state) {
  adam_.SetState(state);
  const torch::Tensor *from = state.data() + (state.size() - offsets_.size() * Offsets::kStateTensors);
  for (size_t i = 0; i < offsets_.size(); ++i) offsets_[i].SetState(from + i * Offsets::kStateTensors);
}

}  // namespace acorn::compiler
