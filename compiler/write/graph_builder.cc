#include "write/graph_builder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "acorn_schema/acorn_generated.h"
#include "acorn_schema/file.h"
#include "base/error.h"
#include "base/fixed_point.h"
#include "write/factor.h"
#include "write/file_writer.h"

namespace acorn::compiler {
namespace {

constexpr uint64_t kBiasLimit = (uint64_t{1} << 31) - 1;
constexpr double kS15Limit = 16319;

/// Largest magnitude of an input that a bound must cover; -2^14 + 64 is the lowest s15 value.
uint64_t InputLimit(EdgeType type) { return type == EdgeType::kS15 ? 16320 : 127; }

schema::DType ToSchema(EdgeType type) { return static_cast<schema::DType>(type); }
schema::Slice ToSchema(const Port &port) { return schema::Slice(port.value, port.offset, port.width); }
schema::Factor ToSchema(IntegerFactor factor) { return schema::Factor(factor.multiplier, static_cast<uint8_t>(factor.shift)); }

}  // namespace

double EdgeLimit(EdgeType type) {
  switch (type) {
    case EdgeType::kS8:
      return 127;
    case EdgeType::kS15:
      return kS15Limit;
    case EdgeType::kS16:
      return 32767;
    case EdgeType::kS32:
      return 2147483647.0;
  }
  return 0;
}

Port Columns(const Port &port, uint32_t offset, uint32_t width, double scale) {
  return {port.value, port.offset + offset, width, port.type, scale};
}

WeightInfo DescribeWeight(uint16_t index, const QuantizedMatrix &matrix) {
  WeightInfo info;
  info.index = index;
  info.n = matrix.n;
  info.k = matrix.k;
  info.scale = matrix.scale;
  for (int64_t channel = 0; channel < matrix.n; ++channel) info.absolute_sums.push_back(matrix.AbsoluteSum(channel));
  return info;
}

Port Scaled(Port port, double scale) {
  port.scale = scale;
  return port;
}

struct GraphBuilder::State {
  flatbuffers::FlatBufferBuilder fbb;
  std::vector<SegmentBytes> segments;  // 0: constants
  std::vector<schema::Value> values;
  std::vector<PackedWeight> weights;  // bytes moved to the segment
  std::vector<schema::Ref> weight_data;
  std::vector<flatbuffers::Offset<schema::Rope>> ropes;
  std::vector<flatbuffers::Offset<schema::Cache>> caches;
  std::vector<flatbuffers::Offset<schema::Step>> body, head;
  bool in_head = false;
  uint16_t body_out = 0;

  template <typename Op>
  void Step(schema::Op kind, flatbuffers::Offset<Op> op) {
    (in_head ? head : body).push_back(schema::CreateStep(fbb, kind, op.Union()));
  }

  schema::Ref Append(size_t segment, const uint8_t *data, size_t size) {
    std::vector<uint8_t> &bytes = segments[segment].bytes;
    bytes.resize((bytes.size() + kRefAlignment - 1) / kRefAlignment * kRefAlignment);
    const uint64_t offset = bytes.size();
    bytes.insert(bytes.end(), data, data + size);
    return schema::Ref(static_cast<uint16_t>(segment), offset, size);
  }

  /// Little-endian integers of a type, in the constants.
  template <typename T>
  schema::Ref Constants(const std::vector<T> &values_in) {
    std::vector<uint8_t> bytes(values_in.size() * sizeof(T));
    for (size_t i = 0; i < values_in.size(); ++i) {
      for (size_t b = 0; b < sizeof(T); ++b) {
        bytes[i * sizeof(T) + b] = static_cast<uint8_t>(static_cast<uint64_t>(values_in[i]) >> (8 * b));
      }
    }
    return Append(0, bytes.data(), bytes.size());
  }
};

GraphBuilder::GraphBuilder() : state_(std::make_unique<State>()) {
  state_->segments.push_back({static_cast<uint8_t>(schema::SegmentKind::Constants), {}});
}
GraphBuilder::~GraphBuilder() = default;

Port GraphBuilder::NewValue(EdgeType type, int64_t width) {
  state_->values.emplace_back(ToSchema(type), static_cast<uint32_t>(width));
  return {static_cast<uint16_t>(state_->values.size() - 1), 0, static_cast<uint32_t>(width), type, 1};
}

uint16_t GraphBuilder::ReserveWeight() {
  state_->weights.emplace_back();
  state_->weight_data.emplace_back();
  return static_cast<uint16_t>(state_->weights.size() - 1);
}

void GraphBuilder::BeginWeightSegment() {
  state_->segments.push_back({static_cast<uint8_t>(schema::SegmentKind::Weights), {}});
}

void GraphBuilder::SetWeight(uint16_t index, PackedWeight packed, EdgeType input) {
  packed.acc_bound = packed.acc_bound / kRowLimit * InputLimit(input);
  const std::vector<uint8_t> bytes = std::move(packed.bytes);
  state_->weight_data[index] = state_->Append(state_->segments.size() - 1, bytes.data(), bytes.size());
  packed.bytes.clear();
  state_->weights[index] = std::move(packed);
}

uint16_t GraphBuilder::AddRope(const std::vector<double> &turns) {
  std::vector<uint64_t> frequencies;
  for (const double turn : turns) {
    const double fraction = turn - std::floor(turn);
    frequencies.push_back(static_cast<uint64_t>(std::ldexp(fraction, 63)) << 1);
  }
  const schema::Ref ref = state_->Constants(frequencies);
  state_->ropes.push_back(schema::CreateRope(state_->fbb, static_cast<uint32_t>(2 * turns.size()), &ref));
  return static_cast<uint16_t>(state_->ropes.size() - 1);
}

uint16_t GraphBuilder::AddCache(int64_t kv_heads, int64_t head_dim, int bits, const std::vector<int8_t> &prefix_k,
                                const std::vector<int8_t> &prefix_v) {
  State &s = *state_;
  const auto heads = static_cast<uint32_t>(kv_heads);
  const auto dim = static_cast<uint32_t>(head_dim);
  const auto width = static_cast<uint8_t>(bits);
  if (prefix_k.empty()) {
    s.caches.push_back(schema::CreateCache(s.fbb, heads, dim, nullptr, nullptr, width));
  } else {
    const schema::Ref k = s.Constants(prefix_k);
    const schema::Ref v = s.Constants(prefix_v);
    s.caches.push_back(schema::CreateCache(s.fbb, heads, dim, &k, &v, width));
  }
  return static_cast<uint16_t>(s.caches.size() - 1);
}

void GraphBuilder::BeginHead(const Port &body_out) {
  state_->in_head = true;
  state_->body_out = body_out.value;
}

void GraphBuilder::Embedding(const Port &out, const WeightInfo &weight) {
  std::vector<double> factors;
  for (const double scale : weight.scale) factors.push_back(scale / out.scale);
  const IntegerFactors integers = MakeFactors(factors, uint64_t{8} * 255);
  const schema::Ref multipliers = state_->Constants(integers.multipliers);
  const schema::Slice slice = ToSchema(out);
  const auto op =
      schema::CreateEmbedding(state_->fbb, &slice, weight.index, &multipliers, static_cast<uint8_t>(integers.shift));
  state_->body.insert(state_->body.begin(), schema::CreateStep(state_->fbb, schema::Op::Embedding, op.Union()));
}

void GraphBuilder::RmsNorm(const Port &in, const Port &out, int64_t groups, const std::vector<double> &gamma, double eps) {
  const double width = static_cast<double>(in.width) / static_cast<double>(groups);
  double largest = 0;
  for (const double g : gamma) largest = std::max(largest, std::abs(g));
  if (largest == 0) largest = 1;
  const double gamma_scale = largest / 32767;
  std::vector<int16_t> integers;
  for (const double g : gamma) integers.push_back(static_cast<int16_t>(std::floor(g / gamma_scale + 0.5)));
  // y = x * gamma / sqrt(sum x^2 + width * eps / scale^2) * sqrt(width), in units of the output.
  const IntegerFactor factor = MakeNormalizedFactor(gamma_scale * std::sqrt(width) / out.scale);
  if (factor.shift < 2 || factor.shift > 49) throw Error(ExitCode::kBadModel, "a norm's gain has no integer factor");
  const double eps_term = width * eps / (in.scale * in.scale);
  if (eps_term >= std::ldexp(1.0, 60)) throw Error(ExitCode::kBadModel, "a norm's epsilon is too large for its input");
  const schema::Ref gamma_ref = state_->Constants(integers);
  const schema::Slice from = ToSchema(in), to = ToSchema(out);
  const schema::Factor f = ToSchema(factor);
  state_->Step(schema::Op::RmsNorm, schema::CreateRmsNorm(state_->fbb, &from, &to, static_cast<uint32_t>(groups), &gamma_ref,
                                                          &f, static_cast<uint64_t>(std::floor(eps_term + 0.5)), 0));
}

void GraphBuilder::Linear(const Port &in, const Port &out, const WeightInfo &weight, const std::vector<double> &bias,
                          const std::vector<double> &out_scales) {
  const size_t n = static_cast<size_t>(weight.n);
  const int64_t largest = *std::max_element(weight.absolute_sums.begin(), weight.absolute_sums.end());
  const uint64_t bound = InputLimit(in.type) * static_cast<uint64_t>(largest);
  // The sum of one row of input fits 32 bits together with its bias; that of two rows has 64 and more room.
  const uint64_t room = in.type == EdgeType::kS15 ? kBiasLimit : kBiasLimit - bound;
  std::vector<int32_t> biases(n, 0);
  std::vector<double> factors(n);
  for (size_t i = 0; i < n; ++i) {
    const double unit = in.scale * weight.scale[i];
    if (!bias.empty()) {
      const double value = std::floor(bias[i] / unit + 0.5);
      if (std::abs(value) > static_cast<double>(room))
        throw Error(ExitCode::kBadModel, "a bias is too large for its channel's sums");
      biases[i] = static_cast<int32_t>(value);
    }
    factors[i] = unit / out_scales[i];
  }
  const uint64_t total = in.type == EdgeType::kS15 ? bound + (uint64_t{1} << 31) : kBiasLimit;
  const IntegerFactors integers = MakeFactors(factors, uint64_t{1} << BitLength(total));
  const schema::Ref bias_ref = state_->Constants(biases);
  const schema::Ref multipliers = state_->Constants(integers.multipliers);
  const schema::Slice from = ToSchema(in), to = ToSchema(out);
  state_->Step(schema::Op::Linear, schema::CreateLinear(state_->fbb, &from, &to, weight.index, &bias_ref, &multipliers,
                                                        static_cast<uint8_t>(integers.shift), 0));
}

void GraphBuilder::Rotate(const Port &in, const Port &out, uint16_t rope, const std::vector<double> &out_scales) {
  std::vector<double> factors;
  for (const double scale : out_scales) factors.push_back(in.scale / scale / 16384);
  // |x * cos - x' * sin| <= 2^15 * 2^14 * 2
  const IntegerFactors integers = MakeFactors(factors, uint64_t{1} << 30);
  const schema::Ref multipliers = state_->Constants(integers.multipliers);
  const schema::Slice from = ToSchema(in), to = ToSchema(out);
  state_->Step(schema::Op::Rotate, schema::CreateRotate(state_->fbb, &from, &to, static_cast<uint32_t>(out_scales.size()), rope,
                                                        &multipliers, static_cast<uint8_t>(integers.shift)));
}

void GraphBuilder::Append(const Port &k, const Port &v, uint16_t cache, const std::vector<double> &v_scales) {
  std::vector<double> factors;
  for (const double scale : v_scales) factors.push_back(v.scale / scale);
  const IntegerFactors integers = MakeFactors(factors, 32767);
  const schema::Ref multipliers = state_->Constants(integers.multipliers);
  const schema::Slice keys = ToSchema(k), rows = ToSchema(v);
  state_->Step(schema::Op::Append,
               schema::CreateAppend(state_->fbb, &keys, &rows, cache, &multipliers, static_cast<uint8_t>(integers.shift)));
}

void GraphBuilder::Attention(const Port &q, const Port &out, uint16_t cache, const std::vector<double> &score_scales,
                             const std::vector<double> &v_scales) {
  const size_t heads = score_scales.size();
  const uint64_t head_dim = q.width / heads;
  std::vector<double> octaves, outputs;
  for (size_t h = 0; h < heads; ++h) {
    octaves.push_back(score_scales[h] * 1.4426950408889634 * 32768);
    outputs.push_back(v_scales[h] / out.scale);
  }
  const IntegerFactors exp = MakeFactors(octaves, 2 * 127 * 127 * head_dim);
  // Multipliers must lie in [2^30, 2^31) under one shift, so scales of a layer's values lie within a factor of two.
  IntegerFactor largest = MakeNormalizedFactor(*std::max_element(outputs.begin(), outputs.end()));
  std::vector<int32_t> integers;
  for (const double factor : outputs) {
    const double multiplier = std::floor(std::ldexp(factor, largest.shift) + 0.5);
    if (multiplier < 1073741824.0) throw Error(ExitCode::kBadModel, "value scales of one layer differ too much");
    integers.push_back(static_cast<int32_t>(std::min(multiplier, 2147483647.0)));
  }
  if (largest.shift < 1 || largest.shift > 38) throw Error(ExitCode::kBadModel, "attention's output has no integer factor");
  const schema::Ref exp_ref = state_->Constants(exp.multipliers);
  const schema::Ref out_ref = state_->Constants(integers);
  const schema::Slice from = ToSchema(q), to = ToSchema(out);
  state_->Step(schema::Op::Attention,
               schema::CreateAttention(state_->fbb, &from, &to, cache, static_cast<uint32_t>(heads), &exp_ref,
                                       static_cast<uint8_t>(exp.shift), &out_ref, static_cast<uint8_t>(largest.shift), 0));
}

double GraphBuilder::GluScale(double gate_scale, double up_scale, double largest) {
  // y = rs(g * t / 256 * u, S): one unit is gate * up * 2^S / 128.
  double scale = gate_scale * up_scale * 2 / 128;
  while (largest / scale > EdgeLimit(EdgeType::kS16)) scale *= 2;
  return scale;
}

void GraphBuilder::Glu(const Port &gate, const Port &up, const Port &out, const std::vector<double> &factor) {
  std::vector<int16_t> table;
  for (const double value : factor) {
    table.push_back(static_cast<int16_t>(std::min(std::max(std::floor(value * 32768 + 0.5), -32768.0), 32767.0)));
  }
  const int shift = static_cast<int>(std::lround(std::log2(out.scale * 128 / (gate.scale * up.scale))));
  if (table.size() != 514 || shift < 1 || shift > 62)
    throw Error(ExitCode::kBadModel, "a gated activation has no integer form");
  const IntegerFactor index = MakeFactor(gate.scale * 2048, 32767);
  const schema::Ref table_ref = state_->Constants(table);
  const schema::Slice g = ToSchema(gate), u = ToSchema(up), to = ToSchema(out);
  const schema::Factor f = ToSchema(index);
  state_->Step(schema::Op::Glu, schema::CreateGlu(state_->fbb, &g, &u, &to, &f, &table_ref, static_cast<uint8_t>(shift)));
}

void GraphBuilder::Hadamard(const Port &in, const Port &out, uint32_t block) {
  const IntegerFactor factor =
      MakeFactor(in.scale / std::sqrt(static_cast<double>(block)) / out.scale, uint64_t{block} * 32767);
  const schema::Slice from = ToSchema(in), to = ToSchema(out);
  const schema::Factor f = ToSchema(factor);
  state_->Step(schema::Op::Hadamard, schema::CreateHadamard(state_->fbb, &from, &to, block, &f, 0));
}

void GraphBuilder::Add(const Port &a, const Port &b, const Port &out) {
  const IntegerFactors factors = MakeFactors({a.scale / out.scale, b.scale / out.scale}, uint64_t{1} << 16);
  const schema::Slice left = ToSchema(a), right = ToSchema(b), to = ToSchema(out);
  state_->Step(schema::Op::Add, schema::CreateAdd(state_->fbb, &left, &right, &to, factors.multipliers[0],
                                                  factors.multipliers[1], static_cast<uint8_t>(factors.shift)));
}

uint64_t GraphBuilder::Finish(const std::string &path, const Port &logits, const ModelFacts &facts) {
  State &s = *state_;
  flatbuffers::FlatBufferBuilder &fbb = s.fbb;
  uint16_t tokenizer_segment = 65535;
  if (!facts.tokenizer.empty()) {
    tokenizer_segment = static_cast<uint16_t>(s.segments.size());
    s.segments.push_back({static_cast<uint8_t>(schema::SegmentKind::Tokenizer), facts.tokenizer});
  }
  // Segments are structs stored inline, so that their places can be written once the size of the graph is known.
  std::vector<schema::Segment> places(s.segments.size());
  std::vector<flatbuffers::Offset<schema::Weight>> weights;
  for (size_t i = 0; i < s.weights.size(); ++i) {
    const PackedWeight &w = s.weights[i];
    weights.push_back(schema::CreateWeight(fbb, static_cast<uint8_t>(w.format), static_cast<uint8_t>(w.layout),
                                           static_cast<uint32_t>(w.n), static_cast<uint32_t>(w.k),
                                           static_cast<uint32_t>(w.k_panel), &s.weight_data[i], w.acc_bound));
  }
  std::vector<flatbuffers::Offset<schema::Provenance>> provenance;
  for (const auto &[key, value] : facts.provenance) {
    provenance.push_back(schema::CreateProvenance(fbb, fbb.CreateString(key), fbb.CreateString(value)));
  }
  const auto name = fbb.CreateString(facts.name);
  const auto family = fbb.CreateString(facts.family);
  const auto prefix = fbb.CreateVector(facts.prefix_tokens);
  const auto segments = fbb.CreateVectorOfStructs(places);
  const auto values = fbb.CreateVectorOfStructs(s.values);
  const auto weights_vector = fbb.CreateVector(weights);
  const auto ropes = fbb.CreateVector(s.ropes);
  const auto caches = fbb.CreateVector(s.caches);
  const auto body = fbb.CreateVector(s.body);
  const auto head = fbb.CreateVector(s.head);
  const auto provenance_vector = fbb.CreateVector(provenance);
  const schema::Factor logit_factor = ToSchema(MakeFactor(logits.scale * 65536, uint64_t{1} << 31));
  const auto model = schema::CreateModel(fbb, name, family, facts.vocab_size, facts.max_context, prefix, segments, values,
                                         weights_vector, ropes, caches, body, head, s.body_out, logits.value, &logit_factor,
                                         tokenizer_segment, provenance_vector);
  schema::FinishModelBuffer(fbb, model);
  std::vector<uint8_t> graph(fbb.GetBufferPointer(), fbb.GetBufferPointer() + fbb.GetSize());
  const auto *stored = schema::GetModel(graph.data())->segments();
  const std::vector<SegmentPlace> final_places = PlaceSegments(s.segments, graph.size());
  for (size_t i = 0; i < final_places.size(); ++i) {
    const SegmentPlace &place = final_places[i];
    *const_cast<schema::Segment *>(stored->Get(static_cast<flatbuffers::uoffset_t>(i))) =
        schema::Segment(static_cast<schema::SegmentKind>(place.kind), place.offset, place.bytes, place.checksum);
  }
  return WriteModelFile(path, graph, s.segments);
}

}  // namespace acorn::compiler
