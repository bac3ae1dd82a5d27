#include "train/tape.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "quantize/cached.h"
#include "train/backward.h"
#include "train/product.h"
#include "train/state_space_backward.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kRowsPerTask = 16;

torch::ScalarType TypeOf(EdgeType type) {
  return type == EdgeType::kS8 ? torch::kChar : type == EdgeType::kS32 ? torch::kInt : torch::kShort;
}

std::vector<float> ToFloats(const std::vector<double> &values) { return {values.begin(), values.end()}; }

/// `port`'s columns of a buffer.
EdgeRows RowsOf(const torch::Tensor &buffer, const Port &port) {
  assert(port.type != EdgeType::kS32);
  EdgeRows rows;
  rows.bytes = port.type == EdgeType::kS8;
  const size_t element = rows.bytes ? 1 : 2;
  rows.data = buffer.data_ptr<uint8_t>() + port.offset * element;
  rows.stride = static_cast<size_t>(buffer.size(1)) / element;
  rows.scale = static_cast<float>(port.scale);
  rows.zero_point = static_cast<float>(port.zero_point);
  rows.limit = static_cast<float>(EdgeLimit(port.type));
  return rows;
}

float *Sum(torch::Tensor *sum, int64_t size) {
  if (!sum->defined()) *sum = torch::zeros({size});
  return sum->data_ptr<float>();
}

void AddSums(const EdgeSums &sums, StepGradients *to) {
  Sum(&to->out_scale, 1)[0] += static_cast<float>(sums.log_scale);
  Sum(&to->out_zero, 1)[0] += static_cast<float>(sums.zero_point);
}

void AddTo(torch::Tensor *sum, const torch::Tensor &value) {
  if (sum->defined()) {
    sum->add_(value);
  } else {
    *sum = value.clone();
  }
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

/// [heads] to the shape of [rows, heads, dim].
torch::Tensor Units(const std::vector<double> &scales) {
  return torch::tensor(scales, torch::kDouble).to(torch::kFloat).view({1, static_cast<int64_t>(scales.size()), 1});
}

torch::Tensor Integers(const torch::Tensor &buffer, const Port &port) { return Tape::Real(buffer, Scaled(port, 1)); }

}  // namespace

HeadUnitGradients GradientsOfHeadUnits(const LiveStep *steps, const StepGradients *gradients, size_t count) {
  HeadUnitGradients heads;
  size_t rotations = 0;  // queries come first
  for (size_t i = 0; i < count; ++i) {
    const StepGradients &g = gradients[i];
    const OpKind kind = steps[i].step.kind;
    if (kind == OpKind::kRotate) ++rotations;
    if (kind == OpKind::kRotate || (kind == OpKind::kHadamard && !steps[i].scales.empty())) {
      AddTo(rotations == 1 ? &heads.q8 : &heads.k8, g.out_scale);
    }
    if (kind != OpKind::kAppend) continue;
    AddTo(&heads.v8, g.out_scale);
    if (g.key_scale.defined()) AddTo(&heads.k8, g.key_scale);
  }
  return heads;
}

torch::Tensor Tape::Real(const torch::Tensor &buffer, const Port &port) {
  const torch::Tensor integers = buffer.view(TypeOf(port.type)).narrow(1, port.offset, port.width).to(torch::kFloat);
  if (port.zero_point != 0) return (integers - static_cast<float>(port.zero_point)) * static_cast<float>(port.scale);
  return integers * static_cast<float>(port.scale);
}

void Tape::SetBuffer(const Port &port, torch::Tensor buffer) {
  buffers_.resize(machine_->view().values.size());
  buffers_[port.value] = std::move(buffer);
}

void Tape::Run(const LiveStep *begin, const LiveStep *end, bool record) {
  buffers_.resize(machine_->view().values.size());
  for (const LiveStep *live = begin; live != end; ++live) {
    Record entry{live, {}, {}, {}, {}, {}};
    const OpKind kind = live->step.kind;
    if (record) {
      entry.in = buffers_[live->in.value];
      const bool two = kind == OpKind::kGlu || kind == OpKind::kAppend || kind == OpKind::kAdd || kind == OpKind::kScan;
      if (two) entry.other = buffers_[live->other.value];
      if (kind == OpKind::kScan) {
        entry.c = buffers_[live->scan->c.value];
        entry.time_step = buffers_[live->scan->time_step.value];
      }
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
  return gradient.contiguous();
}

void Tape::AddGradient(const Port &port, torch::Tensor gradient) {
  torch::Tensor &whole = gradients_[port.value];
  const int64_t width = machine_->view().values[port.value].width;
  if (port.width == width) {
    whole = whole.defined() ? whole + gradient : std::move(gradient);
    return;
  }
  if (!whole.defined()) whole = torch::zeros({gradient.size(0), width});
  whole.narrow(1, port.offset, port.width).add_(gradient);
}

void Tape::BackNorm(const Record &record, StepGradients *to) {
  const LiveStep &live = *record.live;
  const bool centred = live.step.kind == OpKind::kLayerNorm;
  const int64_t groups = centred ? 1 : live.step.rms_norm.groups, width = live.in.width / groups, rows = record.in.size(0);
  const auto gains = static_cast<int64_t>(live.gain.size());
  const torch::Tensor g = TakeGradient(live.out);
  torch::Tensor dx = torch::empty({rows, groups * width});
  const std::vector<float> bias = ToFloats(live.bias);
  AddSums(NormBackward({rows, groups, width, gains, live.eps, centred}, RowsOf(record.in, live.in), RowsOf(record.out, live.out),
                       ToFloats(live.gain).data(), bias.empty() ? nullptr : bias.data(), g.data_ptr<float>(),
                       dx.data_ptr<float>(), Sum(&to->gain, gains), Sum(&to->bias, gains)),
          to);
  AddGradient(live.in, std::move(dx));
}

void Tape::BackLinear(const Record &record, StepGradients *to, bool weights) {
  const LiveStep &live = *record.live;
  const LiveWeight &weight = machine_->graph().weight(live.step.linear.weight);
  const int64_t rows = record.in.size(0), n = live.out.width;
  const torch::Tensor g = TakeGradient(live.out);
  torch::Tensor scaled = torch::empty({rows, n});
  const uint8_t *y = record.out.data_ptr<uint8_t>();
  const bool wide = live.out.type == EdgeType::kS32;
  const std::vector<float> bias = ToFloats(live.bias);
  LinearBackward({rows, n}, wide ? nullptr : reinterpret_cast<const int16_t *>(y),
                 wide ? reinterpret_cast<const int32_t *>(y) : nullptr,
                 static_cast<size_t>(record.out.size(1)) / (wide ? 4 : 2), ToFloats(live.scales).data(),
                 bias.empty() ? nullptr : bias.data(), ToFloats(weight.info.scale).data(), g.data_ptr<float>(),
                 scaled.data_ptr<float>(), Sum(&to->rows, n), Sum(&to->bias, n));
  AddGradient(live.in, Product(scaled, WeightIntegers(*weight.matrix)));
  if (weights) AddTo(&to->weight, Product(g.t(), Real(record.in, live.in)));
}

void Tape::BackHeads(const torch::Tensor &buffer, const Port &in, const LiveStep &live, const torch::Tensor &g,
                     StepGradients *to) {
  const auto heads = static_cast<int64_t>(live.scales.size());
  const int64_t rows = buffer.size(0), dim = in.width / heads;
  const float *cosine = nullptr, *sine = nullptr;
  int64_t half = 0;
  double limit = 0;
  if (live.step.kind == OpKind::kAppend) {
    limit = CacheLimit(static_cast<int>(machine_->view().caches[live.step.append.cache].bits));
  } else {
    limit = EdgeLimit(live.out.type);
    const torch::Tensor &table = machine_->cosine(live.step.rotate.rope);
    half = table.size(1);
    cosine = table.data_ptr<float>();
    sine = machine_->sine(live.step.rotate.rope).data_ptr<float>();
  }
  torch::Tensor dx = torch::empty({rows, heads * dim});
  std::vector<double> log_scale(live.scales.size(), 0);
  const HeadShape shape = {rows, heads, dim, half, static_cast<float>(limit)};
  HeadsBackward(shape, RowsOf(buffer, in), cosine, sine, ToFloats(live.scales).data(), g.data_ptr<float>(), dx.data_ptr<float>(),
                log_scale.data());
  float *sum = Sum(&to->out_scale, heads);
  for (int64_t h = 0; h < heads; ++h) sum[h] += static_cast<float>(log_scale[static_cast<size_t>(h)]);
  AddGradient(in, std::move(dx));
}

void Tape::BackAppend(const Record &record, StepGradients *to) {
  const LiveStep &live = *record.live;
  const int64_t rows = record.in.size(0), prefix = machine_->prefix_rows(), width = live.other.width;
  if (prefix > 0) {
    AddTo(&to->prefix_k, key_gradient_.narrow(0, 0, prefix));
    AddTo(&to->prefix_v, value_gradient_.narrow(0, 0, prefix));
  }
  BackHeads(record.other, live.other, live, value_gradient_.narrow(0, prefix, rows).contiguous(), to);
  torch::Tensor keys = key_gradient_.narrow(0, prefix, rows);
  if (machine_->view().caches[live.step.append.cache].bits == 4) {
    // Rounded to 8 bits before, where nothing saturates that does not saturate here: only what is cut off is left to do.
    const torch::Tensor integers = Integers(record.in, live.in).view(keys.sizes());
    const torch::Tensor kept = integers.clamp(-kNibbleLimit, kNibbleLimit), outside = integers != kept;
    AddTo(&to->key_scale, (keys * kept * outside * Units(*head_scales_[live.in.value])).sum(2).sum(0));
    keys = keys.masked_fill(outside, 0);
  }
  AddGradient(live.in, keys.reshape({rows, width}));
}

void Tape::BackAttention(const Record &record, StepGradients *to) {
  const LiveStep &live = *record.live;
  const AttentionOp &op = live.step.attention;
  const Cache &cache = machine_->view().caches[op.cache];
  const LiveStep &append = *append_->live;
  const int64_t rows = record.in.size(0), prefix = machine_->prefix_rows();
  const AttentionShape shape = {rows, prefix, op.heads, cache.kv_heads, cache.head_dim};
  const double limit = CacheLimit(static_cast<int>(cache.bits));
  const torch::Tensor value_units = Units(append.scales), key_units = Units(*head_scales_[append.in.value]);
  // [prefix + rows, kv_heads, dim] -> [kv_heads, prefix + rows, dim], the prefix before the rows
  const auto with_prefix = [&](const int8_t *first, const torch::Tensor &fresh) {
    torch::Tensor all = fresh.view({rows, shape.kv_heads, shape.dim});
    if (prefix > 0) {
      const torch::Tensor before =
          torch::from_blob(const_cast<int8_t *>(first), {prefix, shape.kv_heads, shape.dim}, torch::kChar).to(torch::kFloat);
      all = torch::cat({before, all}, 0);
    }
    return all;
  };
  const torch::Tensor k = with_prefix(cache.prefix_k, Integers(append_->in, append.in).clamp(-limit, limit))
                              .permute({1, 0, 2})
                              .contiguous();
  const torch::Tensor fresh = (Real(append_->other, append.other).view({rows, shape.kv_heads, shape.dim}) / value_units)
                                  .round()
                                  .clamp(-limit, limit)
                                  .contiguous();
  const torch::Tensor v = (with_prefix(cache.prefix_v, fresh) * value_units).permute({1, 0, 2}).contiguous();
  const torch::Tensor g = TakeGradient(live.out);
  torch::Tensor dq = torch::empty({rows, shape.heads, shape.dim}), dk = torch::empty_like(k), dv = torch::empty_like(v);
  AddSums(AttentionBackward(shape,
                            {RowsOf(record.in, live.in), k.data_ptr<float>(), v.data_ptr<float>(), RowsOf(record.out, live.out),
                             ToFloats(live.scales), g.data_ptr<float>()},
                            dq.data_ptr<float>(), dk.data_ptr<float>(), dv.data_ptr<float>()),
          to);
  value_gradient_ = dv.permute({1, 0, 2}).contiguous();
  key_gradient_ = (dk.permute({1, 0, 2}) / key_units).contiguous();
  AddGradient(live.in, (dq / Units(*head_scales_[live.in.value])).view({rows, shape.heads * shape.dim}));
}

void Tape::BackGlu(const Record &record) {
  const LiveStep &live = *record.live;
  const int64_t rows = record.in.size(0), width = live.in.width;
  const torch::Tensor g = TakeGradient(live.out);
  torch::Tensor dgate = torch::empty({rows, width}), dup = torch::empty({rows, width});
  GluBackward(rows, width, RowsOf(record.in, live.in), RowsOf(record.other, live.other), ToFloats(live.factor).data(),
              g.data_ptr<float>(), dgate.data_ptr<float>(), dup.data_ptr<float>());
  AddGradient(live.in, std::move(dgate));
  AddGradient(live.other, std::move(dup));
}

void Tape::BackHadamard(const Record &record, StepGradients *to) {
  const LiveStep &live = *record.live;
  const int64_t rows = record.in.size(0), width = live.in.width;
  torch::Tensor g = TakeGradient(live.out), dx = torch::empty({rows, width});
  const auto back = [&](int64_t parts) {
    return HadamardBackward({rows, width, live.step.hadamard.block, parts}, RowsOf(record.in, live.in),
                            RowsOf(record.out, live.out), g.data_ptr<float>(), dx.data_ptr<float>());
  };
  if (live.scales.empty()) {
    AddSums(back(1).front(), to);
    return AddGradient(live.in, std::move(dx));
  }
  // Integers count in the heads' units, gradients are by real values.
  const auto heads = static_cast<int64_t>(live.scales.size());
  const torch::Tensor units = Units(live.scales);
  g = (g.view({rows, heads, width / heads}) * units).contiguous();
  const std::vector<EdgeSums> sums = back(heads);
  float *sum = Sum(&to->out_scale, heads);
  for (int64_t h = 0; h < heads; ++h) sum[h] += static_cast<float>(sums[static_cast<size_t>(h)].log_scale);
  AddGradient(live.in, (dx.view({rows, heads, width / heads}) / units).view({rows, width}));
}

void Tape::BackConv(const Record &record) {
  const LiveStep &live = *record.live;
  const int64_t rows = record.in.size(0);
  const torch::Tensor g = TakeGradient(live.out);
  torch::Tensor dx = torch::empty({rows, static_cast<int64_t>(live.in.width)});
  const auto *before = reinterpret_cast<const int16_t *>(machine_->view().states[live.step.conv.state].prefix);
  ConvBackward(rows, live.conv->real, RowsOf(record.in, live.in), before, g.data_ptr<float>(), dx.data_ptr<float>());
  AddGradient(live.in, std::move(dx));
}

void Tape::BackScan(const Record &record, StepGradients *to) {
  const LiveStep &live = *record.live;
  const LiveScan &scan = *live.scan;
  const int64_t rows = record.in.size(0), heads = scan.real.heads(), width = live.in.width, side = live.other.width;
  const torch::Tensor g = TakeGradient(live.out);
  torch::Tensor dx = torch::empty({rows, width}), db = torch::empty({rows, side}), dc = torch::empty({rows, side});
  torch::Tensor dstep = torch::empty({rows, heads});
  ScanBackward({rows, width / heads, side / scan.real.groups}, scan.real,
               {reinterpret_cast<const int32_t *>(machine_->view().states[live.step.scan.state].prefix),
                RowsOf(record.in, live.in), RowsOf(record.other, live.other), RowsOf(record.c, scan.c),
                RowsOf(record.time_step, scan.time_step), RowsOf(record.out, live.out)},
               g.data_ptr<float>(),
               {dx.data_ptr<float>(), db.data_ptr<float>(), dc.data_ptr<float>(), dstep.data_ptr<float>(),
                Sum(&to->decay, heads), Sum(&to->skip, heads)});
  AddGradient(live.in, std::move(dx));
  AddGradient(live.other, std::move(db));
  AddGradient(scan.c, std::move(dc));
  AddGradient(scan.time_step, std::move(dstep));
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
      case OpKind::kExperts:  // never here: LiveGraph takes none
        break;
      case OpKind::kRmsNorm:
      case OpKind::kLayerNorm:
        BackNorm(record, to);
        break;
      case OpKind::kLinear:
        BackLinear(record, to, weights);
        break;
      case OpKind::kRotate:
        BackHeads(record.in, live.in, live, TakeGradient(live.out), to);
        break;
      case OpKind::kAppend:
        BackAppend(record, to);
        break;
      case OpKind::kAttention: {
        // The append that fed it and what wrote its heads come before it.
        for (size_t before = i; before-- > 0;) {
          const LiveStep &feeder = *records_[before].live;
          if (feeder.step.kind == OpKind::kAppend) append_ = &records_[before];
          const bool heads = feeder.step.kind == OpKind::kRotate || feeder.step.kind == OpKind::kHadamard;
          if (heads) head_scales_[feeder.out.value] = &feeder.scales;
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
      case OpKind::kConv:
        BackConv(record);
        break;
      case OpKind::kScan:
        BackScan(record, to);
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
