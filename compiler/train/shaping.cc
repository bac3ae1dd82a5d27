#include "train/shaping.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "passes/hadamard.h"
#include "quantize/grid.h"
#include "quantize/state_space_layer.h"
#include "write/op_integers.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kTaskRows = 16;
constexpr double kClipRate = 3, kRangeRate = 0.1;  // relative to the equivalent scales
/// 16-bit edges have room for twice what calibration saw; a scale may use up a part of it.
constexpr float kMostLog = 0.5f;
constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer

Matrix Stack(const std::vector<const Matrix *> &parts) {
  int64_t rows = 0;
  for (const Matrix *part : parts) rows += part->rows();
  Matrix all(rows, parts[0]->cols());
  int64_t row = 0;
  for (const Matrix *part : parts) {
    all.middleRows(row, part->rows()) = *part;
    row += part->rows();
  }
  return all;
}

float Limited(float log) { return std::min(std::max(log, -kMostLog), kMostLog); }

std::vector<double> Scaled(const std::vector<double> &start, const torch::Tensor &logs) {
  std::vector<double> result = start;
  for (size_t i = 0; i < start.size(); ++i) result[i] *= std::exp(static_cast<double>(logs.data_ptr<float>()[i]));
  return result;
}

torch::Tensor ToTensor(const std::vector<float> &values) { return torch::tensor(values); }

}  // namespace

ShapedWeight::ShapedWeight(Matrix base, int64_t block, QuantizedMatrix *to)
    : base_(std::move(base)), block_(block), to_(to), scale_start_(to->scale), multipliers_start_(to->multipliers) {}

int64_t ShapedWeight::grids() const { return to_->group() == 0 ? to_->n : to_->n * (to_->k / to_->group()); }

void ShapedWeight::RealRow(int64_t row, const float *in, const float *out, float *real) const {
  const float factor = std::exp(Limited(out[row]));
  const float *from = base_.data() + row * base_.cols();
  for (int64_t i = 0; i < base_.cols(); ++i) real[i] = from[i] * in[i] * factor;
  if (block_ > 1) HadamardBlocks(real, base_.cols(), block_);
}

float ShapedWeight::Step(int64_t row, int64_t group, const float *out, const float *clip) const {
  const auto r = static_cast<size_t>(row);
  const double scale = scale_start_[r] * std::exp(static_cast<double>(Limited(out[row])));
  if (to_->group() == 0) return static_cast<float>(scale * std::exp(static_cast<double>(clip[row])));
  const int64_t groups = to_->k / to_->group(), at = row * groups + group;
  const double wanted = multipliers_start_[static_cast<size_t>(at)] * std::exp(static_cast<double>(clip[at]));
  return static_cast<float>(scale * std::min(std::max(std::round(wanted), 1.0), static_cast<double>(LargestMultiplier(to_->k))));
}

void ShapedWeight::Round(const float *in, const float *out, const float *clip) {
  const int64_t k = to_->k, width = to_->group() == 0 ? k : to_->group(), groups = k / width;
  const float low = to_->format == WeightFormat::kW8 ? -127.0f : -8.0f, high = to_->format == WeightFormat::kW8 ? 127.0f : 7.0f;
  std::vector<float> factors(static_cast<size_t>(k));
  for (int64_t i = 0; i < k; ++i) factors[static_cast<size_t>(i)] = std::exp(Limited(in[i]));
  at::parallel_for(0, (to_->n + kTaskRows - 1) / kTaskRows, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> real(static_cast<size_t>(k));
    for (int64_t row = begin * kTaskRows; row < std::min(to_->n, end * kTaskRows); ++row) {
      RealRow(row, factors.data(), out, real.data());
      const double scale = scale_start_[static_cast<size_t>(row)] * std::exp(static_cast<double>(Limited(out[row])));
      to_->scale[static_cast<size_t>(row)] =
          to_->group() == 0 ? scale * std::exp(static_cast<double>(clip[row])) : scale;
      for (int64_t g = 0; g < groups; ++g) {
        const float step = Step(row, g, out, clip), inverse = 1 / step;
        if (to_->group() != 0) {
          to_->multipliers[static_cast<size_t>(row * groups + g)] = static_cast<uint8_t>(std::lround(static_cast<double>(step) / scale));
        }
        int8_t *q = to_->weights.data() + row * k + g * width;
        const float *w = real.data() + g * width;
        for (int64_t i = 0; i < width; ++i) {
          q[i] = static_cast<int8_t>((std::min(std::max(w[i] * inverse, low), high) + kMagic) - kMagic);
        }
      }
    }
  });
}

void ShapedWeight::Gradient(const float *in, const float *out, const float *clip, const float *by_weight, float *by_in,
                            float *by_out, float *by_clip) const {
  const int64_t k = to_->k, width = to_->group() == 0 ? k : to_->group(), groups = k / width;
  const int64_t tasks = (to_->n + kTaskRows - 1) / kTaskRows;
  const float low = to_->format == WeightFormat::kW8 ? -127.5f : -8.5f, high = to_->format == WeightFormat::kW8 ? 127.5f : 7.5f;
  std::vector<float> factors(static_cast<size_t>(k)), column_sums(static_cast<size_t>(tasks * k), 0.0f);
  for (int64_t i = 0; i < k; ++i) factors[static_cast<size_t>(i)] = std::exp(Limited(in[i]));
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> real(static_cast<size_t>(k)), passed(real.size());
    for (int64_t task = begin; task < end; ++task) {
      float *columns = column_sums.data() + task * k;
      for (int64_t row = task * kTaskRows; row < std::min(to_->n, (task + 1) * kTaskRows); ++row) {
        RealRow(row, factors.data(), out, real.data());
        const float *g = by_weight + row * k;
        for (int64_t group = 0; group < groups; ++group) {
          const float step = Step(row, group, out, clip), inverse = 1 / step;
          const int8_t *q = to_->weights.data() + row * k + group * width;
          float sum = 0;
          for (int64_t i = 0; i < width; ++i) {
            const int64_t at = group * width + i;
            const float units = real[static_cast<size_t>(at)] * inverse;
            const float inside = units >= low && units <= high ? g[at] : 0.0f;
            passed[static_cast<size_t>(at)] = inside;
            sum += g[at] * static_cast<float>(q[i]) * step - inside * real[static_cast<size_t>(at)];
          }
          by_clip[to_->group() == 0 ? row : row * groups + group] += sum;
        }
        if (block_ > 1) {
          // Back before the transform, which is its own inverse.
          HadamardBlocks(passed.data(), k, block_);
          HadamardBlocks(real.data(), k, block_);
        }
        float row_sum = 0;
        for (int64_t i = 0; i < k; ++i) {
          const float product = passed[static_cast<size_t>(i)] * real[static_cast<size_t>(i)];
          columns[i] += product;
          row_sum += product;
        }
        by_out[row] += row_sum;
      }
    }
  });
  for (int64_t task = 0; task < tasks; ++task) {
    for (int64_t i = 0; i < k; ++i) by_in[i] += column_sums[static_cast<size_t>(task * k + i)];
  }
}

Matrix ShapedWeight::Real(const float *in, const float *out) const {
  Matrix real(base_.rows(), base_.cols());
  std::vector<float> factors(static_cast<size_t>(base_.cols()));
  for (int64_t i = 0; i < base_.cols(); ++i) factors[static_cast<size_t>(i)] = std::exp(Limited(in[i]));
  for (int64_t row = 0; row < base_.rows(); ++row) RealRow(row, factors.data(), out, real.data() + row * base_.cols());
  return real;
}

Shaping::Shaping(const ModelConfig &config, QuantizedModel *model, std::vector<LayerWeights> weights)
    : config_(config), model_(model) {
  const int64_t kv_width = config.kv_heads * config.head_dim, state_block = model->frame.writer.state_block;
  for (size_t i = 0; i < weights.size(); ++i) {
    LayerWeights &w = weights[i];
    QuantizedLayer &to = model->layers[i];
    Layer layer;
    layer.state_space = !to.ssm.empty();
    HadamardRows(w.down, model->frame.ffn.block);  // its own inverse
    if (layer.state_space) {
      HadamardRows(w.ssm.out, state_block);
      layer.weights[kQkv] = ShapedWeight(StackInputs(w.ssm), 1, &to.qkv);
      layer.weights[kO] = ShapedWeight(std::move(w.ssm.out), state_block, &to.o);
    } else {
      layer.weights[kQkv] = ShapedWeight(Stack({&w.q, &w.k, &w.v}), 1, &to.qkv);
      layer.weights[kO] = ShapedWeight(std::move(w.o), 1, &to.o);
    }
    layer.weights[kGateUp] = ShapedWeight(Stack({&w.gate, &w.up}), 1, &to.gate_up);
    layer.weights[kDown] = ShapedWeight(std::move(w.down), model->frame.ffn.block, &to.down);
    for (int k = 0; k < kWeights; ++k) layer.clip[k] = adam_.New(layer.weights[k].grids(), kClipRate);
    layer.attn = adam_.New(to.qkv.k);
    layer.ffn = adam_.New(to.gate_up.k);
    layer.up = adam_.New(to.down.k);
    layer.value = adam_.New(layer.state_space ? to.o.k : kv_width);
    layer.query = adam_.New(layer.state_space ? 0 : kv_width);
    for (size_t *range : {&layer.attn_in, &layer.attn_out, &layer.ffn_in, &layer.down_in}) *range = adam_.New(1, kRangeRate);
    layer.q8 = adam_.New(static_cast<int64_t>(to.scales.q8.size()), kRangeRate);
    layer.k8 = adam_.New(static_cast<int64_t>(to.scales.k8.size()), kRangeRate);
    layer.v8 = adam_.New(static_cast<int64_t>(to.scales.v8.size()), kRangeRate);
    layer.scales = to.scales;
    layer.attn_norm = to.attn_norm;
    layer.ffn_norm = to.ffn_norm;
    layer.attn_norm_bias = to.attn_norm_bias;
    layer.ffn_norm_bias = to.ffn_norm_bias;
    layer.gated_norm = to.ssm.norm;
    layer.qkv_bias = to.qkv_bias;
    layer.gate_up_bias = to.gate_up_bias;
    layers_.push_back(std::move(layer));
    w = LayerWeights();  // only the shaped copies are kept
  }
}

/// A rotation mixes the two members of a pair, which share a scale: that of the first.
int64_t Shaping::PairOf(int64_t dim) const {
  const int64_t half = config_.rotary_dims / 2, within = dim % config_.head_dim;
  return within >= half && within < 2 * half ? dim - half : dim;
}

Shaping::Logs Shaping::LogsOf(const Layer &layer) const {
  const auto all = [&](size_t parameter) {
    const torch::Tensor &value = adam_.value(parameter);
    return std::vector<float>(value.data_ptr<float>(), value.data_ptr<float>() + value.numel());
  };
  const std::vector<float> up = all(layer.up), value = all(layer.value), query = all(layer.query);
  Logs logs;
  for (int k = 0; k < kWeights; ++k) logs.out[k].assign(static_cast<size_t>(layer.weights[k].integers().n), 0.0f);
  logs.in[kQkv] = all(layer.attn);
  logs.in[kGateUp] = all(layer.ffn);
  logs.in[kDown] = up;
  for (size_t i = 0; i < up.size(); ++i) logs.out[kGateUp][up.size() + i] = -up[i];
  if (layer.state_space) {
    logs.in[kO] = value;
    return logs;
  }
  const int64_t dim = config_.head_dim, q_width = config_.heads * dim, kv_width = config_.kv_heads * dim;
  const int64_t group = config_.heads / config_.kv_heads;
  const auto shared = [&](int64_t column) { return static_cast<size_t>(column / dim / group * dim + column % dim); };  // of its KV head
  float *rows = logs.out[kQkv].data();
  for (int64_t i = 0; i < q_width; ++i) {
    logs.in[kO].push_back(value[shared(i)]);
    if (!config_.qk_norm) rows[i] = query[static_cast<size_t>(PairOf(static_cast<int64_t>(shared(i))))];
  }
  for (int64_t i = 0; i < kv_width; ++i) {
    if (!config_.qk_norm) rows[q_width + i] = -query[static_cast<size_t>(PairOf(i))];
    rows[q_width + kv_width + i] = -value[static_cast<size_t>(i)];
  }
  return logs;
}

bool Shaping::Apply() {
  for (size_t i = 0; i < layers_.size(); ++i) {
    Layer &layer = layers_[i];
    QuantizedLayer &to = model_->layers[i];
    const Logs logs = LogsOf(layer);
    for (int k = 0; k < kWeights; ++k) {
      layer.weights[k].Round(logs.in[k].data(), logs.out[k].data(), adam_.value(layer.clip[k]).data_ptr<float>());
    }
    const auto gained = [](const RowVector &start, const std::vector<float> &columns) {
      RowVector norm = start;
      for (int64_t c = 0; c < norm.size(); ++c) norm[c] *= std::exp(-Limited(columns[static_cast<size_t>(c)]));
      return norm;
    };
    to.attn_norm = gained(layer.attn_norm, logs.in[kQkv]);
    to.ffn_norm = gained(layer.ffn_norm, logs.in[kGateUp]);
    to.ssm.norm = gained(layer.gated_norm, logs.in[kO]);
    to.attn_norm_bias = gained(layer.attn_norm_bias, logs.in[kQkv]);
    to.ffn_norm_bias = gained(layer.ffn_norm_bias, logs.in[kGateUp]);
    const auto scaled_bias = [](const RowVector &start, const std::vector<float> &rows) {
      RowVector bias = start;
      for (int64_t r = 0; r < bias.size(); ++r) bias[r] *= std::exp(Limited(rows[static_cast<size_t>(r)]));
      return bias;
    };
    to.qkv_bias = scaled_bias(layer.qkv_bias, logs.out[kQkv]);
    to.gate_up_bias = scaled_bias(layer.gate_up_bias, logs.out[kGateUp]);
    LayerScales &s = to.scales;
    s.attn_in = layer.scales.attn_in * std::exp(adam_.number(layer.attn_in));
    s.attn_out = layer.scales.attn_out * std::exp(adam_.number(layer.attn_out));
    s.ffn_in = layer.scales.ffn_in * std::exp(adam_.number(layer.ffn_in));
    s.down_in = layer.scales.down_in * std::exp(adam_.number(layer.down_in));
    s.q8 = Scaled(layer.scales.q8, adam_.value(layer.q8));
    s.k8 = Scaled(layer.scales.k8, adam_.value(layer.k8));
    s.v8 = Scaled(layer.scales.v8, adam_.value(layer.v8));
    RaiseToOneBinade(&s.v8, s.attn_out);
  }
  return true;
}

void Shaping::HeadGradients(const Layer &layer, const std::vector<float> &by_rows, const std::vector<float> &by_columns) {
  const int64_t dim = config_.head_dim, q_width = config_.heads * dim, kv_width = config_.kv_heads * dim;
  const int64_t group = config_.heads / config_.kv_heads;
  std::vector<float> value(static_cast<size_t>(kv_width), 0.0f), query(value.size(), 0.0f);
  const float *rows = by_rows.data();
  for (int64_t i = 0; i < q_width; ++i) {
    const int64_t shared = i / dim / group * dim + i % dim;
    value[static_cast<size_t>(shared)] += by_columns[static_cast<size_t>(i)];
    query[static_cast<size_t>(PairOf(shared))] += rows[i];
  }
  for (int64_t i = 0; i < kv_width; ++i) {
    query[static_cast<size_t>(PairOf(i))] -= rows[q_width + i];
    value[static_cast<size_t>(i)] -= rows[q_width + kv_width + i];
  }
  adam_.SetGradient(layer.value, ToTensor(value));
  if (!config_.qk_norm) adam_.SetGradient(layer.query, ToTensor(query));
}

void Shaping::LayerGradients(const Layer &layer, const LiveStep *steps, const StepGradients *gradients, size_t count) {
  const Logs logs = LogsOf(layer);
  std::vector<float> by_in[kWeights], by_out[kWeights];
  for (int k = 0; k < kWeights; ++k) {
    by_in[k].assign(logs.in[k].size(), 0.0f);
    by_out[k].assign(logs.out[k].size(), 0.0f);
  }
  const HeadUnitGradients heads = GradientsOfHeadUnits(steps, gradients, count);
  adam_.SetGradient(layer.q8, heads.q8);
  adam_.SetGradient(layer.k8, heads.k8);
  adam_.SetGradient(layer.v8, heads.v8);
  // What each norm's output goes to; those of queries and keys are no pair of anything.
  std::vector<int> readers = {kQkv};
  if (layer.state_space) readers.push_back(kO);
  if (!layer.state_space && config_.qk_norm) readers.insert(readers.end(), 2, kWeights);
  readers.push_back(kGateUp);
  int linear = 0;
  size_t norm = 0;
  for (size_t i = 0; i < count; ++i) {
    const StepGradients &g = gradients[i];
    switch (steps[i].step.kind) {
      case OpKind::kRmsNorm:
      case OpKind::kLayerNorm: {
        const int reader = readers[norm++];
        if (reader == kWeights) break;
        std::vector<float> &to = by_in[reader];
        for (size_t c = 0; c < to.size(); ++c) {
          to[c] -= g.gain.data_ptr<float>()[c] * static_cast<float>(steps[i].gain[c]);
          if (!steps[i].bias.empty()) to[c] -= g.bias.data_ptr<float>()[c] * static_cast<float>(steps[i].bias[c]);
        }
        if (steps[i].out.type == EdgeType::kS8) adam_.SetGradient(reader == kQkv ? layer.attn_in : layer.ffn_in, g.out_scale);
        break;
      }
      case OpKind::kLinear: {
        const ShapedWeight &weight = layer.weights[linear];
        std::vector<float> by_clip(static_cast<size_t>(weight.grids()), 0.0f);
        weight.Gradient(logs.in[linear].data(), logs.out[linear].data(), adam_.value(layer.clip[linear]).data_ptr<float>(),
                        g.weight.data_ptr<float>(), by_in[linear].data(), by_out[linear].data(), by_clip.data());
        for (size_t r = 0; r < steps[i].bias.size(); ++r) {
          by_out[linear][r] += g.bias.data_ptr<float>()[r] * static_cast<float>(steps[i].bias[r]);
        }
        adam_.SetGradient(layer.clip[linear], ToTensor(by_clip));
        ++linear;
        break;
      }
      case OpKind::kAttention:
        adam_.SetGradient(layer.attn_out, g.out_scale);
        break;
      case OpKind::kHadamard: {
        if (!steps[i].scales.empty()) break;  // of heads
        // Of down's input, of a state-space layer's out, or of another one of 15 bits: whichever the next linear layer reads.
        const size_t ranges[kWeights] = {layer.attn_in, layer.attn_out, layer.ffn_in, layer.down_in};
        adam_.SetGradient(ranges[linear], g.out_scale);
        break;
      }
      default:
        break;
    }
  }
  std::vector<float> up(by_in[kDown]);
  for (size_t i = 0; i < up.size(); ++i) up[i] -= by_out[kGateUp][up.size() + i];
  adam_.SetGradient(layer.attn, ToTensor(by_in[kQkv]));
  adam_.SetGradient(layer.ffn, ToTensor(by_in[kGateUp]));
  adam_.SetGradient(layer.up, ToTensor(up));
  if (layer.state_space) {
    adam_.SetGradient(layer.value, ToTensor(by_in[kO]));
  } else {
    HeadGradients(layer, by_out[kQkv], by_in[kO]);
  }
}

void Shaping::Step(const ModelTwin &twin, const ModelGradients &gradients, double rate) {
  const std::vector<size_t> &begins = twin.layer_begins();
  for (size_t i = 0; i < layers_.size(); ++i) {
    LayerGradients(layers_[i], twin.graph().body().data() + begins[i], gradients.body.data() + begins[i],
                   begins[i + 1] - begins[i]);
  }
  adam_.Step(rate);
}

Matrix Shaping::Real(int64_t layer, Weight weight) const {
  const Layer &from = layers_[static_cast<size_t>(layer)];
  const Logs logs = LogsOf(from);
  return from.weights[weight].Real(logs.in[weight].data(), logs.out[weight].data());
}

}  // namespace acorn::compiler
