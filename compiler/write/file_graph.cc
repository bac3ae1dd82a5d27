#include "write/file_graph.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "acorn_schema/acorn_generated.h"
#include "acorn_schema/expert_record.h"
#include "acorn_schema/file.h"
#include "pack/pack.h"
#include "write/file_writer.h"
#include "write/op_integers.h"

namespace acorn::compiler {
namespace {

schema::DType ToSchema(EdgeType type) { return static_cast<schema::DType>(type); }
schema::Slice ToSchema(const Port &port) { return schema::Slice(port.value, port.offset, port.width); }
schema::Factor ToSchema(IntegerFactor factor) { return schema::Factor(factor.multiplier, static_cast<uint8_t>(factor.shift)); }

}  // namespace

namespace {

/// The records of one set.
struct ExpertSegment {
  ExpertSetSpec spec;
  uint64_t in_bound = 0, down_bound = 0;
  std::vector<schema::ExpertRecord> records;
  uint64_t bytes = 0;  // of the records, which lie in the spool
};

void StoreIntegers(const std::vector<int32_t> &values, uint8_t *out) {
  for (const int32_t value : values) {
    for (int b = 0; b < 4; ++b) *out++ = static_cast<uint8_t>(static_cast<uint32_t>(value) >> (8 * b));
  }
}

}  // namespace

struct FileGraph::State {
  explicit State(const std::string &path_in) : path(path_in), spool(path_in) {}

  const std::string path;
  flatbuffers::FlatBufferBuilder fbb;
  std::vector<SegmentBytes> segments;  // 0: constants
  std::vector<schema::Value> values;
  std::vector<PackedWeight> weights;  // bytes moved to the segment
  std::vector<schema::Ref> weight_data;
  std::vector<flatbuffers::Offset<schema::Rope>> ropes;
  std::vector<flatbuffers::Offset<schema::Cache>> caches;
  std::vector<flatbuffers::Offset<schema::State>> states;
  std::vector<int> rates;  // beside 0
  std::vector<std::vector<flatbuffers::Offset<schema::Step>>> bodies;  // of rate 0, then of the others
  std::vector<flatbuffers::Offset<schema::Step>> head;
  size_t profile = 0;  // whose body grows
  std::vector<ExpertSegment> expert_sets;
  Spool spool;  // of the experts, one set after the other
  bool in_head = false;
  uint16_t body_out = 0;

  template <typename Op>
  void Step(schema::Op kind, flatbuffers::Offset<Op> op) {
    (in_head ? head : bodies[profile]).push_back(schema::CreateStep(fbb, kind, op.Union()));
  }

  schema::Ref Append(size_t segment, const uint8_t *data, size_t size) {
    std::vector<uint8_t> &bytes = segments[segment].bytes;
    bytes.resize((bytes.size() + kRefAlignment - 1) / kRefAlignment * kRefAlignment);
    const uint64_t offset = bytes.size();
    bytes.insert(bytes.end(), data, data + size);
    return schema::Ref(static_cast<uint16_t>(segment), offset, size);
  }

  /// No vector for no runs: all.
  flatbuffers::Offset<flatbuffers::Vector<const schema::Run *>> Runs(const std::vector<IndexRun> &runs) {
    if (runs.empty()) return {};
    std::vector<schema::Run> stored;
    stored.reserve(runs.size());
    for (const IndexRun &run : runs) stored.emplace_back(run.first, run.count);
    return fbb.CreateVectorOfStructs(stored);
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

  template <typename T>
  uint16_t AddState(schema::DType type, uint32_t rows, uint32_t columns, const std::vector<T> &prefix) {
    const schema::Ref ref = prefix.empty() ? schema::Ref() : Constants(prefix);
    states.push_back(schema::CreateState(fbb, type, rows, columns, prefix.empty() ? nullptr : &ref));
    return static_cast<uint16_t>(states.size() - 1);
  }
};

FileGraph::FileGraph(const std::string &path, const std::vector<int> &rates) : state_(std::make_unique<State>(path)) {
  state_->rates = rates;
  state_->bodies.resize(rates.size() + 1);
  state_->segments.push_back({static_cast<uint8_t>(schema::SegmentKind::Constants), {}, 0});
}
FileGraph::~FileGraph() = default;

Port FileGraph::NewValue(EdgeType type, int64_t width) {
  state_->values.emplace_back(ToSchema(type), static_cast<uint32_t>(width));
  return {static_cast<uint16_t>(state_->values.size() - 1), 0, static_cast<uint32_t>(width), type, 1};
}

void FileGraph::BeginWeightSegment() {
  state_->segments.push_back({static_cast<uint8_t>(schema::SegmentKind::Weights), {}, 0});
}

WeightInfo FileGraph::AddWeight(const QuantizedMatrix &matrix, Layout layout, EdgeType input, int64_t k_panel) {
  State &s = *state_;
  PackedWeight packed = Pack(matrix, layout, k_panel);
  packed.acc_bound = packed.acc_bound / kRowLimit * InputLimit(input);
  const std::vector<uint8_t> bytes = std::move(packed.bytes);
  packed.bytes.clear();
  s.weight_data.push_back(s.Append(s.segments.size() - 1, bytes.data(), bytes.size()));
  s.weights.push_back(std::move(packed));
  return DescribeWeight(static_cast<uint16_t>(s.weights.size() - 1), matrix);
}

uint16_t FileGraph::AddRope(const std::vector<double> &turns, uint32_t limit) {
  const schema::Ref ref = state_->Constants(RopeFrequencyIntegers(turns));
  state_->ropes.push_back(schema::CreateRope(state_->fbb, static_cast<uint32_t>(2 * turns.size()), &ref, limit));
  return static_cast<uint16_t>(state_->ropes.size() - 1);
}

uint16_t FileGraph::AddCache(int64_t kv_heads, int64_t head_dim, int bits, const std::vector<int8_t> &prefix_k,
                             const std::vector<int8_t> &prefix_v, int64_t window) {
  State &s = *state_;
  const auto heads = static_cast<uint32_t>(kv_heads);
  const auto dim = static_cast<uint32_t>(head_dim);
  const auto width = static_cast<uint8_t>(bits);
  const auto seen = static_cast<uint32_t>(window);
  if (prefix_k.empty()) {
    s.caches.push_back(schema::CreateCache(s.fbb, heads, dim, nullptr, nullptr, width, seen));
  } else {
    const schema::Ref k = s.Constants(prefix_k);
    const schema::Ref v = s.Constants(prefix_v);
    s.caches.push_back(schema::CreateCache(s.fbb, heads, dim, &k, &v, width, seen));
  }
  return static_cast<uint16_t>(s.caches.size() - 1);
}

uint16_t FileGraph::AddState(uint32_t rows, uint32_t columns, const std::vector<int16_t> &prefix) {
  return state_->AddState(schema::DType::S16, rows, columns, prefix);
}

uint16_t FileGraph::AddState(uint32_t rows, uint32_t columns, const std::vector<int32_t> &prefix) {
  return state_->AddState(schema::DType::S32, rows, columns, prefix);
}

void FileGraph::SelectProfile(size_t profile) { state_->profile = profile; }

void FileGraph::BeginHead(const Port &body_out) {
  state_->in_head = true;
  state_->body_out = body_out.value;
}

void FileGraph::Embedding(const Port &out, const WeightInfo &weight) {
  const IntegerFactors integers = EmbeddingIntegers(out, weight.scale);
  const schema::Ref multipliers = state_->Constants(integers.multipliers);
  const schema::Slice slice = ToSchema(out);
  const auto op =
      schema::CreateEmbedding(state_->fbb, &slice, weight.index, &multipliers, static_cast<uint8_t>(integers.shift));
  const auto step = schema::CreateStep(state_->fbb, schema::Op::Embedding, op.Union());
  for (auto &body : state_->bodies) body.insert(body.begin(), step);
}

void FileGraph::RmsNorm(const Port &in, const Port &out, int64_t groups, const std::vector<double> &gamma, double eps) {
  const NormIntegers integers = RmsNormIntegers(in, out, groups, gamma, eps);
  const schema::Ref gamma_ref = state_->Constants(integers.gamma);
  const schema::Slice from = ToSchema(in), to = ToSchema(out);
  const schema::Factor f = ToSchema(integers.factor);
  state_->Step(schema::Op::RmsNorm, schema::CreateRmsNorm(state_->fbb, &from, &to, static_cast<uint32_t>(groups), &gamma_ref,
                                                          &f, integers.eps_term, static_cast<int16_t>(out.zero_point)));
}

void FileGraph::LayerNorm(const Port &in, const Port &out, const std::vector<double> &gain, const std::vector<double> &bias,
                          double eps) {
  const LayerNormIntegers integers = MakeLayerNormIntegers(in, out, gain, bias, eps);
  const schema::Ref gamma_ref = state_->Constants(integers.gamma), beta_ref = state_->Constants(integers.beta);
  const schema::Slice from = ToSchema(in), to = ToSchema(out);
  state_->Step(schema::Op::LayerNorm,
               schema::CreateLayerNorm(state_->fbb, &from, &to, 1, &gamma_ref, &beta_ref, static_cast<uint8_t>(integers.shift),
                                       integers.eps_term, static_cast<int16_t>(out.zero_point)));
}

void FileGraph::Linear(const Port &in, const Port &out, const WeightInfo &weight, const std::vector<double> &bias,
                       const std::vector<double> &out_scales) {
  const LinearIntegers integers = MakeLinearIntegers(in, weight, bias, out_scales);
  const schema::Ref bias_ref = state_->Constants(integers.bias);
  const schema::Ref multipliers = state_->Constants(integers.factors.multipliers);
  const schema::Slice from = ToSchema(in), to = ToSchema(out);
  const auto rows = state_->Runs(weight.rows);
  state_->Step(schema::Op::Linear, schema::CreateLinear(state_->fbb, &from, &to, weight.index, &bias_ref, &multipliers,
                                                        static_cast<uint8_t>(integers.factors.shift), 0, rows));
}

void FileGraph::Rotate(const Port &in, const Port &out, uint16_t rope, const std::vector<double> &out_scales,
                       const std::vector<uint8_t> &pairs) {
  const IntegerFactors integers = RotateIntegers(in, out_scales);
  const schema::Ref multipliers = state_->Constants(integers.multipliers);
  const schema::Ref pair_ref = pairs.empty() ? schema::Ref() : state_->Constants(pairs);
  const schema::Slice from = ToSchema(in), to = ToSchema(out);
  state_->Step(schema::Op::Rotate,
               schema::CreateRotate(state_->fbb, &from, &to, static_cast<uint32_t>(out_scales.size()), rope, &multipliers,
                                    static_cast<uint8_t>(integers.shift), pairs.empty() ? nullptr : &pair_ref));
}

void FileGraph::Append(const Port &k, const Port &v, uint16_t cache, const std::vector<double> &v_scales) {
  const IntegerFactors integers = AppendIntegers(v, v_scales);
  const schema::Ref multipliers = state_->Constants(integers.multipliers);
  const schema::Slice keys = ToSchema(k), rows = ToSchema(v);
  state_->Step(schema::Op::Append,
               schema::CreateAppend(state_->fbb, &keys, &rows, cache, &multipliers, static_cast<uint8_t>(integers.shift)));
}

void FileGraph::Attention(const Port &q, const Port *sink_q, const Port &out, uint16_t cache, const std::vector<double> &score_scales,
                          const std::vector<double> &v_scales, const ValueOrder &order) {
  const AttentionIntegers integers = MakeAttentionIntegers(q, out, score_scales, v_scales);
  const schema::Ref exp_ref = state_->Constants(integers.exp.multipliers);
  const schema::Ref out_ref = state_->Constants(integers.out.multipliers);
  const schema::Slice from = ToSchema(q), sinks = ToSchema(sink_q == nullptr ? q : *sink_q), to = ToSchema(out);
  state_->Step(schema::Op::Attention,
               schema::CreateAttention(state_->fbb, &from, &to, cache, static_cast<uint32_t>(score_scales.size()), &exp_ref,
                                       static_cast<uint8_t>(integers.exp.shift), &out_ref,
                                       static_cast<uint8_t>(integers.out.shift), static_cast<int16_t>(out.zero_point),
                                       order.v_dim, static_cast<uint8_t>(order.run), sink_q == nullptr ? nullptr : &sinks));
}

void FileGraph::Glu(const Port &gate, const Port &up, const Port &out, const std::vector<double> &factor) {
  const GluIntegers integers = MakeGluIntegers(gate, up, out, factor);
  const schema::Ref table_ref = state_->Constants(integers.table);
  const schema::Slice g = ToSchema(gate), u = ToSchema(up), to = ToSchema(out);
  const schema::Factor f = ToSchema(integers.index);
  state_->Step(schema::Op::Glu,
               schema::CreateGlu(state_->fbb, &g, &u, &to, &f, &table_ref, static_cast<uint8_t>(integers.shift)));
}

void FileGraph::Hadamard(const Port &in, const Port &out, uint32_t block, const std::vector<double> &) {
  const schema::Slice from = ToSchema(in), to = ToSchema(out);
  const schema::Factor f = ToSchema(HadamardIntegers(in, out, block));
  state_->Step(schema::Op::Hadamard,
               schema::CreateHadamard(state_->fbb, &from, &to, block, &f, static_cast<int16_t>(out.zero_point)));
}

void FileGraph::Add(const Port &a, const Port &b, const Port &out) {
  const IntegerFactors factors = AddIntegers(a, b, out);
  const schema::Slice left = ToSchema(a), right = ToSchema(b), to = ToSchema(out);
  state_->Step(schema::Op::Add, schema::CreateAdd(state_->fbb, &left, &right, &to, factors.multipliers[0],
                                                  factors.multipliers[1], static_cast<uint8_t>(factors.shift)));
}

void FileGraph::Conv(const Port &in, const Port &out, const ConvSpec &spec) {
  State &s = *state_;
  const ConvIntegers integers = MakeConvIntegers(spec);
  const auto taps = static_cast<uint32_t>(spec.taps.cols());
  const auto columns = s.Runs(spec.columns);
  const schema::Slice from = ToSchema(in), to = ToSchema(out);
  const schema::Ref weights = s.Constants(integers.weights), bias = s.Constants(integers.bias);
  const schema::Ref multipliers = s.Constants(integers.factors.multipliers), indices = s.Constants(integers.index.multipliers);
  const schema::Ref table = s.Constants(integers.table);
  s.Step(schema::Op::Conv,
         schema::CreateConv(s.fbb, &from, &to, spec.state_index, taps, &weights, &bias, &multipliers,
                            static_cast<uint8_t>(integers.factors.shift), &indices, static_cast<uint8_t>(integers.index.shift),
                            &table, columns));
}

void FileGraph::Scan(const Port &x, const Port &b, const Port &c, const Port &step, const Port &out, const ScanSpec &spec) {
  State &s = *state_;
  const ScanIntegers integers = MakeScanIntegers(spec, out);
  const auto groups = static_cast<uint32_t>(spec.groups);
  const schema::Slice xs = ToSchema(x), bs = ToSchema(b), cs = ToSchema(c), steps = ToSchema(step), to = ToSchema(out);
  const schema::Ref step_ref = s.Constants(integers.step.multipliers), bias = s.Constants(integers.step_bias);
  const schema::Ref table = s.Constants(integers.table), decay = s.Constants(integers.decay.multipliers);
  const schema::Ref input = s.Constants(integers.input.multipliers), skip = s.Constants(integers.skip);
  const schema::Ref shifts = s.Constants(integers.out_shifts);
  s.Step(schema::Op::Scan,
         schema::CreateScan(s.fbb, &xs, &bs, &cs, &steps, &to, spec.state_index, static_cast<uint32_t>(spec.heads()), groups, &step_ref,
                            static_cast<uint8_t>(integers.step.shift), &bias, &table, integers.least, integers.most, &decay,
                            static_cast<uint8_t>(integers.decay.shift), &input, static_cast<uint8_t>(integers.input.shift), &skip,
                            &shifts, static_cast<uint8_t>(spec.run)));
}

uint16_t FileGraph::BeginExperts(const ExpertSetSpec &spec) {
  state_->expert_sets.push_back({spec, 0, 0, {}, 0});
  return static_cast<uint16_t>(state_->expert_sets.size() - 1);
}

void FileGraph::AddExpert(const ExpertMatrices &expert) {
  ExpertSegment &set = state_->expert_sets.back();
  if (set.spec.slices.empty()) set.spec.slices = {expert.gate.n};
  int64_t first = 0;
  for (const int64_t width : set.spec.slices) {
    AddSlice({expert.gate.Channels(first, width), expert.up.Channels(first, width), expert.down.Inputs(first, width)});
    first += width;
  }
}

void FileGraph::AddSlice(const ExpertMatrices &matrices) {
  ExpertSegment &set = state_->expert_sets.back();
  const ExpertSetSpec &spec = set.spec;
  const expert::Shape shape = {spec.in.width, static_cast<uint32_t>(matrices.gate.n), matrices.gate.format, matrices.down.format,
                               spec.layout};
  const uint64_t bytes = expert::RecordBytes(shape);
  std::vector<uint8_t> record((bytes + kSegmentAlignment - 1) / kSegmentAlignment * kSegmentAlignment);
  int shifts[expert::kParts];
  for (size_t part = 0; part < expert::kParts; ++part) {
    const QuantizedMatrix &matrix = part == expert::kGate ? matrices.gate : part == expert::kUp ? matrices.up : matrices.down;
    const expert::Matrix as_stored = expert::MatrixOf(shape, part);
    const Port &in = part == expert::kDown ? spec.down_in : spec.in;
    const double out_scale = part == expert::kGate ? spec.gate.scale : part == expert::kUp ? spec.up.scale : spec.down_scale;
    const PackedWeight packed = Pack(matrix, as_stored.layout, as_stored.k_panel);
    const LinearIntegers integers =
        MakeLinearIntegers(in, DescribeWeight(0, matrix), {}, std::vector<double>(static_cast<size_t>(matrix.n), out_scale));
    const expert::Place place = expert::PlaceOf(shape, part);
    std::copy(packed.bytes.begin(), packed.bytes.end(), record.data() + place.weights);
    StoreIntegers(integers.bias, record.data() + place.bias);
    StoreIntegers(integers.factors.multipliers, record.data() + place.multipliers);
    shifts[part] = integers.factors.shift;
    uint64_t &bound = part == expert::kDown ? set.down_bound : set.in_bound;
    bound = std::max(bound, packed.acc_bound);
  }
  set.records.emplace_back(set.bytes, RecordChecksum(record.data(), bytes), static_cast<uint8_t>(shape.format),
                           static_cast<uint8_t>(shape.down_format), static_cast<uint8_t>(shifts[expert::kGate]),
                           static_cast<uint8_t>(shifts[expert::kUp]), static_cast<uint8_t>(shifts[expert::kDown]));
  set.bytes += record.size();
  state_->spool.Write(record.data(), record.size());
}

void FileGraph::Experts(const Port &router, const Port &out, uint16_t set, const RoutingSpec &routing, const Port *shared,
                        const Port *shared_gate) {
  State &s = *state_;
  const ExpertSetSpec &spec = s.expert_sets[set].spec;
  const GluIntegers glu = MakeGluIntegers(spec.gate, spec.up, spec.glu, routing.factor);
  const schema::Ref table = s.Constants(glu.table);
  const schema::Slice in = ToSchema(spec.in), logits = ToSchema(router), to = ToSchema(out);
  const schema::Factor octaves = ToSchema(OctaveIntegers(router)), index = ToSchema(glu.index);
  const schema::Factor down = ToSchema(HadamardIntegers(spec.glu, spec.down_in, routing.block));
  const schema::Slice shared_slice = shared == nullptr ? schema::Slice() : ToSchema(*shared);
  const schema::Slice gate_slice = shared_gate == nullptr ? schema::Slice() : ToSchema(*shared_gate);
  const schema::Factor gate_octaves = shared_gate == nullptr ? schema::Factor() : ToSchema(OctaveIntegers(*shared_gate));
  s.Step(schema::Op::Experts,
         schema::CreateExperts(s.fbb, &in, &logits, &to, set, static_cast<uint32_t>(routing.top_k),
                               static_cast<uint8_t>(routing.scoring), &octaves, &index, &table, static_cast<uint8_t>(glu.shift),
                               routing.block, &down, static_cast<int16_t>(spec.down_in.zero_point),
                               shared == nullptr ? nullptr : &shared_slice, shared_gate == nullptr ? nullptr : &gate_slice,
                               shared_gate == nullptr ? nullptr : &gate_octaves, static_cast<uint8_t>(routing.slices)));
}

uint64_t FileGraph::Finish(const Port &logits, const ModelFacts &facts) {
  State &s = *state_;
  flatbuffers::FlatBufferBuilder &fbb = s.fbb;
  uint16_t tokenizer_segment = 65535;
  if (!facts.tokenizer.empty()) {
    tokenizer_segment = static_cast<uint16_t>(s.segments.size());
    s.segments.push_back({static_cast<uint8_t>(schema::SegmentKind::Tokenizer), facts.tokenizer, 0});
  }
  // Experts come last, so that what must be in memory is one stretch.
  std::vector<flatbuffers::Offset<schema::ExpertSet>> expert_sets;
  for (const ExpertSegment &set : s.expert_sets) {
    const auto records = fbb.CreateVectorOfStructs(set.records);
    const std::vector<uint32_t> widths(set.spec.slices.begin(), set.spec.slices.end());
    const uint32_t ffn = std::accumulate(widths.begin(), widths.end(), 0u);
    const auto slices = widths.size() == 1 ? 0 : fbb.CreateVector(widths);
    expert_sets.push_back(schema::CreateExpertSet(fbb, static_cast<uint16_t>(s.segments.size()), set.spec.in.width, ffn,
                                                  static_cast<uint8_t>(set.spec.layout), set.in_bound, set.down_bound, records,
                                                  slices));
    s.segments.push_back({static_cast<uint8_t>(schema::SegmentKind::Experts), {}, set.bytes});
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
  const auto body = fbb.CreateVector(s.bodies[0]);
  const auto head = fbb.CreateVector(s.head);
  const auto provenance_vector = fbb.CreateVector(provenance);
  flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<schema::ExpertSet>>> expert_vector;
  if (!expert_sets.empty()) expert_vector = fbb.CreateVector(expert_sets);
  flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<schema::State>>> states;
  if (!s.states.empty()) states = fbb.CreateVector(s.states);
  std::vector<flatbuffers::Offset<schema::Profile>> profile_list;
  for (size_t i = 0; i < s.rates.size(); ++i) {
    const auto steps = fbb.CreateVector(s.bodies[i + 1]);
    profile_list.push_back(schema::CreateProfile(fbb, static_cast<uint8_t>(s.rates[i]), steps));
  }
  flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<schema::Profile>>> profiles;
  if (!profile_list.empty()) profiles = fbb.CreateVector(profile_list);
  const schema::Factor logit_factor = ToSchema(MakeFactor(logits.scale * 65536, uint64_t{1} << 31));
  const auto model = schema::CreateModel(fbb, name, family, facts.vocab_size, facts.max_context, prefix, segments, values,
                                         weights_vector, ropes, caches, body, head, s.body_out, logits.value, &logit_factor,
                                         tokenizer_segment, provenance_vector, 0, expert_vector, states, profiles);
  schema::FinishModelBuffer(fbb, model);
  std::vector<uint8_t> graph(fbb.GetBufferPointer(), fbb.GetBufferPointer() + fbb.GetSize());
  const auto *stored = schema::GetModel(graph.data())->segments();
  const std::vector<SegmentPlace> final_places = PlaceSegments(s.segments, graph.size());
  for (size_t i = 0; i < final_places.size(); ++i) {
    const SegmentPlace &place = final_places[i];
    *const_cast<schema::Segment *>(stored->Get(static_cast<flatbuffers::uoffset_t>(i))) =
        schema::Segment(static_cast<schema::SegmentKind>(place.kind), place.offset, place.bytes, place.checksum);
  }
  return WriteModelFile(s.path, graph, s.segments, &s.spool);
}

}  // namespace acorn::compiler
