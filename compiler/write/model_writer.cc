#include "write/model_writer.h"

#include <algorithm>
#include <cmath>

#include "graph/float_model.h"
#include "write/op_integers.h"

namespace acorn::compiler {
namespace {

constexpr double kPi = 3.14159265358979323846;
/// Natural units of one unit of the logits: fine beyond any difference that matters, and room for magnitudes of 32,767.
constexpr double kLogitScale = 1.0 / 65536;

std::vector<double> ToDoubles(const RowVector &row) { return std::vector<double>(row.data(), row.data() + row.size()); }

double Factor(ActivationKind kind, double x) {
  switch (kind) {
    case ActivationKind::kSilu:
      return 1 / (1 + std::exp(-x));
    case ActivationKind::kGelu:
      return 0.5 * std::erfc(-x / std::sqrt(2.0));
    case ActivationKind::kGeluTanh:
      return 0.5 * (1 + std::tanh(std::sqrt(2 / kPi) * (x + 0.044715 * x * x * x)));
  }
  return 0;
}

}  // namespace

std::vector<double> ActivationFactors(ActivationKind kind) {
  std::vector<double> factors;
  for (int i = 0; i <= 512; ++i) factors.push_back(Factor(kind, (i - 256) / 16.0));
  factors.push_back(factors.back());
  return factors;
}

ModelWriter::ModelWriter(GraphBuilder *graph, const ModelConfig &config, const WriterOptions &options)
    : config_(config), options_(options), graph_(graph) {
  if (config.HasAttention()) AddRope();
  for (Port &port : stream_) port = graph_->NewValue(EdgeType::kS16, config.hidden);
  normed_ = graph_->NewValue(EdgeType::kS8, config.hidden);
  if (config.HasAttention()) NewAttentionValues();
  if (config.HasStateSpace()) NewStateSpaceValues();
  branch_ = graph_->NewValue(EdgeType::kS16, config.hidden);
  logits_ = graph_->NewValue(EdgeType::kS32, config.vocab);
}

void ModelWriter::AddRope() {
  std::vector<double> turns;
  for (const double radians : RopeFrequencies(config_)) turns.push_back(radians / (2 * kPi));
  if (turns.empty()) turns.push_back(0);  // positions are not told apart: a pair that stands still
  rope_ = graph_->AddRope(turns);
}

void ModelWriter::NewAttentionValues() {
  const int64_t q_width = config_.heads * config_.head_dim, kv_width = config_.kv_heads * config_.head_dim;
  qkv_ = graph_->NewValue(EdgeType::kS16, q_width + 2 * kv_width);
  if (config_.qk_norm) {
    q_normed_ = graph_->NewValue(EdgeType::kS16, q_width);
    k_normed_ = graph_->NewValue(EdgeType::kS16, kv_width);
  }
  if (options_.cache.head_block > 1) {
    q_rotated_ = graph_->NewValue(EdgeType::kS16, q_width);
    k_rotated_ = graph_->NewValue(EdgeType::kS16, kv_width);
  }
  q8_ = graph_->NewValue(EdgeType::kS8, q_width);
  k8_ = graph_->NewValue(EdgeType::kS8, kv_width);
  mixed_ = graph_->NewValue(EdgeType::kS8, q_width);
}

void ModelWriter::NewStateSpaceValues() {
  const StateSpaceConfig &ssm = config_.ssm;
  ssm_.in = graph_->NewValue(EdgeType::kS16, ssm.inner() + ssm.conv_channels() + ssm.heads);
  ssm_.convolved = graph_->NewValue(EdgeType::kS16, ssm.conv_channels());
  for (Port *port : {&ssm_.scanned, &ssm_.gated, &ssm_.normed}) *port = graph_->NewValue(EdgeType::kS16, ssm.inner());
  ssm_.out_in = graph_->NewValue(EdgeType::kS8, ssm.inner());
}

Layout ModelWriter::LayoutOf(WeightFormat format) const {
  if (GroupSize(format) != 0) return Layout::kC4;
  return format == WeightFormat::kW8 ? options_.channel_layouts.w8 : options_.channel_layouts.w4;
}

void ModelWriter::AddEmbedding(const WeightInfo &weight) {
  // A unit of the stream is so much of the table.
  graph_->Embedding(Scaled(embedded_, embedded_.scale / config_.embedding_scale), weight);
}

void ModelWriter::Begin(double scale, const QuantizedMatrix *embedding) {
  embedded_ = Scaled(stream_[0], scale);
  residual_ = embedded_;
  if (embedding != nullptr) {
    graph_->BeginWeightSegment();
    AddEmbedding(AddWeight(*embedding, EdgeType::kS8));
  }
}

Port ModelWriter::Branch(const Port &in, const QuantizedMatrix &matrix, const RowVector &bias, double scale) {
  const WeightInfo weight = AddWeight(matrix, in.type);
  const Port branch = Scaled(branch_, scale);
  graph_->Linear(in, branch, weight, ToDoubles(bias), std::vector<double>(static_cast<size_t>(matrix.n), scale));
  return branch;
}

void ModelWriter::CloseBranch(const Port &branch, double sum_scale) {
  const Port sum = Scaled(residual_.value == stream_[0].value ? stream_[1] : stream_[0], sum_scale);
  graph_->Add(residual_, branch, sum);
  residual_ = sum;
}

void ModelWriter::Position(const Port &in, const Port &rotated, const Port &out, const std::vector<double> &scales) {
  const auto block = static_cast<uint32_t>(options_.cache.head_block);
  if (block == 1) return graph_->Rotate(in, out, rope_, scales);
  // In units of a head's step, so that one factor serves all heads. The transform keeps lengths: what it takes to 127 steps or
  // less in every dimension has at most 127 * sqrt(block) in one.
  const double unit = 127 * std::sqrt(static_cast<double>(block)) / EdgeLimit(EdgeType::kS16);
  std::vector<double> rotated_scales;
  for (const double scale : scales) rotated_scales.push_back(scale * unit);
  graph_->Rotate(in, rotated, rope_, rotated_scales);
  graph_->Hadamard(Scaled(rotated, unit), Scaled(out, 1), block, scales);
}

void ModelWriter::NormRows(const Port &in, const Port &out, const RowVector &gain, const RowVector &bias) {
  switch (config_.norm) {
    case NormKind::kRms:
      return graph_->RmsNorm(in, out, 1, ToDoubles(gain), config_.rms_eps);
    case NormKind::kLayer:
      return graph_->LayerNorm(in, out, ToDoubles(gain), ToDoubles(bias), config_.rms_eps);
  }
}

Port ModelWriter::Normed(const RowVector &gain, const RowVector &bias, EdgeType type, double scale, int32_t zero_point) {
  if (type == EdgeType::kS8) {
    const Port out = Scaled(normed_, scale, zero_point);
    NormRows(residual_, out, gain, bias);
    return out;
  }
  // Norms write 8 bits or 16: half the unit, and one rounding more.
  if (normed15_.width == 0) {
    normed16_ = graph_->NewValue(EdgeType::kS16, config_.hidden);
    normed15_ = graph_->NewValue(type, config_.hidden);
  }
  const Port fine = Scaled(normed16_, scale / 2), out = Scaled(normed15_, scale);
  NormRows(residual_, fine, gain, bias);
  graph_->Hadamard(fine, out, 1, {});
  return out;
}

ModelWriter::FfnPorts &ModelWriter::PortsOf(int64_t ffn) {
  FfnPorts &ports = ffns_[ffn];
  if (ports.glu.width == 0) {
    ports.gate_up = graph_->NewValue(EdgeType::kS16, 2 * ffn);
    ports.glu = graph_->NewValue(EdgeType::kS16, ffn);
    ports.down_in = graph_->NewValue(EdgeType::kS8, ffn);
  }
  return ports;
}

Port ModelWriter::DownIn(int64_t ffn, EdgeType type) {
  FfnPorts &ports = PortsOf(ffn);
  if (type == EdgeType::kS8) return ports.down_in;
  if (ports.down_in15.width == 0) ports.down_in15 = graph_->NewValue(type, ffn);
  return ports.down_in15;
}

void ModelWriter::AttentionHalf(const QuantizedLayer &layer) {
  const LayerScales &scales = layer.scales;
  const int64_t dim = config_.head_dim;
  const auto q_width = static_cast<uint32_t>(config_.heads * dim);
  const auto kv_width = static_cast<uint32_t>(config_.kv_heads * dim);

  const Port normed =
      Normed(layer.attn_norm, layer.attn_norm_bias, layer.inputs.attn_in, scales.attn_in, scales.attn_in_zero);
  std::vector<double> out_scales(q_width, scales.q16);
  out_scales.insert(out_scales.end(), kv_width, scales.k16);
  out_scales.insert(out_scales.end(), kv_width, scales.v16);
  graph_->Linear(normed, qkv_, AddWeight(layer.qkv, normed.type), ToDoubles(layer.qkv_bias), out_scales);
  Port q = Columns(qkv_, 0, q_width, scales.q16);
  Port k = Columns(qkv_, q_width, kv_width, scales.k16);
  const Port v = Columns(qkv_, q_width + kv_width, kv_width, scales.v16);
  if (config_.qk_norm) {
    const Port q_normed = Scaled(q_normed_, scales.q_normed16);
    const Port k_normed = Scaled(k_normed_, scales.k_normed16);
    const bool rows = config_.qk_norm_rows;
    graph_->RmsNorm(q, q_normed, rows ? 1 : config_.heads, ToDoubles(layer.q_norm), config_.rms_eps);
    graph_->RmsNorm(k, k_normed, rows ? 1 : config_.kv_heads, ToDoubles(layer.k_norm), config_.rms_eps);
    q = q_normed;
    k = k_normed;
  }
  Position(q, q_rotated_, q8_, scales.q8);
  Position(k, k_rotated_, k8_, scales.k8);
  const uint16_t cache = graph_->AddCache(config_.kv_heads, dim, options_.cache.bits, layer.prefix_k, layer.prefix_v);
  graph_->Append(k8_, v, cache, scales.v8);

  const double divisor = config_.attention_scale != 0 ? 1 / config_.attention_scale : std::sqrt(static_cast<double>(dim));
  std::vector<double> score_scales, v_scales;
  for (int64_t h = 0; h < config_.heads; ++h) {
    const auto kv = static_cast<size_t>(h / (config_.heads / config_.kv_heads));
    score_scales.push_back(scales.q8[static_cast<size_t>(h)] * scales.k8[kv] / divisor);
    v_scales.push_back(scales.v8[kv]);
  }
  const Port mixed = Scaled(mixed_, scales.attn_out, scales.attn_out_zero);
  graph_->Attention(q8_, mixed, cache, score_scales, v_scales);
  CloseBranch(Branch(mixed, layer.o, layer.o_bias, scales.o16), scales.mid16);
}

void ModelWriter::StateSpaceHalf(const QuantizedLayer &layer) {
  const LayerScales &edges = layer.scales;
  const QuantizedStateSpace &part = layer.ssm;
  const StateSpaceScales &scales = part.scales;
  const StateSpaceConfig &ssm = config_.ssm;
  const auto inner = static_cast<uint32_t>(ssm.inner()), channels = static_cast<uint32_t>(ssm.conv_channels());
  const auto side = static_cast<uint32_t>(ssm.groups * ssm.state), heads = static_cast<uint32_t>(ssm.heads);

  const Port normed = Normed(layer.attn_norm, layer.attn_norm_bias, layer.inputs.attn_in, edges.attn_in, edges.attn_in_zero);
  std::vector<double> in_scales(inner, scales.gate16);
  in_scales.insert(in_scales.end(), scales.conv_in16.begin(), scales.conv_in16.end());
  in_scales.insert(in_scales.end(), scales.step16.begin(), scales.step16.end());
  graph_->Linear(normed, ssm_.in, AddWeight(layer.qkv, normed.type), {}, in_scales);
  const Port gate = Columns(ssm_.in, 0, inner, scales.gate16), conv_in = Columns(ssm_.in, inner, channels, 1);
  const Port step = Columns(ssm_.in, inner + channels, heads, 1);

  ConvSpec conv{part.conv, part.conv_bias, scales.conv_in16, {}, ActivationFactors(config_.activation)};
  const auto spread = [&](const std::vector<double> &units, int64_t columns) {
    for (const double unit : units) conv.out_scales.insert(conv.out_scales.end(), static_cast<size_t>(columns), unit);
  };
  spread(scales.x16, ssm.head_dim);
  spread(scales.b16, ssm.state);
  spread(scales.c16, ssm.state);
  graph_->Conv(conv_in, ssm_.convolved, conv);

  ScanSpec scan;
  scan.groups = ssm.groups;
  scan.x = scales.x16;
  scan.step = scales.step16;
  scan.state = scales.state;
  scan.b = scales.b16;
  scan.c = scales.c16;
  scan.step_bias = ToDoubles(part.step_bias);
  scan.decay = ToDoubles(part.decay);
  scan.skip = ToDoubles(part.skip);
  scan.min_step = ssm.min_step;
  scan.max_step = ssm.max_step;
  const Port scanned = Scaled(ssm_.scanned, scales.scan16);
  graph_->Scan(Columns(ssm_.convolved, 0, inner, 1), Columns(ssm_.convolved, inner, side, 1),
               Columns(ssm_.convolved, inner + side, side, 1), step, scanned, scan);

  const Port gated = Scaled(ssm_.gated, GluScale(gate.scale, scanned.scale, scales.gated_largest));
  graph_->Glu(gate, scanned, gated, ActivationFactors(ActivationKind::kSilu));
  const Port out_normed = Scaled(ssm_.normed, scales.normed16);
  graph_->RmsNorm(gated, out_normed, ssm.groups, ToDoubles(part.norm), config_.rms_eps);
  const Port out_in = Scaled(ssm_.out_in, edges.attn_out, edges.attn_out_zero);
  graph_->Hadamard(out_normed, out_in, options_.state_block, {});
  CloseBranch(Branch(out_in, layer.o, layer.o_bias, edges.o16), edges.mid16);
}

Port ModelWriter::DenseFfn(const QuantizedLayer &layer, const Port &normed, uint32_t block, double out_scale) {
  const LayerScales &scales = layer.scales;
  const auto ffn = static_cast<uint32_t>(layer.down.k);
  const FfnPorts &ports = PortsOf(ffn);
  std::vector<double> out_scales(ffn, scales.gate16);
  out_scales.insert(out_scales.end(), ffn, scales.up16);
  graph_->Linear(normed, ports.gate_up, AddWeight(layer.gate_up, normed.type), ToDoubles(layer.gate_up_bias), out_scales);
  const Port gate = Columns(ports.gate_up, 0, ffn, scales.gate16);
  const Port up = Columns(ports.gate_up, ffn, ffn, scales.up16);
  const Port glu = Scaled(ports.glu, GluScale(gate.scale, up.scale, scales.glu_largest));
  graph_->Glu(gate, up, glu, ActivationFactors(config_.activation));
  const Port down_in = Scaled(DownIn(ffn, layer.inputs.down_in), scales.down_in, scales.down_in_zero);
  graph_->Hadamard(glu, down_in, block, {});
  return Branch(down_in, layer.down, layer.down_bias, out_scale);
}

Port ModelWriter::SparseFfn(const QuantizedLayer &layer, const Port &normed) {
  const QuantizedExperts &sparse = layer.experts;
  const ExpertScales &scales = sparse.scales;
  if (router_.width == 0) {
    router_ = graph_->NewValue(EdgeType::kS32, sparse.router.n);
    routed_ = graph_->NewValue(EdgeType::kS16, config_.hidden);
  }
  const auto logits = [&](const QuantizedMatrix &weight, Port *port) {
    const Port out = Scaled(*port, scales.router);
    const std::vector<double> units(static_cast<size_t>(weight.n), scales.router);
    graph_->Linear(normed, out, AddWeight(weight, normed.type), {}, units);
    return out;
  };
  const Port router = logits(sparse.router, &router_);
  const bool has_shared = layer.down.n != 0, has_gate = sparse.shared_gate.n != 0;
  Port shared, shared_gate;
  if (has_shared) shared = DenseFfn(layer, normed, options_.shared_block, scales.down16);
  if (has_gate) {
    if (shared_gate_.width == 0) shared_gate_ = graph_->NewValue(EdgeType::kS32, 1);
    shared_gate = logits(sparse.shared_gate, &shared_gate_);
  }
  // The edges inside of experts are no values of the graph.
  const auto ffn = static_cast<uint32_t>(sparse.experts[0].gate.n);
  const auto edge = [&](EdgeType type, double scale, int32_t zero_point) { return Port{0, 0, ffn, type, scale, zero_point}; };
  ExpertSetSpec spec;
  spec.in = normed;
  spec.gate = edge(EdgeType::kS16, scales.gate16, 0);
  spec.up = edge(EdgeType::kS16, scales.up16, 0);
  spec.glu = edge(EdgeType::kS16, GluScale(scales.gate16, scales.up16, scales.glu_largest), 0);
  spec.down_in = edge(EdgeType::kS8, scales.down_in, scales.down_in_zero);
  spec.down_scale = scales.down16;
  spec.layout = options_.channel_layouts.w8;
  const uint16_t set = graph_->BeginExperts(spec);
  for (const ExpertMatrices &expert : sparse.experts) graph_->AddExpert(expert);
  RoutingSpec routing;
  routing.scoring = options_.scoring;
  routing.top_k = options_.top_k;
  routing.factor = ActivationFactors(config_.activation);
  routing.block = options_.expert_block;
  const Port out = Scaled(routed_, scales.down16);
  graph_->Experts(router, out, set, routing, has_shared ? &shared : nullptr, has_gate ? &shared_gate : nullptr);
  return out;
}

void ModelWriter::FfnHalf(const QuantizedLayer &layer) {
  const LayerScales &scales = layer.scales;
  const Port normed = Normed(layer.ffn_norm, layer.ffn_norm_bias, layer.inputs.ffn_in, scales.ffn_in, scales.ffn_in_zero);
  const Port branch =
      layer.experts.empty() ? DenseFfn(layer, normed, options_.hadamard_block, scales.down16) : SparseFfn(layer, normed);
  CloseBranch(branch, scales.out16);
}

void ModelWriter::AddLayer(const QuantizedLayer &layer) {
  graph_->BeginWeightSegment();
  if (layer.ssm.empty()) {
    AttentionHalf(layer);
  } else {
    StateSpaceHalf(layer);
  }
  if (layer.down.n != 0 || !layer.experts.empty()) FfnHalf(layer);
}

Port ModelWriter::AddHead(const QuantizedHead &head) {
  graph_->BeginHead(residual_);
  graph_->BeginWeightSegment();
  const Port normed = Normed(head.norm, head.norm_bias, EdgeType::kS8, head.in_scale, head.in_zero);
  const WeightInfo weight = AddWeight(head.weight, EdgeType::kS8);
  if (config_.tied_head) {
    WeightInfo table = weight;
    if (!head.embedding_scale.empty()) table.scale = head.embedding_scale;
    AddEmbedding(table);
  }
  double scale = kLogitScale;
  for (size_t i = 0; i < weight.scale.size(); ++i) {
    const double bound = 127.0 * static_cast<double>(weight.absolute_sums[i]) * weight.scale[i] * head.in_scale;
    while (bound / scale > EdgeLimit(EdgeType::kS32)) scale *= 2;
  }
  logits_.scale = scale;
  graph_->Linear(normed, logits_, weight, {}, std::vector<double>(static_cast<size_t>(weight.n), scale));
  logits_.scale *= config_.logit_scale;
  return logits_;
}

}  // namespace acorn::compiler
