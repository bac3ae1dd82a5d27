#include "train/tape.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cassert>
#include <cmath>

namespace acorn::compiler {
namespace {

constexpr int64_t kRowsPerTask = 16;

torch::ScalarType TypeOf(EdgeType type) {
  return type == EdgeType::kS8 ? torch::kChar : type == EdgeType::kS32 ? torch::kInt : torch::kShort;
}

torch::Tensor ToTensor(const std::vector<double> &values) {
  return torch::tensor(values, torch::kDouble).to(torch::kFloat);
}

void AddTo(torch::Tensor *sum, const torch::Tensor &value) {
  if (sum->defined()) {
    sum->add_(value);
  } else {
    *sum = value.clone();
  }
}

/// What comes back through the rounding of an edge.
struct Rounding {
  torch::Tensor passed;     // the gradient of the values before, zero where they saturate
  torch::Tensor log_scale;  // of each value, by the logarithm of its unit
  torch::Tensor outside;    // float 1 where a value saturates
};

/// value: real, before rounding. integers: after. unit: broadcasts to them.
Rounding ThroughRounding(const torch::Tensor &gradient, const torch::Tensor &value, const torch::Tensor &integers,
                         const torch::Tensor &unit, int32_t zero_point, double limit) {
  const torch::Tensor in_units = value / unit;
  const torch::Tensor outside = ((in_units + zero_point).abs() > limit + 0.5).to(torch::kFloat);
  Rounding result;
  result.passed = gradient * (1 - outside);
  // y = unit * (q - z): dy / d log(unit) = y - value inside, y outside.
  result.log_scale = gradient * (integers - static_cast<float>(zero_point)) * unit - result.passed * value;
  result.outside = outside;
  return result;
}

/// The integers of a weight, multipliers included, as floats [n, k].
torch::Tensor WeightIntegers(const QuantizedMatrix &matrix) {
  torch::Tensor out = torch::empty({matrix.n, matrix.k}, torch::kFloat);
  float *to = out.data_ptr<float>();
  const int64_t group = matrix.group() == 0 ? matrix.k : matrix.group(), groups = matrix.k / group;
  at::parallel_for(0, matrix.n, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t g = 0; g < groups; ++g) {
        const float m = matrix.multipliers.empty() ? 1.0f : matrix.multipliers[static_cast<size_t>(r * groups + g)];
        const int8_t *from = matrix.weights.data() + r * matrix.k + g * group;
        float *row = to + r * matrix.k + g * group;
        for (int64_t i = 0; i < group; ++i) row[i] = m * static_cast<float>(from[i]);
      }
    }
  });
  return out;
}

/// Rotates pairs (i, i + half) of [tokens, heads, dim] by the angle, or back.
torch::Tensor RotatePairs(const torch::Tensor &x, const torch::Tensor &cosine, const torch::Tensor &sine, bool back) {
  const int64_t half = cosine.size(1), tokens = x.size(0);
  if (half == 0) return x;
  const torch::Tensor c = cosine.narrow(0, 0, tokens).unsqueeze(1);
  const torch::Tensor s = back ? -sine.narrow(0, 0, tokens).unsqueeze(1) : sine.narrow(0, 0, tokens).unsqueeze(1);
  const torch::Tensor a = x.narrow(2, 0, half), b = x.narrow(2, half, half);
  std::vector<torch::Tensor> parts = {a * c - b * s, b * c + a * s};
  if (x.size(2) > 2 * half) parts.push_back(x.narrow(2, 2 * half, x.size(2) - 2 * half));
  return torch::cat(parts, 2);
}

torch::Tensor SylvesterHadamard(int64_t order) {
  torch::Tensor h = torch::ones({1, 1});
  while (h.size(0) < order) {
    h = torch::cat({torch::cat({h, h}, 1), torch::cat({h, -h}, 1)}, 0);
  }
  return h / std::sqrt(static_cast<float>(order));
}

}  // namespace

torch::Tensor Tape::Real(const torch::Tensor &buffer, const Port &port) {
  const torch::Tensor integers = buffer.view(TypeOf(port.type)).narrow(1, port.offset, port.width).to(torch::kFloat);
  if (port.zero_point != 0) return (integers - static_cast<float>(port.zero_point)) * static_cast<float>(port.scale);
  return integers * static_cast<float>(port.scale);
}

torch::Tensor Tape::Integers(const torch::Tensor &buffer, const Port &port) const {
  return buffer.view(TypeOf(port.type)).narrow(1, port.offset, port.width).to(torch::kFloat);
}

void Tape::SetBuffer(const Port &port, torch::Tensor buffer) {
  buffers_.resize(machine_->view().values.size());
  buffers_[port.value] = std::move(buffer);
}

void Tape::Run(const LiveStep *begin, const LiveStep *end, bool record) {
  buffers_.resize(machine_->view().values.size());
  for (const LiveStep *live = begin; live != end; ++live) {
    Record entry{live, {}, {}, {}};
    const OpKind kind = live->step.kind;
    if (record) {
      entry.in = buffers_[live->in.value];
      if (kind == OpKind::kGlu || kind == OpKind::kAppend || kind == OpKind::kAdd) entry.other = buffers_[live->other.value];
    }
    machine_->Run(*live, &buffers_, tokens_);
    if (!record) continue;
    if (kind != OpKind::kAppend) entry.out = buffers_[live->out.value];
    records_.push_back(std::move(entry));
  }
}

void Tape::SetGradient(const Port &port, torch::Tensor gradient) {
  gradients_.resize(machine_->view().values.size());
  gradients_[port.value] = std::move(gradient);
}

torch::Tensor Tape::TakeGradient(const Port &port) {
  torch::Tensor gradient = std::move(gradients_[port.value]);
  gradients_[port.value] = torch::Tensor();
  return gradient;
}

void Tape::AddGradient(const Port &port, const torch::Tensor &gradient) {
  torch::Tensor &whole = gradients_[port.value];
  const int64_t width = machine_->view().values[port.value].width;
  if (port.width == width) {
    whole = whole.defined() ? whole + gradient : gradient;
    return;
  }
  if (!whole.defined()) whole = torch::zeros({gradient.size(0), width});
  whole.narrow(1, port.offset, port.width).add_(gradient);
}

void Tape::BackRmsNorm(const Record &record, StepGradients *to) {
  const LiveStep &live = *record.live;
  const int64_t groups = live.step.rms_norm.groups, width = live.in.width / groups, tokens = record.in.size(0);
  const torch::Tensor x = Real(record.in, live.in).reshape({tokens, groups, width});
  const torch::Tensor gain = ToTensor(live.gain);
  const torch::Tensor r = torch::rsqrt(x.square().mean(2, true) + live.eps);
  const torch::Tensor normed = x * r;
  const torch::Tensor g = TakeGradient(live.out).reshape({tokens, groups, width});
  const Rounding rounding =
      ThroughRounding(g, normed * gain, Integers(record.out, live.out).reshape({tokens, groups, width}),
                      torch::scalar_tensor(live.out.scale), live.out.zero_point, EdgeLimit(live.out.type));
  AddTo(&to->out_scale, rounding.log_scale.sum().reshape({1}));
  AddTo(&to->out_zero, (rounding.outside * g).sum().reshape({1}) * -static_cast<float>(live.out.scale));
  AddTo(&to->gain, (rounding.passed * normed).sum(torch::IntArrayRef({0, 1})));
  const torch::Tensor gn = rounding.passed * gain;
  const torch::Tensor dx = r * (gn - normed * (gn * normed).mean(2, true));
  AddGradient(live.in, dx.reshape({tokens, groups * width}));
}

void Tape::BackLinear(const Record &record, StepGradients *to, bool weights) {
  const LiveStep &live = *record.live;
  const LiveWeight &weight = machine_->graph().weight(live.step.linear.weight);
  const torch::Tensor g = TakeGradient(live.out);
  const torch::Tensor y = Integers(record.out, live.out);
  const torch::Tensor bias_gradient = g.sum(0);
  torch::Tensor rows = (g * y).sum(0) * ToTensor(live.scales);
  if (!live.bias.empty()) rows = rows - bias_gradient * ToTensor(live.bias);
  AddTo(&to->rows, rows);
  AddTo(&to->bias, bias_gradient);
  const torch::Tensor scaled = g * ToTensor(weight.info.scale);
  AddGradient(live.in, torch::mm(scaled, WeightIntegers(*weight.matrix)));
  if (weights) AddTo(&to->weight, torch::mm(g.t(), Real(record.in, live.in)));
}

void Tape::BackRotate(const Record &record, StepGradients *to) {
  const LiveStep &live = *record.live;
  const RotateOp &op = live.step.rotate;
  const int64_t tokens = record.in.size(0), heads = op.heads, dim = live.in.width / heads;
  const auto shape = {tokens, heads, dim};
  const torch::Tensor &cosine = machine_->cosine(op.rope), &sine = machine_->sine(op.rope);
  const torch::Tensor rotated = RotatePairs(Real(record.in, live.in).reshape(shape), cosine, sine, false);
  const torch::Tensor g = TakeGradient(live.out).reshape(shape);
  const Rounding rounding = ThroughRounding(g, rotated, Integers(record.out, live.out).reshape(shape),
                                            ToTensor(live.scales).reshape({1, heads, 1}), 0, EdgeLimit(live.out.type));
  AddTo(&to->out_scale, rounding.log_scale.sum(torch::IntArrayRef({0, 2})));
  AddGradient(live.in, RotatePairs(rounding.passed, cosine, sine, true).reshape({tokens, heads * dim}));
}

void Tape::BackAppend(const Record &record, StepGradients *to) {
  const LiveStep &live = *record.live;
  const auto heads = static_cast<int64_t>(live.scales.size());
  const int64_t tokens = record.in.size(0), dim = live.other.width / heads;
  const int64_t prefix = machine_->prefix_rows();
  if (prefix > 0) {
    AddTo(&to->prefix_k, key_gradient_.narrow(0, 0, prefix));
    AddTo(&to->prefix_v, value_gradient_.narrow(0, 0, prefix));
  }
  const torch::Tensor value = Real(record.other, live.other).reshape({tokens, heads, dim});
  const torch::Tensor unit = ToTensor(live.scales).reshape({1, heads, 1});
  const Rounding rounding =
      ThroughRounding(value_gradient_.narrow(0, prefix, tokens), value, (value / unit).round().clamp(-127, 127), unit, 0, 127);
  AddTo(&to->out_scale, rounding.log_scale.sum(torch::IntArrayRef({0, 2})));
  AddGradient(live.other, rounding.passed.reshape({tokens, heads * dim}));
  AddGradient(live.in, key_gradient_.narrow(0, prefix, tokens).reshape({tokens, heads * dim}));
}

void Tape::BackAttention(const Record &record, StepGradients *to) {
  const LiveStep &live = *record.live;
  const AttentionOp &op = live.step.attention;
  const Cache &cache = machine_->view().caches[op.cache];
  const int64_t tokens = record.in.size(0), heads = op.heads, kv_heads = cache.kv_heads, dim = cache.head_dim;
  const int64_t group = heads / kv_heads, prefix = machine_->prefix_rows(), keys = prefix + tokens;
  const auto by_kv_head = [&](const torch::Tensor &rows) {  // [tokens, heads, dim] -> [kv_heads, group * tokens, dim]
    return rows.reshape({tokens, kv_heads, group, dim}).permute({1, 2, 0, 3}).reshape({kv_heads, group * tokens, dim});
  };
  const auto from_kv_head = [&](const torch::Tensor &rows) {  // and back
    return rows.reshape({kv_heads, group, tokens, dim}).permute({2, 0, 1, 3}).reshape({tokens, heads, dim});
  };
  const LiveStep &append = *append_->live;
  const torch::Tensor value_units = ToTensor(append.scales).reshape({1, kv_heads, 1});
  const torch::Tensor fresh_values =
      (Real(append_->other, append.other).reshape({tokens, kv_heads, dim}) / value_units).round().clamp(-127, 127);
  torch::Tensor k = Integers(append_->in, append.in).reshape({tokens, kv_heads, dim}), v = fresh_values;
  if (prefix > 0) {
    const auto rows = [&](const int8_t *from) {
      return torch::from_blob(const_cast<int8_t *>(from), {prefix, kv_heads, dim}, torch::kChar).to(torch::kFloat);
    };
    k = torch::cat({rows(cache.prefix_k), k}, 0);
    v = torch::cat({rows(cache.prefix_v), v}, 0);
  }
  k = k.permute({1, 0, 2}).contiguous();                  // [kv_heads, keys, dim], integers
  v = (v * value_units).permute({1, 0, 2}).contiguous();  // real

  const torch::Tensor score_units = ToTensor(live.scales).reshape({1, heads, 1});
  const torch::Tensor q = by_kv_head(Integers(record.in, live.in).reshape({tokens, heads, dim}) * score_units);
  torch::Tensor p = torch::bmm(q, k.transpose(1, 2));  // [kv_heads, group * tokens, keys]
  const torch::Tensor hidden = torch::ones({tokens, keys}, torch::kBool).triu(prefix + 1);
  p.view({kv_heads, group, tokens, keys}).masked_fill_(hidden, -INFINITY);
  p = torch::softmax(p, 2);
  const torch::Tensor out = torch::bmm(p, v);

  const torch::Tensor g = TakeGradient(live.out);
  const Rounding rounding =
      ThroughRounding(g, from_kv_head(out).reshape({tokens, heads * dim}), Integers(record.out, live.out),
                      torch::scalar_tensor(live.out.scale), live.out.zero_point, EdgeLimit(live.out.type));
  AddTo(&to->out_scale, rounding.log_scale.sum().reshape({1}));
  AddTo(&to->out_zero, (rounding.outside * g).sum().reshape({1}) * -static_cast<float>(live.out.scale));

  const torch::Tensor go = by_kv_head(rounding.passed.reshape({tokens, heads, dim}));
  const torch::Tensor gv = torch::bmm(p.transpose(1, 2), go);  // [kv_heads, keys, dim]
  torch::Tensor gs = torch::bmm(go, v.transpose(1, 2));
  gs.sub_((go * out).sum(2, true)).mul_(p);
  const torch::Tensor gq = from_kv_head(torch::bmm(gs, k));  // by q in units of scores
  const torch::Tensor gk = torch::bmm(gs.transpose(1, 2), q);
  value_gradient_ = gv.permute({1, 0, 2}).contiguous();
  const torch::Tensor key_units = ToTensor(*head_scales_[append.in.value]).reshape({1, kv_heads, 1});
  key_gradient_ = gk.permute({1, 0, 2}) / key_units;
  const torch::Tensor query_units = ToTensor(*head_scales_[live.in.value]).reshape({1, heads, 1});
  AddGradient(live.in, (gq * score_units / query_units).reshape({tokens, heads * dim}));
}

void Tape::BackGlu(const Record &record) {
  const LiveStep &live = *record.live;
  const torch::Tensor gate = Real(record.in, live.in), up = Real(record.other, live.other);
  const torch::Tensor g = TakeGradient(live.out).contiguous();
  torch::Tensor dgate = torch::empty_like(gate), dup = torch::empty_like(gate);
  std::vector<float> table(live.factor.begin(), live.factor.end());
  at::parallel_for(0, gate.size(0), kRowsPerTask, [&](int64_t begin, int64_t end) {
    const int64_t width = gate.size(1);
    for (int64_t i = begin * width; i < end * width; ++i) {
      const float x = gate.data_ptr<float>()[i], u = up.data_ptr<float>()[i], gradient = g.data_ptr<float>()[i];
      // a(x) = x * T(x), T linear between its entries at (j - 256) / 16.
      const float place = std::min(std::max(x * 16 + 256, 0.0f), 512.0f);
      const int64_t j = std::min<int64_t>(static_cast<int64_t>(place), 511);
      const float slope = table[static_cast<size_t>(j + 1)] - table[static_cast<size_t>(j)];
      const float factor = table[static_cast<size_t>(j)] + slope * (place - static_cast<float>(j));
      const bool inside = place > 0 && place < 512;
      dup.data_ptr<float>()[i] = gradient * x * factor;
      dgate.data_ptr<float>()[i] = gradient * u * (factor + (inside ? x * slope * 16 : 0.0f));
    }
  });
  AddGradient(live.in, dgate);
  AddGradient(live.other, dup);
}

void Tape::BackHadamard(const Record &record, StepGradients *to) {
  const LiveStep &live = *record.live;
  const int64_t block = live.step.hadamard.block, tokens = record.in.size(0), width = live.in.width;
  const torch::Tensor transform = SylvesterHadamard(block);
  const auto apply = [&](const torch::Tensor &x) {
    return block == 1 ? x : torch::mm(x.reshape({-1, block}), transform).reshape({tokens, width});
  };
  const torch::Tensor g = TakeGradient(live.out);
  const Rounding rounding = ThroughRounding(g, apply(Real(record.in, live.in)), Integers(record.out, live.out),
                                            torch::scalar_tensor(live.out.scale), live.out.zero_point, EdgeLimit(live.out.type));
  AddTo(&to->out_scale, rounding.log_scale.sum().reshape({1}));
  AddTo(&to->out_zero, (rounding.outside * g).sum().reshape({1}) * -static_cast<float>(live.out.scale));
  AddGradient(live.in, apply(rounding.passed));
}

void Tape::Backward(StepGradients *gradients, bool weights) {
  gradients_.resize(machine_->view().values.size());
  head_scales_.assign(gradients_.size(), nullptr);
  for (size_t i = records_.size(); i-- > 0;) {
    const Record &record = records_[i];
    const LiveStep &live = *record.live;
    StepGradients *to = gradients + i;
    switch (live.step.kind) {
      case OpKind::kEmbedding:
        break;
      case OpKind::kRmsNorm:
        BackRmsNorm(record, to);
        break;
      case OpKind::kLinear:
        BackLinear(record, to, weights);
        break;
      case OpKind::kRotate:
        BackRotate(record, to);
        break;
      case OpKind::kAppend:
        BackAppend(record, to);
        break;
      case OpKind::kAttention: {
        // The rotations and the append that fed it come before it.
        for (size_t before = i; before-- > 0;) {
          const LiveStep &feeder = *records_[before].live;
          if (feeder.step.kind == OpKind::kAppend) append_ = &records_[before];
          if (feeder.step.kind == OpKind::kRotate) head_scales_[feeder.out.value] = &feeder.scales;
          if (feeder.step.kind == OpKind::kAttention) break;
        }
        BackAttention(record, to);
        break;
      }
      case OpKind::kGlu:
        BackGlu(record);
        break;
      case OpKind::kHadamard:
        BackHadamard(record, to);
        break;
      case OpKind::kAdd: {
        const torch::Tensor g = TakeGradient(live.out);
        AddGradient(live.in, g);
        AddGradient(live.other, g);
        break;
      }
    }
  }
  records_.clear();
}

}  // namespace acorn::compiler
