#include "write/model_writer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "graph/float_model.h"
#include "pack/pack.h"
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

/// Depth of the panels of a weight without groups that ends at each of `depths` too; 0: as Pack() likes it.
int64_t PanelDepth(const QuantizedMatrix &matrix, const std::vector<int64_t> &depths) {
  int64_t common = matrix.k;
  for (const int64_t depth : depths) common = std::gcd(common, depth);
  if (matrix.group() != 0 || common == matrix.k) return 0;
  const int64_t most = ChoosePanelDepth(matrix);
  int64_t parts = 1;
  while (common % parts != 0 || common / parts > most || common / parts % 16 != 0) ++parts;
  return common / parts;
}

uint32_t Narrow(int64_t width) { return static_cast<uint32_t>(width); }

std::vector<double> ElementsOf(const std::vector<double> &all, const std::vector<IndexRun> &runs) {
  std::vector<double> some;
  for (const IndexRun &run : runs) some.insert(some.end(), all.begin() + run.first, all.begin() + run.first + run.count);
  return some;
}

/// Nothing of nothing.
RowVector RowOf(const RowVector &all, const std::vector<IndexRun> &runs) {
  if (all.size() == 0) return {};
  int64_t size = 0, at = 0;
  for (const IndexRun &run : runs) size += run.count;
  RowVector some(size);
  for (const IndexRun &run : runs) {
    some.segment(at, run.count) = all.segment(run.first, run.count);
    at += run.count;
  }
  return some;
}

std::vector<double> RowsOf(const RowVector &bias, const std::vector<IndexRun> &runs) { return ToDoubles(RowOf(bias, runs)); }

Matrix MatrixRowsOf(const Matrix &all, const std::vector<IndexRun> &runs) {
  int64_t size = 0, at = 0;
  for (const IndexRun &run : runs) size += run.count;
  Matrix some(size, all.cols());
  for (const IndexRun &run : runs) {
    some.middleRows(at, run.count) = all.middleRows(run.first, run.count);
    at += run.count;
  }
  return some;
}

/// How many slices make up a width; 0: all.
size_t SlicesWithin(const std::vector<int64_t> &slices, int64_t width) {
  size_t used = 0;
  for (int64_t end = 0; used < slices.size() && end + slices[used] <= width; ++used) end += slices[used];
  return used == slices.size() ? 0 : used;
}

/// The frequencies of the pairs in the first `qk` dims of each head of keys.
std::vector<uint8_t> PairsOf(const QuantizedLayer &layer, int64_t qk) {
  std::vector<uint8_t> pairs;
  const auto &all = layer.order.pairs;
  const auto stride = layer.widths.qk / 2;
  for (size_t head = 0; !all.empty() && head < all.size() / static_cast<size_t>(stride); ++head) {
    const auto first = all.begin() + static_cast<int64_t>(head) * stride;
    pairs.insert(pairs.end(), first, first + qk / 2);
  }
  return pairs;
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
  rope_ = graph_->AddRope(turns, 0);
  if (config_.sliding_window == 0 || options_.prefix_rows == 0 || config_.rotary_dims == 0) return;
  // No farther from the prefix than in a window that is full for the first time: docs/ARITHMETIC.md, section 7.
  sink_rope_ = graph_->AddRope(turns, Narrow(options_.prefix_rows + config_.sliding_window - 1));
}

bool ModelWriter::HasSinkQueries(int64_t layer) const {
  return config_.WindowOf(layer) != 0 && options_.prefix_rows != 0 && config_.rotary_dims != 0;
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
  if (sink_rope_ != rope_) sink_q8_ = graph_->NewValue(EdgeType::kS8, q_width);
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

WeightInfo ModelWriter::AddWeight(const QuantizedMatrix &matrix, EdgeType input, const std::vector<int64_t> &depths) {
  return graph_->AddWeight(matrix, LayoutOf(matrix.format), input, PanelDepth(matrix, depths));
}

WeightInfo ModelWriter::PartOf(std::optional<WeightInfo> *whole, const QuantizedMatrix &matrix, EdgeType input,
                               const std::vector<IndexRun> &rows, int64_t k, const std::vector<int64_t> &depths) {
  if (!*whole) *whole = AddWeight(matrix, input, depths);
  return DescribePart(**whole, matrix, rows, k);
}

int64_t ModelWriter::DepthOfO(const QuantizedLayer &layer, const LayerWidths &widths) const {
  if (!layer.ssm.empty()) return config_.ssm.heads * widths.channels;
  const int64_t group = std::max<int64_t>(layer.o.group(), 1), depth = config_.heads * widths.v;
  return std::min(layer.o.k, (depth + group - 1) / group * group);
}

std::vector<int64_t> ModelWriter::DepthsOfO(const QuantizedLayer &layer) const {
  std::vector<int64_t> depths;
  for (const LayerProfile &profile : layer.profiles) depths.push_back(DepthOfO(layer, profile.widths));
  return depths;
}

std::vector<int64_t> ModelWriter::DepthsOfDown(const QuantizedLayer &layer) const {
  std::vector<int64_t> depths;
  for (const LayerProfile &profile : layer.profiles) depths.push_back(profile.widths.ffn);
  return depths;
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

Port ModelWriter::Branch(const Port &in, const WeightInfo &weight, const RowVector &bias, double scale) {
  const Port branch = Scaled(branch_, scale);
  graph_->Linear(in, branch, weight, ToDoubles(bias), std::vector<double>(static_cast<size_t>(weight.n), scale));
  return branch;
}

void ModelWriter::CloseBranch(const Port &branch, double sum_scale) {
  const Port sum = Scaled(residual_.value == stream_[0].value ? stream_[1] : stream_[0], sum_scale);
  graph_->Add(residual_, branch, sum);
  residual_ = sum;
}

void ModelWriter::Position(const Port &in, uint16_t rope, const Port &rotated, const Port &out, const std::vector<double> &scales,
                           const std::vector<uint8_t> &pairs) {
  const auto block = static_cast<uint32_t>(options_.cache.head_block);
  if (block == 1) return graph_->Rotate(in, out, rope, scales, pairs);
  // In units of a head's step, so that one factor serves all heads. The transform keeps lengths: what it takes to 127 steps or
  // less in every dimension has at most 127 * sqrt(block) in one.
  const double unit = 127 * std::sqrt(static_cast<double>(block)) / EdgeLimit(EdgeType::kS16);
  std::vector<double> rotated_scales;
  rotated_scales.reserve(scales.size());
  for (const double scale : scales) rotated_scales.push_back(scale * unit);
  graph_->Rotate(in, rotated, rope, rotated_scales, pairs);
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

void ModelWriter::AttentionHalf(const LayerView &view) {
  const QuantizedLayer &layer = view.layer;
  const LayerScales &scales = view.scales;
  const int64_t qk = view.widths.qk, v_dim = view.widths.v;
  const uint32_t q_width = Narrow(config_.heads * qk), k_width = Narrow(config_.kv_heads * qk);
  const uint32_t v_width = Narrow(config_.kv_heads * v_dim);

  const Port normed =
      Normed(layer.attn_norm, layer.attn_norm_bias, layer.inputs.attn_in, scales.attn_in, scales.attn_in_zero);
  std::vector<IndexRun> rows;
  for (int64_t head = 0; head < config_.heads + config_.kv_heads; ++head) {
    rows.push_back({Narrow(head * layer.widths.qk), Narrow(qk)});
  }
  for (int64_t head = 0; head < config_.kv_heads; ++head) {
    rows.push_back({Narrow((config_.heads + config_.kv_heads) * layer.widths.qk + head * layer.widths.v), Narrow(v_dim)});
  }
  const WeightInfo weight = PartOf(&view.parts->qkv, layer.qkv, normed.type, rows, layer.qkv.k);
  std::vector<double> out_scales(q_width, scales.q16);
  out_scales.insert(out_scales.end(), k_width, scales.k16);
  out_scales.insert(out_scales.end(), v_width, scales.v16);
  graph_->Linear(normed, Columns(qkv_, 0, q_width + k_width + v_width, 1), weight, RowsOf(layer.qkv_bias, rows), out_scales);
  Port q = Columns(qkv_, 0, q_width, scales.q16);
  Port k = Columns(qkv_, q_width, k_width, scales.k16);
  const Port v = Columns(qkv_, q_width + k_width, v_width, scales.v16);
  if (config_.qk_norm) {
    const Port q_normed = Scaled(q_normed_, scales.q_normed16);
    const Port k_normed = Scaled(k_normed_, scales.k_normed16);
    const bool per_row = config_.qk_norm_rows;
    graph_->RmsNorm(q, q_normed, per_row ? 1 : config_.heads, ToDoubles(layer.q_norm), config_.rms_eps);
    graph_->RmsNorm(k, k_normed, per_row ? 1 : config_.kv_heads, ToDoubles(layer.k_norm), config_.rms_eps);
    q = q_normed;
    k = k_normed;
  }
  const std::vector<uint8_t> pairs = PairsOf(layer, qk);
  const Port q8 = Columns(q8_, 0, q_width, 1), k8 = Columns(k8_, 0, k_width, 1);
  Position(q, rope_, q_rotated_, q8, scales.q8, pairs);
  Position(k, rope_, k_rotated_, k8, scales.k8, pairs);
  const bool has_sink_queries = HasSinkQueries(layer_);
  const Port sink_q8 = has_sink_queries ? Columns(sink_q8_, 0, q_width, 1) : q8;
  if (has_sink_queries) Position(q, sink_rope_, q_rotated_, sink_q8, scales.q8, pairs);
  if (view.profile == 0) {
    view.parts->cache = graph_->AddCache(config_.kv_heads, std::max(layer.widths.qk, layer.widths.v), options_.cache.bits,
                                         layer.prefix_k, layer.prefix_v, config_.WindowOf(layer_));
  }
  graph_->Append(k8, v, view.parts->cache, scales.v8);

  const double divisor =
      config_.attention_scale != 0 ? 1 / config_.attention_scale : std::sqrt(static_cast<double>(config_.head_dim));
  std::vector<double> score_scales, v_scales;
  for (int64_t h = 0; h < config_.heads; ++h) {
    const auto kv = static_cast<size_t>(h / (config_.heads / config_.kv_heads));
    score_scales.push_back(scales.q8[static_cast<size_t>(h)] * scales.k8[kv] / divisor);
    v_scales.push_back(scales.v8[kv]);
  }
  const int64_t depth = DepthOfO(layer, view.widths);
  Port mixed = Columns(mixed_, 0, Narrow(depth), scales.attn_out);
  mixed.zero_point = scales.attn_out_zero;
  const ValueOrder order = layer.order.rank_major ? ValueOrder{Narrow(v_dim), Narrow(LayerOrder::kRankBlock)} : ValueOrder{};
  graph_->Attention(q8, has_sink_queries ? &sink_q8 : nullptr, mixed, view.parts->cache, score_scales, v_scales, order);
  const WeightInfo o = PartOf(&view.parts->o, layer.o, mixed.type, {{0, Narrow(layer.o.n)}}, depth, DepthsOfO(layer));
  CloseBranch(Branch(mixed, o, layer.o_bias, scales.o16), scales.mid16);
}

void ModelWriter::StateSpaceHalf(const LayerView &view) {
  const QuantizedLayer &layer = view.layer;
  const LayerScales &edges = view.scales;
  const QuantizedStateSpace &part = layer.ssm;
  const StateSpaceScales &scales = view.ssm;
  const StateSpaceConfig &ssm = config_.ssm;
  const LayerWidths &whole = layer.widths, &kept = view.widths;
  const int64_t whole_inner = ssm.heads * whole.channels, whole_side = ssm.groups * whole.state;
  const uint32_t inner = Narrow(ssm.heads * kept.channels), side = Narrow(ssm.groups * kept.state), heads = Narrow(ssm.heads);
  const uint32_t channels = inner + 2 * side;

  // Of x, B and C, which the convolution sees; then the same among the rows of the weight, between gate and step.
  std::vector<IndexRun> columns = {{0, inner}};
  for (int64_t group = 0; group < 2 * ssm.groups; ++group) {
    columns.push_back({Narrow(whole_inner + group * whole.state), Narrow(kept.state)});
  }
  std::vector<IndexRun> rows = {{0, inner}};
  for (const IndexRun &run : columns) rows.push_back({Narrow(whole_inner) + run.first, run.count});
  rows.push_back({Narrow(2 * (whole_inner + whole_side)), heads});

  const Port normed = Normed(layer.attn_norm, layer.attn_norm_bias, layer.inputs.attn_in, edges.attn_in, edges.attn_in_zero);
  const std::vector<double> conv_in16 = ElementsOf(scales.conv_in16, columns);
  std::vector<double> in_scales(inner, scales.gate16);
  in_scales.insert(in_scales.end(), conv_in16.begin(), conv_in16.end());
  in_scales.insert(in_scales.end(), scales.step16.begin(), scales.step16.end());
  graph_->Linear(normed, Columns(ssm_.in, 0, inner + channels + heads, 1),
                 PartOf(&view.parts->qkv, layer.qkv, normed.type, rows, layer.qkv.k), RowsOf(layer.qkv_bias, rows), in_scales);
  const Port gate = Columns(ssm_.in, 0, inner, scales.gate16), conv_in = Columns(ssm_.in, inner, channels, 1);
  const Port step = Columns(ssm_.in, inner + channels, heads, 1);

  if (view.profile == 0) {
    view.parts->conv_state = graph_->AddState(Narrow(part.conv.cols() - 1), channels, part.prefix_conv);
    view.parts->scan_state = graph_->AddState(inner, Narrow(kept.state), part.prefix_state);
  }
  ConvSpec conv;
  conv.state_index = view.parts->conv_state;
  if (channels != part.conv.rows()) conv.columns = columns;
  conv.taps = MatrixRowsOf(part.conv, columns);
  conv.bias = RowOf(part.conv_bias, columns);
  conv.in_scales = conv_in16;
  conv.factor = ActivationFactors(config_.activation);
  const int64_t run = layer.order.channel_major ? LayerOrder::kChannelBlock : kept.channels;
  for (int64_t piece = 0; piece < kept.channels / run; ++piece) {
    for (const double unit : scales.x16) conv.out_scales.insert(conv.out_scales.end(), static_cast<size_t>(run), unit);
  }
  for (const std::vector<double> *units : {&scales.b16, &scales.c16}) {
    for (const double unit : *units) conv.out_scales.insert(conv.out_scales.end(), static_cast<size_t>(kept.state), unit);
  }
  const Port convolved = Columns(ssm_.convolved, 0, channels, 1);
  graph_->Conv(conv_in, convolved, conv);

  ScanSpec scan;
  scan.state_index = view.parts->scan_state;
  scan.run = layer.order.channel_major ? Narrow(LayerOrder::kChannelBlock) : 0;
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
  const Port scanned = Columns(ssm_.scanned, 0, inner, scales.scan16);
  graph_->Scan(Columns(convolved, 0, inner, 1), Columns(convolved, inner, side, 1), Columns(convolved, inner + side, side, 1), step,
               scanned, scan);

  const Port gated = Columns(ssm_.gated, 0, inner, GluScale(gate.scale, scanned.scale, scales.gated_largest));
  graph_->Glu(gate, scanned, gated, ActivationFactors(ActivationKind::kSilu));
  const Port out_normed = Columns(ssm_.normed, 0, inner, scales.normed16);
  graph_->RmsNorm(gated, out_normed, ssm.groups, ToDoubles(RowOf(part.norm, {{0, inner}})), config_.rms_eps);
  Port out_in = Columns(ssm_.out_in, 0, inner, edges.attn_out);
  out_in.zero_point = edges.attn_out_zero;
  graph_->Hadamard(out_normed, out_in, options_.state_block, {});
  const WeightInfo o = PartOf(&view.parts->o, layer.o, out_in.type, {{0, Narrow(layer.o.n)}}, inner, DepthsOfO(layer));
  CloseBranch(Branch(out_in, o, layer.o_bias, edges.o16), edges.mid16);
}

Port ModelWriter::DenseFfn(const LayerView &view, const Port &normed, uint32_t block, double out_scale) {
  const QuantizedLayer &layer = view.layer;
  const LayerScales &scales = view.scales;
  const auto whole = static_cast<uint32_t>(layer.down.k);
  // A shared expert is never cut.
  const uint32_t ffn = layer.experts.empty() ? Narrow(view.widths.ffn) : whole;
  const FfnPorts &ports = PortsOf(whole);
  std::vector<double> out_scales(ffn, scales.gate16);
  out_scales.insert(out_scales.end(), ffn, scales.up16);
  const std::vector<IndexRun> rows = {{0, ffn}, {whole, ffn}};
  graph_->Linear(normed, Columns(ports.gate_up, 0, 2 * ffn, 1),
                 PartOf(&view.parts->gate_up, layer.gate_up, normed.type, rows, layer.gate_up.k), RowsOf(layer.gate_up_bias, rows),
                 out_scales);
  const Port gate = Columns(ports.gate_up, 0, ffn, scales.gate16);
  const Port up = Columns(ports.gate_up, ffn, ffn, scales.up16);
  const Port glu = Columns(ports.glu, 0, ffn, GluScale(gate.scale, up.scale, scales.glu_largest));
  graph_->Glu(gate, up, glu, ActivationFactors(config_.activation));
  Port down_in = Columns(DownIn(whole, layer.inputs.down_in), 0, ffn, scales.down_in);
  down_in.zero_point = scales.down_in_zero;
  graph_->Hadamard(glu, down_in, block, {});
  const WeightInfo down =
      PartOf(&view.parts->down, layer.down, down_in.type, {{0, Narrow(layer.down.n)}}, ffn, DepthsOfDown(layer));
  return Branch(down_in, down, layer.down_bias, out_scale);
}

Port ModelWriter::SparseFfn(const LayerView &view, const Port &normed) {
  const QuantizedLayer &layer = view.layer;
  const QuantizedExperts &sparse = layer.experts;
  const ExpertScales &scales = sparse.scales;
  if (router_.width == 0) {
    router_ = graph_->NewValue(EdgeType::kS32, sparse.router.n);
    routed_ = graph_->NewValue(EdgeType::kS16, config_.hidden);
  }
  const auto logits = [&](std::optional<WeightInfo> *known, const QuantizedMatrix &weight, Port *port) {
    const Port out = Scaled(*port, scales.router);
    const WeightInfo whole = PartOf(known, weight, normed.type, {{0, Narrow(weight.n)}}, weight.k);
    graph_->Linear(normed, out, whole, {}, std::vector<double>(static_cast<size_t>(weight.n), scales.router));
    return out;
  };
  const Port router = logits(&view.parts->router, sparse.router, &router_);
  const bool has_shared = layer.down.n != 0, has_gate = sparse.shared_gate.n != 0;
  Port shared, shared_gate;
  if (has_shared) shared = DenseFfn(view, normed, options_.shared_block, scales.down16);
  if (has_gate) {
    if (shared_gate_.width == 0) shared_gate_ = graph_->NewValue(EdgeType::kS32, 1);
    shared_gate = logits(&view.parts->shared_gate, sparse.shared_gate, &shared_gate_);
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
  spec.slices = sparse.slices;
  if (view.profile == 0) {
    view.parts->expert_set = graph_->BeginExperts(spec);
    for (const ExpertMatrices &expert : sparse.experts) graph_->AddExpert(expert);
  }
  RoutingSpec routing;
  routing.scoring = options_.scoring;
  routing.top_k = options_.top_k;
  routing.factor = ActivationFactors(config_.activation);
  routing.block = options_.expert_block;
  routing.slices = SlicesWithin(sparse.slices, view.widths.ffn);
  const Port out = Scaled(routed_, scales.down16);
  graph_->Experts(router, out, view.parts->expert_set, routing, has_shared ? &shared : nullptr, has_gate ? &shared_gate : nullptr);
  return out;
}

void ModelWriter::FfnHalf(const LayerView &view) {
  const QuantizedLayer &layer = view.layer;
  const LayerScales &scales = view.scales;
  const Port normed = Normed(layer.ffn_norm, layer.ffn_norm_bias, layer.inputs.ffn_in, scales.ffn_in, scales.ffn_in_zero);
  const bool dense = layer.experts.empty();
  const Port branch = dense ? DenseFfn(view, normed, options_.hadamard_block, scales.down16) : SparseFfn(view, normed);
  CloseBranch(branch, scales.out16);
}

void ModelWriter::AddLayer(const QuantizedLayer &layer) {
  graph_->BeginWeightSegment();
  LayerParts parts;
  const Port residual = residual_;
  for (size_t profile = 0; profile <= layer.profiles.size(); ++profile) {
    graph_->SelectProfile(profile);
    residual_ = residual;
    const LayerProfile *own = profile == 0 ? nullptr : &layer.profiles[profile - 1];
    const LayerView view = {layer, own == nullptr ? layer.widths : own->widths, own == nullptr ? layer.scales : own->scales,
                            own == nullptr ? layer.ssm.scales : own->ssm, profile, &parts};
    if (layer.ssm.empty()) {
      AttentionHalf(view);
    } else {
      StateSpaceHalf(view);
    }
    if (layer.down.n != 0 || !layer.experts.empty()) FfnHalf(view);
  }
  graph_->SelectProfile(0);
  ++layer_;
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
