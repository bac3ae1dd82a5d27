#include "train/live_graph.h"

#include <algorithm>
#include <cassert>
#include <memory>

#include "base/parallel.h"
#include "pack/pack.h"
#include "write/op_integers.h"

namespace acorn::compiler {
namespace {

constexpr size_t kWeightAlignment = 64;

Slice ToSlice(const Port &port) { return {port.value, port.offset, port.width}; }
Scale ToScale(const IntegerFactor &factor) { return {factor.multiplier, factor.shift}; }

void PackWeight(LiveWeight *weight, Layout layout) {
  PackedWeight packed = Pack(*weight->matrix, layout);
  weight->layout = layout;
  weight->k_panel = packed.k_panel;
  weight->size = packed.bytes.size();
  weight->bytes.assign(packed.bytes.size() + kWeightAlignment, 0);
  void *place = weight->bytes.data();
  size_t room = weight->bytes.size();
  std::align(kWeightAlignment, packed.bytes.size(), place, room);
  std::copy(packed.bytes.begin(), packed.bytes.end(), static_cast<uint8_t *>(place));
  weight->data = static_cast<const uint8_t *>(place);
}

}  // namespace

void LiveGraph::Restart() {
  values_.clear();
  described_weights_ = 0;
  frequencies_.clear();
  ropes_.clear();
  prefixes_.clear();
  state_prefixes_.clear();
  caches_.clear();
  states_.clear();
  embedding_.clear();
  body_.clear();
  head_.clear();
  in_head_ = false;
}

void LiveGraph::Repack(const std::vector<uint32_t> &indices) {
  ParallelFor(static_cast<int64_t>(indices.size()), [&](int64_t i) {
    const uint32_t index = indices[static_cast<size_t>(i)];
    LiveWeight &weight = *weights_[index];
    weight.info = DescribeWeight(static_cast<uint16_t>(index), *weight.matrix);
    PackWeight(&weight, weight.layout);
  });
}

const Graph &LiveGraph::graph() {
  views_.clear();
  for (const auto &weight : weights_) {
    const QuantizedMatrix &matrix = *weight->matrix;
    views_.push_back({matrix.format, weight->layout, static_cast<uint32_t>(matrix.n), static_cast<uint32_t>(matrix.k),
                      static_cast<uint32_t>(weight->k_panel), weight->data, weight->size});
  }
  graph_.values = {values_.data(), values_.size()};
  graph_.weights = {views_.data(), views_.size()};
  graph_.ropes = {ropes_.data(), ropes_.size()};
  graph_.caches = {caches_.data(), caches_.size()};
  graph_.states = {states_.data(), states_.size()};
  return graph_;
}

Port LiveGraph::NewValue(EdgeType type, int64_t width) {
  values_.push_back({static_cast<DType>(type), static_cast<uint32_t>(width)});
  return {static_cast<uint16_t>(values_.size() - 1), 0, static_cast<uint32_t>(width), type, 1};
}

WeightInfo LiveGraph::AddWeight(const QuantizedMatrix &matrix, Layout layout, EdgeType, int64_t) {
  const auto index = static_cast<uint16_t>(described_weights_++);
  if (index == weights_.size()) {
    weights_.push_back(std::make_unique<LiveWeight>());
    weights_[index]->matrix = &matrix;
    weights_[index]->info = DescribeWeight(index, matrix);
    PackWeight(weights_[index].get(), layout);
  }
  assert(weights_[index]->matrix == &matrix);
  weights_[index]->info.scale = matrix.scale;
  return weights_[index]->info;
}

uint16_t LiveGraph::AddRope(const std::vector<double> &turns, uint32_t limit) {
  frequencies_.push_back(RopeFrequencyIntegers(turns));
  ropes_.push_back({static_cast<uint32_t>(2 * turns.size()), frequencies_.back().data(), limit == 0 ? UINT64_MAX : limit});
  return static_cast<uint16_t>(ropes_.size() - 1);
}

uint16_t LiveGraph::AddCache(int64_t kv_heads, int64_t head_dim, int bits, const std::vector<int8_t> &prefix_k,
                             const std::vector<int8_t> &prefix_v, int64_t) {
  prefixes_.push_back(std::make_unique<Prefix>(Prefix{prefix_k, prefix_v}));
  caches_.push_back({static_cast<uint32_t>(kv_heads), static_cast<uint32_t>(head_dim), static_cast<uint32_t>(bits),
                     0, prefixes_.back()->k.data(), prefixes_.back()->v.data()});
  return static_cast<uint16_t>(caches_.size() - 1);
}

uint16_t LiveGraph::AddState(uint32_t rows, uint32_t columns, const std::vector<int16_t> &prefix) {
  return NewState(DType::kS16, rows, columns, reinterpret_cast<const uint8_t *>(prefix.data()), 2 * prefix.size());
}

uint16_t LiveGraph::AddState(uint32_t rows, uint32_t columns, const std::vector<int32_t> &prefix) {
  return NewState(DType::kS32, rows, columns, reinterpret_cast<const uint8_t *>(prefix.data()), 4 * prefix.size());
}

uint16_t LiveGraph::NewState(DType type, uint32_t rows, uint32_t columns, const uint8_t *prefix, size_t bytes) {
  state_prefixes_.emplace_back(prefix, prefix + bytes);
  states_.push_back({type, rows, columns, bytes == 0 ? nullptr : state_prefixes_.back().data()});
  return static_cast<uint16_t>(states_.size() - 1);
}

LiveStep &LiveGraph::NewStep(OpKind kind, const Port &in, const Port &out) {
  std::vector<LiveStep> &steps = kind == OpKind::kEmbedding ? embedding_ : in_head_ ? head_ : body_;
  steps.emplace_back();
  LiveStep &live = steps.back();
  live.step.kind = kind;
  live.in = in;
  live.out = out;
  return live;
}

void LiveGraph::Embedding(const Port &out, const WeightInfo &weight) {
  LiveStep &live = NewStep(OpKind::kEmbedding, {}, out);
  IntegerFactors integers = EmbeddingIntegers(out, weight.scale);
  live.multipliers = std::move(integers.multipliers);
  live.step.embedding = {ToSlice(out), weight.index, live.multipliers.data(), integers.shift};
}

void LiveGraph::RmsNorm(const Port &in, const Port &out, int64_t groups, const std::vector<double> &gamma, double eps) {
  LiveStep &live = NewStep(OpKind::kRmsNorm, in, out);
  NormIntegers integers = RmsNormIntegers(in, out, groups, gamma, eps);
  live.constants = std::move(integers.gamma);
  live.gain = gamma;
  live.eps = eps;
  const auto depth = static_cast<uint32_t>(in.width / groups);
  live.step.rms_norm = {ToSlice(in), ToSlice(out), static_cast<uint32_t>(groups), live.constants.data(),
                        gamma.size() == depth ? 0 : depth, ToScale(integers.factor), integers.eps_term, out.zero_point};
}

void LiveGraph::LayerNorm(const Port &in, const Port &out, const std::vector<double> &gain, const std::vector<double> &bias,
                          double eps) {
  LiveStep &live = NewStep(OpKind::kLayerNorm, in, out);
  LayerNormIntegers integers = MakeLayerNormIntegers(in, out, gain, bias, eps);
  live.constants = std::move(integers.gamma);
  live.integer_bias = std::move(integers.beta);
  live.gain = gain;
  live.bias = bias;
  live.eps = eps;
  live.step.layer_norm = {ToSlice(in), ToSlice(out), 1, live.constants.data(), live.integer_bias.data(), integers.eps_term,
                          integers.shift, out.zero_point};
}

void LiveGraph::Linear(const Port &in, const Port &out, const WeightInfo &weight, const std::vector<double> &bias,
                       const std::vector<double> &out_scales) {
  LiveStep &live = NewStep(OpKind::kLinear, in, out);
  LinearIntegers integers = MakeLinearIntegers(in, weight, bias, out_scales);
  live.integer_bias = std::move(integers.bias);
  live.multipliers = std::move(integers.factors.multipliers);
  live.scales = out_scales;
  live.bias = bias;
  live.step.linear = {ToSlice(in), ToSlice(out), weight.index, {}, live.integer_bias.data(), live.multipliers.data(),
                      integers.factors.shift, 0, nullptr};
}

void LiveGraph::Rotate(const Port &in, const Port &out, uint16_t rope, const std::vector<double> &out_scales,
                       const std::vector<uint8_t> &) {
  LiveStep &live = NewStep(OpKind::kRotate, in, out);
  IntegerFactors integers = RotateIntegers(in, out_scales);
  live.multipliers = std::move(integers.multipliers);
  live.scales = out_scales;
  live.step.rotate = {ToSlice(in), ToSlice(out), static_cast<uint32_t>(out_scales.size()), rope, live.multipliers.data(),
                      integers.shift, nullptr, 1};
}

void LiveGraph::Append(const Port &k, const Port &v, uint16_t cache, const std::vector<double> &v_scales) {
  LiveStep &live = NewStep(OpKind::kAppend, k, {});
  IntegerFactors integers = AppendIntegers(v, v_scales);
  live.other = v;
  live.multipliers = std::move(integers.multipliers);
  live.scales = v_scales;
  const uint32_t dims = caches_[cache].head_dim;
  live.step.append = {ToSlice(k), ToSlice(v), dims, dims, cache, live.multipliers.data(), integers.shift};
}

void LiveGraph::Attention(const Port &q, const Port *, const Port &out, uint16_t cache, const std::vector<double> &score_scales,
                          const std::vector<double> &v_scales, const ValueOrder &) {
  LiveStep &live = NewStep(OpKind::kAttention, q, out);
  AttentionIntegers integers = MakeAttentionIntegers(q, out, score_scales, v_scales);
  live.multipliers = std::move(integers.exp.multipliers);
  live.more_multipliers = std::move(integers.out.multipliers);
  live.scales = score_scales;
  live.value_scales = v_scales;
  const uint32_t dims = caches_[cache].head_dim;
  live.step.attention = {ToSlice(q), ToSlice(out), {}, dims, dims, dims, cache, static_cast<uint32_t>(score_scales.size()),
                         live.multipliers.data(), integers.exp.shift, live.more_multipliers.data(), integers.out.shift, out.zero_point};
}

void LiveGraph::Glu(const Port &gate, const Port &up, const Port &out, const std::vector<double> &factor) {
  LiveStep &live = NewStep(OpKind::kGlu, gate, out);
  GluIntegers integers = MakeGluIntegers(gate, up, out, factor);
  live.other = up;
  live.constants = std::move(integers.table);
  live.factor = factor;
  live.step.glu = {ToSlice(gate), ToSlice(up), ToSlice(out), ToScale(integers.index), live.constants.data(), integers.shift, false};
}

void LiveGraph::Hadamard(const Port &in, const Port &out, uint32_t block, const std::vector<double> &head_units) {
  LiveStep &live = NewStep(OpKind::kHadamard, in, out);
  live.scales = head_units;
  live.step.hadamard = {ToSlice(in), ToSlice(out), block, ToScale(HadamardIntegers(in, out, block)), out.zero_point};
}

void LiveGraph::Add(const Port &a, const Port &b, const Port &out) {
  LiveStep &live = NewStep(OpKind::kAdd, a, out);
  const IntegerFactors integers = AddIntegers(a, b, out);
  live.other = b;
  live.step.add = {ToSlice(a), ToSlice(b), ToSlice(out), integers.multipliers[0], integers.multipliers[1], integers.shift};
}

void LiveGraph::Conv(const Port &in, const Port &out, const ConvSpec &spec) {
  LiveStep &live = NewStep(OpKind::kConv, in, out);
  live.conv = std::make_unique<LiveConv>(LiveConv{spec, MakeConvIntegers(spec)});
  const ConvIntegers &integers = live.conv->integers;
  const auto taps = static_cast<uint32_t>(spec.taps.cols());
  live.step.conv = {ToSlice(in), ToSlice(out), spec.state_index, taps, {}, integers.weights.data(),
                    integers.bias.data(), integers.factors.multipliers.data(), integers.factors.shift,
                    integers.index.multipliers.data(), integers.index.shift, integers.table.data()};
}

void LiveGraph::Scan(const Port &x, const Port &b, const Port &c, const Port &step, const Port &out, const ScanSpec &spec) {
  LiveStep &live = NewStep(OpKind::kScan, x, out);
  live.other = b;
  live.scan = std::make_unique<LiveScan>(LiveScan{c, step, spec, MakeScanIntegers(spec, out)});
  const ScanIntegers &integers = live.scan->integers;
  const auto groups = static_cast<uint32_t>(spec.groups);
  const auto heads = static_cast<uint32_t>(spec.heads());
  live.step.scan = {ToSlice(x), ToSlice(b), ToSlice(c), ToSlice(step), ToSlice(out), x.width / heads, spec.state_index,
                    heads, groups, integers.step.multipliers.data(), integers.step.shift,
                    integers.step_bias.data(), integers.table.data(), static_cast<int32_t>(integers.least),
                    static_cast<int32_t>(integers.most), integers.decay.multipliers.data(), integers.decay.shift,
                    integers.input.multipliers.data(), integers.input.shift, integers.skip.data(), integers.out_shifts.data()};
}

}  // namespace acorn::compiler
