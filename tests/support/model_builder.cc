#include "tests/support/model_builder.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include "acorn_schema/acorn_generated.h"
#include "acorn_schema/file.h"
#include "acorn_schema/pairs.h"
#include "tests/support/model_file.h"

namespace acorn::test {
namespace {

using schema::DType;
using schema::Op;
using schema::Ref;
using schema::Slice;

// Root mean squares that the factors aim at.
constexpr double kRms4 = 2.5, kRms8 = 40, kRms16 = 3000, kGammaMean = 8192, kLogitRms = 1 << 20, kNaturalLogitRms = 2.5;

constexpr int32_t kLargest15 = 16320;
constexpr double kInt16 = 32767, kInt31 = 2147483647;

/// Columns of a value, with what is known about the numbers in them.
struct Edge {
  uint16_t value;
  uint32_t offset, width;
  double rms;
  int zero_point = 0;

  Slice slice() const { return Slice(value, offset, width); }
  Edge Columns(uint32_t begin, uint32_t count) const { return {value, offset + begin, count, rms, zero_point}; }
};

struct Factors {
  std::vector<int32_t> multipliers;
  uint8_t shift;
};

// The largest multipliers M = f * 2^shift with M < 2^31 and bound * M < 2^62.
Factors MakeFactors(const std::vector<double> &values, double bound) {
  double largest = 0;
  for (double value : values) largest = std::max(largest, std::fabs(value));
  const double limit = std::min(kInt31, std::ldexp(1, 61) / bound);
  int shift = 1;
  while (shift < 62 && std::ldexp(largest, shift + 1) <= limit) ++shift;
  Factors factors;
  factors.shift = static_cast<uint8_t>(shift);
  for (double value : values) factors.multipliers.push_back(static_cast<int32_t>(std::lround(std::ldexp(value, shift))));
  return factors;
}

schema::Factor MakeFactor(double value, double bound) {
  const Factors factors = MakeFactors({value}, bound);
  return schema::Factor(factors.multipliers[0], factors.shift);
}

// M in [2^30, 2^31) and its shift.
Factors MakeNormalised(const std::vector<double> &values) {
  double largest = 0;
  for (double value : values) largest = std::max(largest, value);
  const int shift = 30 - std::ilogb(largest);
  Factors factors{{}, static_cast<uint8_t>(shift)};
  for (double value : values) {
    const double scaled = std::clamp(std::ldexp(value, shift), 1073741824.0, kInt31);
    factors.multipliers.push_back(static_cast<int32_t>(scaled));
  }
  return factors;
}

using Runs = std::vector<std::pair<uint32_t, uint32_t>>;  // first, count

std::vector<schema::Run> RunTable(const Runs &runs) {
  std::vector<schema::Run> stored;
  for (const auto &[first, count] : runs) stored.emplace_back(first, count);
  return stored;
}

void AddRuns(Runs *runs, uint32_t first, uint32_t stride, uint32_t count, uint32_t times) {
  for (uint32_t i = 0; i < times; ++i) runs->emplace_back(first + i * stride, count);
}

class Builder {
 public:
  explicit Builder(const ModelSpec &spec) : spec_(spec), random_(spec.seed), beside_(~spec.seed) {}
  AlignedBytes Build();

 private:
  // A stored matrix, with what is needed to choose factors for it.
  struct Stored {
    uint16_t index;
    WeightMatrix matrix;  // what is used of it
    double rms;
    Runs rows;  // that are used; none: all
  };

  Edge NewValue(const char *role, DType dtype, uint32_t width, double rms, int zero_point = 0);
  // A new one, or in a profile's body the one that the body at rate 0 has added at the same place.
  Stored AddWeight(const WeightKind &kind, uint32_t n, uint32_t k, int32_t largest_input = 127);
  std::vector<double> Spread(size_t count, double value);
  Runs Scatter(uint32_t count, uint32_t unit);

  void Push(Op type, flatbuffers::Offset<void> op);
  Edge Embed(const Stored &weight);
  enum class Gains { kShared, kOwn };  // of a norm's groups
  Edge RmsNorm(const char *role, const Edge &input, uint32_t groups, DType dtype, double rms, int zero_point,
               Gains gains = Gains::kShared);
  Edge LayerNorm(const char *role, const Edge &input, double rms, int zero_point);
  Edge Norm(const char *role, const Edge &input, int zero_point);
  Edge Linear(const char *role, const Edge &input, const Stored &weight, DType dtype, double rms);
  std::vector<uint8_t> Pairs(uint32_t count) const;
  Edge Rotate(const char *role, const Edge &input, uint32_t heads, DType type, double rms, uint16_t rope);
  Edge Positioned(const char *role, const Edge &input, uint32_t heads, double rms, uint16_t rope = 0);
  uint32_t WindowOf(size_t cache) const { return spec_.windows.empty() ? 0 : spec_.windows[cache % spec_.windows.size()]; }
  uint16_t SinkRope(uint32_t window);
  uint16_t AddCache();
  Edge Attend(const Edge &q, const Edge *sink_q, const Edge &k, const Edge &v);
  Edge Gate(const char *role, const Edge &gate, const Edge &up);
  Edge Transform(const Edge &input);
  Edge Hadamard(const char *role, const Edge &input, uint32_t block, DType type, double rms, int zero_point);
  Edge Add(const char *role, const Edge &a, const Edge &b);
  std::vector<int16_t> FactorTable() const;
  template <typename T, typename IsUsed>
  uint16_t AddState(DType dtype, uint32_t rows, uint32_t columns, int64_t prefix_limit, const IsUsed &is_used);
  Edge Convolve(const Edge &input, Runs columns);
  Edge Scan(const Edge &x, const Edge &b, const Edge &c, const Edge &dt);
  Edge AttentionMixer(const Edge &normed);
  Edge StateSpaceMixer(const Edge &normed);
  Edge Ffn(const Edge &ffn_in);
  Edge Experts(const Edge &ffn_in);
  void AddExpertSet(const Edge &ffn_in);
  Edge Layer(Edge residual, Mixer mixer);
  Edge Body(const Widths &widths);
  void AddRope(uint32_t limit);
  AlignedBytes Finish(const Edge &body_out, const Edge &logits);

  const ModelSpec &spec_;
  Random random_, beside_;  // beside_: for what is stored and not used
  SegmentSet segments_;
  uint16_t constants_ = 0, weight_segment_ = 0;
  flatbuffers::FlatBufferBuilder fbb_;
  std::vector<schema::Value> values_;
  std::map<std::string, uint16_t> roles_;
  std::map<uint32_t, uint16_t> sink_ropes_;  // by limit
  std::vector<flatbuffers::Offset<schema::Weight>> weights_;
  std::vector<flatbuffers::Offset<schema::Rope>> ropes_;
  std::vector<flatbuffers::Offset<schema::Cache>> caches_;
  std::vector<flatbuffers::Offset<schema::State>> states_;
  Widths widths_;       // of the body that is being built
  uint32_t cache_dim_ = 0;
  bool again_ = false;  // it is a profile's: all that steps name is there already
  std::vector<Stored> stored_;
  size_t next_weight_ = 0, next_cache_ = 0, next_state_ = 0, next_set_ = 0;
  // Segments of experts come last; what their tables need until then.
  struct ExpertPart {
    std::vector<uint8_t> bytes;
    std::vector<schema::ExpertRecord> records;
    uint64_t in_bound = 0, down_bound = 0;
  };
  std::vector<ExpertPart> expert_parts_;
  std::vector<flatbuffers::Offset<schema::Step>> body_, head_;
  std::vector<flatbuffers::Offset<schema::Profile>> profiles_;
  std::vector<flatbuffers::Offset<schema::Step>> *steps_ = &body_;
};

// Layers share the values of equal roles.
Edge Builder::NewValue(const char *role, DType dtype, uint32_t width, double rms, int zero_point) {
  const auto [entry, added] = roles_.emplace(role, static_cast<uint16_t>(values_.size()));
  if (added) values_.emplace_back(dtype, width);
  return {entry->second, 0, width, rms, zero_point};
}

// Runs of `count` rows in all, that begin on multiples of `unit`, with others before them and between them; none in a file that is
// not widened.
Runs Builder::Scatter(uint32_t count, uint32_t unit) {
  Runs runs;
  if (!spec_.widened) return runs;
  for (uint32_t first = unit; count != 0;) {
    runs.emplace_back(first, std::min(count, static_cast<uint32_t>(beside_.Between(1, 40))));
    count -= runs.back().second;
    first += (runs.back().second + unit - 1) / unit * unit + static_cast<uint32_t>(beside_.Between(0, 1)) * unit;
  }
  return runs;
}

Builder::Stored Builder::AddWeight(const WeightKind &kind, uint32_t n, uint32_t k, int32_t largest_input) {
  if (again_) return stored_[next_weight_++];
  Stored stored{static_cast<uint16_t>(weights_.size()), RandomWeights(kind, n, k, &random_), 0, {}};
  // XNNPACK's kernels hand sums over exactly only below 2^24.
  if (GroupSize(kind.format) == 0 && kind.k_panel == 0 && stored.matrix.AccBound(127) >= (uint64_t{1} << 24)) {
    stored.matrix.kind.k_panel = 1024;
  }
  stored.rms = stored.matrix.Rms();
  if (steps_ == &body_ && !body_.empty()) stored.rows = Scatter(n, 16);  // not the embedding's, nor the head's
  const WeightMatrix whole = stored.rows.empty() ? stored.matrix : Widen(stored.matrix, stored.rows, &beside_);
  const Ref data = segments_.Put(weight_segment_, Pack(whole));
  weights_.push_back(schema::CreateWeight(fbb_, static_cast<uint8_t>(kind.format), static_cast<uint8_t>(kind.layout), whole.n,
                                          whole.k, whole.PanelDepth(), &data, whole.AccBound(largest_input)));
  stored_.push_back(stored);
  return stored;
}

// `count` factors around `value`, so that channels and heads differ.
std::vector<double> Builder::Spread(size_t count, double value) {
  std::vector<double> values(count);
  for (double &v : values) v = value * random_.Real(0.7, 1.3);
  return values;
}

void Builder::Push(Op type, flatbuffers::Offset<void> op) { steps_->push_back(schema::CreateStep(fbb_, type, op)); }

Edge Builder::Embed(const Stored &weight) {
  const Edge out = NewValue("residual", DType::S16, spec_.hidden, kRms16);
  const Factors factors = MakeFactors(Spread(spec_.vocab_size, out.rms / weight.rms), 255 * 127);
  const Slice out_slice = out.slice();
  const Ref multipliers = segments_.Put(constants_, factors.multipliers);
  Push(Op::Embedding, schema::CreateEmbedding(fbb_, &out_slice, weight.index, &multipliers, factors.shift).Union());
  return out;
}

Edge Builder::RmsNorm(const char *role, const Edge &input, uint32_t groups, DType dtype, double rms, int zero_point, Gains gains) {
  const Edge out = NewValue(role, dtype, input.width, rms, zero_point);
  const uint32_t width = input.width / groups;
  std::vector<int16_t> gamma(gains == Gains::kOwn ? input.width : width);
  for (int16_t &g : gamma) g = static_cast<int16_t>(kGammaMean * random_.Real(0.5, 1.5));
  const Factors factor = MakeNormalised({rms * std::sqrt(width) / kGammaMean});
  const schema::Factor stored(factor.multipliers[0], factor.shift);
  const Slice in = input.slice(), out_slice = out.slice();
  const Ref gamma_ref = segments_.Put(constants_, gamma);
  Push(Op::RmsNorm,
       schema::CreateRmsNorm(fbb_, &in, &out_slice, groups, &gamma_ref, &stored, 3 * width, static_cast<int16_t>(zero_point))
           .Union());
  return out;
}

Edge Builder::LayerNorm(const char *role, const Edge &input, double rms, int zero_point) {
  const Edge out = NewValue(role, DType::S8, input.width, rms, zero_point);
  const uint32_t width = input.width;
  // One of z, which is 2^20, times the mean gain is rms units of the output.
  const auto shift = static_cast<uint8_t>(std::lround(std::log2(kGammaMean / rms)) + 20);
  std::vector<int16_t> gamma(width);
  std::vector<int32_t> bias(width);
  for (int16_t &g : gamma) g = static_cast<int16_t>(kGammaMean * random_.Real(0.5, 1.5));
  for (int32_t &b : bias) b = static_cast<int32_t>(std::ldexp(rms * random_.Real(-0.3, 0.3), shift - 15));
  const Slice in = input.slice(), out_slice = out.slice();
  const Ref gamma_ref = segments_.Put(constants_, gamma), bias_ref = segments_.Put(constants_, bias);
  Push(Op::LayerNorm, schema::CreateLayerNorm(fbb_, &in, &out_slice, 1, &gamma_ref, &bias_ref, shift,
                                              uint64_t{3} * width * width, static_cast<int16_t>(zero_point))
                          .Union());
  return out;
}

// The norm of whole rows in front of a linear layer.
Edge Builder::Norm(const char *role, const Edge &input, int zero_point) {
  if (spec_.norms == Norms::kLayer) return LayerNorm(role, input, kRms8, zero_point);
  return RmsNorm(role, input, 1, DType::S8, kRms8, zero_point);
}

Edge Builder::Linear(const char *role, const Edge &input, const Stored &weight, DType dtype, double rms) {
  const WeightMatrix &matrix = weight.matrix;
  std::vector<uint32_t> kept;  // rows of the matrix, which is what a widened file uses of its own
  for (const auto &[first, count] : again_ && !weight.rows.empty() ? weight.rows : Runs{{0, matrix.n}}) {
    for (uint32_t i = 0; i < count; ++i) kept.push_back(first + i);
  }
  const auto width = static_cast<uint32_t>(kept.size());
  const Edge out = NewValue(role, dtype, width, rms);
  const int32_t largest_input = values_[input.value].dtype() == DType::S15 ? kLargest15 : 127;
  const double acc_rms = input.rms * weight.rms * std::sqrt(input.width);
  std::vector<int32_t> bias(width);
  double largest_bias = 0;
  for (uint32_t n = 0; n < width; ++n) {
    double value = spec_.bias ? acc_rms * random_.Real(-0.5, 0.5) : 0;
    int64_t sum = 0;
    for (uint32_t k = 0; k < input.width; ++k) sum += matrix.At(kept[n], k);
    value -= static_cast<double>(input.zero_point * sum);
    bias[n] = static_cast<int32_t>(value);
    largest_bias = std::max(largest_bias, std::fabs(value));
  }
  const double bound = static_cast<double>(matrix.AccBound(largest_input)) + largest_bias;
  const Factors factors = MakeFactors(Spread(width, rms / acc_rms), bound);
  const Slice in = input.slice(), out_slice = out.slice();
  const Ref bias_ref = segments_.Put(constants_, bias), multipliers = segments_.Put(constants_, factors.multipliers);
  const std::vector<schema::Run> rows = RunTable(weight.rows);
  Push(Op::Linear, schema::CreateLinearDirect(fbb_, &in, &out_slice, weight.index, &bias_ref, &multipliers, factors.shift, 0,
                                              rows.empty() ? nullptr : &rows)
                       .Union());
  return out;
}

// The first `count` pairs of each head of keys.
std::vector<uint8_t> Builder::Pairs(uint32_t count) const {
  std::vector<uint8_t> frequencies;
  const uint32_t half = spec_.rotary_dims / 2, pairs = spec_.head_dim / 2;
  for (uint32_t i = 0; i < spec_.kv_heads * pairs; ++i) {
    const uint32_t frequency = (5 * i + i / half) % (half + 1);
    if (i % pairs < count) frequencies.push_back(frequency == half ? kNoFrequency : static_cast<uint8_t>(frequency));
  }
  return frequencies;
}

Edge Builder::Rotate(const char *role, const Edge &input, uint32_t heads, DType type, double rms, uint16_t rope) {
  const Edge out = NewValue(role, type, input.width, rms);
  const Factors factors = MakeFactors(Spread(heads, std::ldexp(rms / input.rms, -14)), std::ldexp(1, 30));
  const Slice in = input.slice(), out_slice = out.slice();
  const Ref multipliers = segments_.Put(constants_, factors.multipliers);
  Ref pairs;
  if (spec_.sorted_pairs) pairs = segments_.Put(constants_, Pairs(input.width / heads / 2));
  Push(Op::Rotate, schema::CreateRotate(fbb_, &in, &out_slice, heads, rope, &multipliers, factors.shift,
                                        spec_.sorted_pairs ? &pairs : nullptr)
                       .Union());
  return out;
}

// Heads for attention: rotated, and for a cache of 4 bits through a Hadamard transform of each head.
Edge Builder::Positioned(const char *role, const Edge &input, uint32_t heads, double rms, uint16_t rope) {
  if (spec_.kv_bits == 8) return Rotate(role, input, heads, DType::S8, rms, rope);
  const uint32_t block = widths_.k_dim & (0 - widths_.k_dim);
  const std::string rotated = std::string(role) + "_rotated";
  return Hadamard(role, Rotate(rotated.c_str(), input, heads, DType::S16, kRms16, rope), block, DType::S8, rms, 0);
}

uint16_t Builder::AddCache() {
  const bool narrow = spec_.kv_bits == 4;
  const uint32_t v_dim = spec_.v_dim == 0 ? spec_.head_dim : spec_.v_dim;
  const uint32_t dims = cache_dim_ = std::max(spec_.head_dim, v_dim) + (spec_.widened ? 18 : 0);
  Ref prefix_k, prefix_v;
  const auto prefix = [&](uint32_t used, int64_t limit) {
    std::vector<int8_t> rows;
    for (uint32_t i = 0; i < spec_.prefix_rows * spec_.kv_heads * dims; ++i) {
      rows.push_back(static_cast<int8_t>((i % dims < used ? random_ : beside_).Between(-limit, limit)));
    }
    return segments_.Put(constants_, rows);
  };
  if (spec_.prefix_rows > 0) {
    prefix_k = prefix(spec_.head_dim, narrow ? 9 : 100);
    prefix_v = prefix(v_dim, narrow ? 4 : 60);
  }
  caches_.push_back(schema::CreateCache(fbb_, spec_.kv_heads, dims, spec_.prefix_rows > 0 ? &prefix_k : nullptr,
                                        spec_.prefix_rows > 0 ? &prefix_v : nullptr, static_cast<uint8_t>(spec_.kv_bits), WindowOf(caches_.size())));
  return static_cast<uint16_t>(caches_.size() - 1);
}

Edge Builder::Attend(const Edge &q, const Edge *sink_q, const Edge &k, const Edge &v) {
  const uint16_t cache = again_ ? static_cast<uint16_t>(next_cache_++) : AddCache();
  const Factors v_factors = MakeFactors(Spread(spec_.kv_heads, k.rms / v.rms), kInt16);
  const Slice k_slice = k.slice(), v_slice = v.slice(), q_slice = q.slice();
  const Ref v_multipliers = segments_.Put(constants_, v_factors.multipliers);
  Push(Op::Append, schema::CreateAppend(fbb_, &k_slice, &v_slice, cache, &v_multipliers, v_factors.shift).Union());

  // Runs of all heads may end inside a group of the next layer's inputs, which is filled up.
  const uint32_t width = spec_.heads * widths_.v_dim, unit = std::max(GroupSize(spec_.linear.format), 16u);
  const Edge out = NewValue("mixed", DType::S8, spec_.attention_run == 0 ? width : (width + unit) / unit * unit, kRms8, 3);
  // Scores spread by about 1.5 in natural units: 1.5 * log2(e) octaves in Q15.
  const double octaves = 1.5 * 1.4427 * 32768 / (q.rms * k.rms * std::sqrt(widths_.k_dim));
  const Factors exponent = MakeFactors(Spread(spec_.heads, octaves), 2.0 * 127 * 127 * widths_.k_dim);
  const Factors result = MakeNormalised(Spread(spec_.heads, 1.4 * kRms8 / k.rms));
  const Slice out_slice = out.slice(), sinks = sink_q == nullptr ? q_slice : sink_q->slice();
  const Ref exponents = segments_.Put(constants_, exponent.multipliers),
            results = segments_.Put(constants_, result.multipliers);
  Push(Op::Attention, schema::CreateAttention(fbb_, &q_slice, &out_slice, cache, spec_.heads, &exponents, exponent.shift,
                                              &results, result.shift, static_cast<int16_t>(out.zero_point),
                                              widths_.v_dim == cache_dim_ ? 0 : widths_.v_dim, static_cast<uint8_t>(spec_.attention_run),
                                              sink_q == nullptr ? nullptr : &sinks)
                          .Union());
  return out;
}

std::vector<int16_t> Builder::FactorTable() const {
  std::vector<int16_t> table(514);
  for (int i = 0; i < 514; ++i) {
    const double x = (std::min(i, 512) - 256) / 16.0;
    const double factor = spec_.gating == Gating::kSilu ? 1 / (1 + std::exp(-x)) : 0.5 * std::erfc(-x / std::sqrt(2.0));
    table[static_cast<size_t>(i)] = static_cast<int16_t>(std::min(32767L, std::lround(32768 * factor)));
  }
  return table;
}

Edge Builder::Gate(const char *role, const Edge &gate, const Edge &up) {
  const Edge out = NewValue(role, DType::S16, gate.width, kRms16);
  const std::vector<int16_t> table = FactorTable();
  const schema::Factor index = MakeFactor(3000 / gate.rms, kInt16);
  const auto shift = static_cast<uint8_t>(std::lround(std::log2(gate.rms * 64 * up.rms / out.rms)));
  const Slice gate_slice = gate.slice(), up_slice = up.slice(), out_slice = out.slice();
  const Ref table_ref = segments_.Put(constants_, table);
  Push(Op::Glu, schema::CreateGlu(fbb_, &gate_slice, &up_slice, &out_slice, &index, &table_ref, shift).Union());
  return out;
}

// Input of the last linear layer of a block: Hadamard to s8, or a plain requantisation to s15.
Edge Builder::Transform(const Edge &input) {
  const bool wide = spec_.hadamard_block == 1;
  return Hadamard("down_in", input, spec_.hadamard_block, wide ? DType::S15 : DType::S8, wide ? 3000 : 35, wide ? 0 : -4);
}

Edge Builder::Hadamard(const char *role, const Edge &input, uint32_t block, DType type, double rms, int zero_point) {
  const Edge out = NewValue(role, type, input.width, rms, zero_point);
  const schema::Factor factor = MakeFactor(out.rms / (input.rms * std::sqrt(block)), kInt16 * block);
  const Slice in = input.slice(), out_slice = out.slice();
  Push(Op::Hadamard,
       schema::CreateHadamard(fbb_, &in, &out_slice, block, &factor, static_cast<int16_t>(out.zero_point)).Union());
  return out;
}

Edge Builder::Add(const char *role, const Edge &a, const Edge &b) {
  const double from_a = random_.Real(0.7, 0.9), from_b = random_.Real(0.5, 0.7);
  const Edge out = NewValue(role, DType::S16, a.width, std::hypot(a.rms * from_a, b.rms * from_b));
  const Factors factors = MakeFactors({from_a, from_b}, 2 * kInt16);
  const Slice a_slice = a.slice(), b_slice = b.slice(), out_slice = out.slice();
  Push(Op::Add,
       schema::CreateAdd(fbb_, &a_slice, &b_slice, &out_slice, factors.multipliers[0], factors.multipliers[1], factors.shift)
           .Union());
  return out;
}

Edge Builder::AttentionMixer(const Edge &normed) {
  const uint32_t whole_k = spec_.head_dim, whole_v = spec_.v_dim == 0 ? whole_k : spec_.v_dim, key_heads = spec_.heads + spec_.kv_heads;
  const uint32_t q_width = spec_.heads * widths_.k_dim, k_width = spec_.kv_heads * widths_.k_dim;
  Stored weight = AddWeight(spec_.linear, key_heads * whole_k + spec_.kv_heads * whole_v, spec_.hidden);
  if (again_) {
    AddRuns(&weight.rows, 0, whole_k, widths_.k_dim, key_heads);
    AddRuns(&weight.rows, key_heads * whole_k, whole_v, widths_.v_dim, spec_.kv_heads);
  }
  const Edge qkv = Linear("qkv", normed, weight, DType::S16, kRms16);
  Edge q = qkv.Columns(0, q_width), k = qkv.Columns(q_width, k_width);
  const Edge v = qkv.Columns(q_width + k_width, spec_.kv_heads * widths_.v_dim);
  if (spec_.qk_norm) {
    q = RmsNorm("q_norm", q, spec_.heads, DType::S16, kRms16, 0);
    k = RmsNorm("k_norm", k, spec_.kv_heads, DType::S16, kRms16, 0);
  }
  const Random query_random = random_;
  const Edge rotated_q = Positioned("q", q, spec_.heads, kRms8);
  const Edge rotated_k = Positioned("k", k, spec_.kv_heads, spec_.kv_bits == 4 ? kRms4 : kRms8);
  const uint32_t window = WindowOf(again_ ? next_cache_ : caches_.size());
  Edge sink_q = rotated_q;
  const bool own_queries = window != 0 && spec_.prefix_rows != 0 && spec_.sink_queries;
  if (own_queries) {
    // The same multipliers, so that it is the same query at another position.
    const Random before = random_;
    random_ = query_random;
    sink_q = Positioned("sink_q", q, spec_.heads, kRms8, SinkRope(window));
    random_ = before;
  }
  const Edge mixed = Attend(rotated_q, own_queries ? &sink_q : nullptr, rotated_k, v);
  return Linear("attention_out", mixed, AddWeight(spec_.linear, spec_.hidden, mixed.width), DType::S16, kRms16);
}

// is_used(row, column): the others hold anything.
template <typename T, typename IsUsed>
uint16_t Builder::AddState(DType dtype, uint32_t rows, uint32_t columns, int64_t prefix_limit, const IsUsed &is_used) {
  if (again_) return static_cast<uint16_t>(next_state_++);
  Ref prefix;
  if (spec_.prefix_rows > 0) {
    std::vector<T> values;
    for (uint32_t i = 0; i < rows * columns; ++i) {
      values.push_back(static_cast<T>((is_used(i / columns, i % columns) ? random_ : beside_).Between(-prefix_limit, prefix_limit)));
    }
    prefix = segments_.Put(constants_, values);
  }
  states_.push_back(schema::CreateState(fbb_, dtype, rows, columns, spec_.prefix_rows > 0 ? &prefix : nullptr));
  return static_cast<uint16_t>(states_.size() - 1);
}

// Of inputs and weights alike in all columns, so that sums fit 32 bits.
// columns: those of the state; empty: all, or where the file is widened any
Edge Builder::Convolve(const Edge &input, Runs columns) {
  constexpr int64_t kLargestWeight = 7000;  // 8 of them, times 2^15, leave room for a bias
  const Edge out = NewValue("convolved", DType::S16, input.width, 0.75 * kRms16);
  std::vector<int16_t> weights(size_t{spec_.taps} * input.width);
  for (int16_t &w : weights) w = static_cast<int16_t>(random_.Between(-kLargestWeight, kLargestWeight));
  const double acc_rms = input.rms * kLargestWeight / std::sqrt(3.0) * std::sqrt(spec_.taps);
  std::vector<int32_t> bias(input.width);
  for (int32_t &b : bias) b = static_cast<int32_t>(acc_rms * random_.Real(-0.5, 0.5));
  const Factors factors = MakeFactors(Spread(input.width, kRms16 / acc_rms), kInt31);
  const Factors index = MakeFactors(Spread(input.width, 3000 / kRms16), kInt16);
  if (columns.empty()) columns = Scatter(input.width, 1);
  const uint32_t all_columns = columns.empty() ? input.width : columns.back().first + columns.back().second + 2;
  const uint16_t state = AddState<int16_t>(DType::S16, spec_.taps - 1, all_columns, 6000, [&](uint32_t, uint32_t column) {
    const auto holds = [=](const auto &run) { return column >= run.first && column - run.first < run.second; };
    return columns.empty() || std::any_of(columns.begin(), columns.end(), holds);
  });
  const std::vector<schema::Run> stored_columns = RunTable(columns);
  const Ref weights_ref = segments_.Put(constants_, weights), bias_ref = segments_.Put(constants_, bias),
            multipliers = segments_.Put(constants_, factors.multipliers), indices = segments_.Put(constants_, index.multipliers),
            table = segments_.Put(constants_, FactorTable());
  const Slice in = input.slice(), out_slice = out.slice();
  Push(Op::Conv, schema::CreateConvDirect(fbb_, &in, &out_slice, state, spec_.taps, &weights_ref, &bias_ref, &multipliers,
                                          factors.shift, &indices, index.shift, &table, columns.empty() ? nullptr : &stored_columns)
                     .Union());
  return out;
}

// Heads from fast to slow ones, whose states lie around 2^24.
Edge Builder::Scan(const Edge &x, const Edge &b, const Edge &c, const Edge &dt) {
  constexpr double kStateRms = 1 << 24;
  const uint32_t heads = spec_.state_heads, n = widths_.state_columns;
  const Edge out = NewValue("scanned", DType::S16, x.width, kRms16);
  std::vector<int32_t> dt_bias(heads), softplus(1025);
  for (size_t i = 0; i < softplus.size(); ++i) {
    softplus[i] = static_cast<int32_t>(std::lround(std::ldexp(std::log1p(std::exp(-static_cast<double>(i) / 64)), 24)));
  }
  std::vector<double> decays(heads), inputs(heads);
  std::vector<uint64_t> skips(heads);
  std::vector<uint8_t> shifts(heads);
  for (uint32_t h = 0; h < heads; ++h) {
    const double bias = random_.Real(-4, 1), step = std::log1p(std::exp(bias)), decay = std::exp(random_.Real(-3, 2));
    dt_bias[h] = static_cast<int32_t>(bias * 65536);
    decays[h] = 4 * 1.4427 * decay;
    // What comes in at each step is of one sign more often than of the other and so adds up to its share of 1 / (1 - a).
    const double kept = std::exp(-decay * step), sum = 0.3 / (1 - kept) + 1 / std::sqrt(1 - kept * kept);
    inputs[h] = kStateRms / sum / step * std::ldexp(1, 30 - 24) / (x.rms * b.rms);
    shifts[h] = static_cast<uint8_t>(std::lround(std::log2(c.rms * kStateRms * (std::sqrt(n) + n * 0.2) / kRms16)));
    skips[h] = static_cast<uint64_t>(std::llround(std::ldexp(random_.Real(-1, 1), shifts[h])));
  }
  const Factors dt_factors = MakeFactors(Spread(heads, 65536 / dt.rms), kInt16), decay_factors = MakeFactors(decays, kInt31),
                input_factors = MakeFactors(inputs, kInt31);
  const uint32_t channels = x.width / heads, all_channels = channels + (spec_.widened ? 3 : 0);
  const uint16_t state = AddState<int32_t>(DType::S32, heads * all_channels, n + (spec_.widened ? 5 : 0), 1 << 24,
                                           [&](uint32_t row, uint32_t column) { return row % all_channels < channels && column < n; });
  const Ref dt_ref = segments_.Put(constants_, dt_factors.multipliers), bias_ref = segments_.Put(constants_, dt_bias),
            table = segments_.Put(constants_, softplus), decay_ref = segments_.Put(constants_, decay_factors.multipliers),
            input_ref = segments_.Put(constants_, input_factors.multipliers), skip_ref = segments_.Put(constants_, skips),
            shift_ref = segments_.Put(constants_, shifts);
  const Slice xs = x.slice(), bs = b.slice(), cs = c.slice(), dts = dt.slice(), out_slice = out.slice();
  Push(Op::Scan, schema::CreateScan(fbb_, &xs, &bs, &cs, &dts, &out_slice, state, heads, spec_.state_groups, &dt_ref,
                                    dt_factors.shift, &bias_ref, &table, 1 << 10, 1 << 28, &decay_ref, decay_factors.shift,
                                    &input_ref, input_factors.shift, &skip_ref, &shift_ref,
                                    static_cast<uint8_t>(spec_.scan_run))
                     .Union());
  return out;
}

Edge Builder::StateSpaceMixer(const Edge &normed) {
  const uint32_t heads = spec_.state_heads, groups = spec_.state_groups, whole_n = spec_.state_columns, n = widths_.state_columns;
  const uint32_t whole_inner = heads * spec_.state_head_dim, whole_side = groups * whole_n;
  const uint32_t inner = heads * widths_.state_head_dim, side = groups * n;
  Stored weight = AddWeight(spec_.linear, 2 * (whole_inner + whole_side) + heads, spec_.hidden);
  Runs columns;  // of x, B and C
  if (again_) {
    columns.emplace_back(0, inner);
    AddRuns(&columns, whole_inner, whole_n, n, 2 * groups);
    weight.rows.emplace_back(0, inner);
    for (const auto &[first, count] : columns) weight.rows.emplace_back(whole_inner + first, count);
    weight.rows.emplace_back(2 * (whole_inner + whole_side), heads);
  }
  const Edge all = Linear("state_in", normed, weight, DType::S16, kRms16);
  const Edge z = all.Columns(0, inner), convolved = Convolve(all.Columns(inner, inner + 2 * side), columns);
  const Edge y = Scan(convolved.Columns(0, inner), convolved.Columns(inner, side), convolved.Columns(inner + side, side),
                      all.Columns(2 * (inner + side), heads));
  Edge mixed;
  if (spec_.gated_norm == GatedNorm::kGateFirst) {
    mixed = RmsNorm("state_mixed", Gate("state_gated", z, y), spec_.norm_groups, DType::S8, kRms8, 2, Gains::kOwn);
  } else {
    const Edge scaled = RmsNorm("state_normed", y, spec_.norm_groups, DType::S16, kRms16, 0, Gains::kOwn);
    mixed = Hadamard("state_mixed", Gate("state_gated", z, scaled), 1, DType::S8, kRms8, 2);
  }
  return Linear("state_out", mixed, AddWeight(spec_.linear, spec_.hidden, whole_inner), DType::S16, kRms16);
}

Edge Builder::Layer(Edge residual, Mixer mixer) {
  if (!again_) weight_segment_ = segments_.Open(schema::SegmentKind::Weights);
  const Edge normed = Norm("attention_in", residual, 5);
  const bool attention = mixer == Mixer::kAttention;
  const bool ends = !attention && !spec_.state_ffn;  // with the mixer; residuals alternate between two values
  residual = Add(ends ? (residual.value == roles_["residual"] ? "middle" : "residual") : "middle", residual,
                 attention ? AttentionMixer(normed) : StateSpaceMixer(normed));
  if (ends) return residual;
  const Edge ffn_in = Norm("ffn_in", residual, -2);
  return Add("residual", residual, spec_.experts == 0 ? Ffn(ffn_in) : Experts(ffn_in));
}

Edge Builder::Ffn(const Edge &ffn_in) {
  const uint32_t ffn = widths_.ffn;
  Stored weight = AddWeight(spec_.linear, 2 * spec_.ffn, spec_.hidden);
  if (again_) AddRuns(&weight.rows, 0, spec_.ffn, ffn, 2);
  const Edge both = Linear("gate_up", ffn_in, weight, DType::S16, kRms16);
  const Edge gated = Transform(Gate("gated", both.Columns(0, ffn), both.Columns(ffn, ffn)));
  return Linear("ffn_out", gated, AddWeight(spec_.linear, spec_.hidden, spec_.ffn, spec_.hadamard_block == 1 ? kLargest15 : 127),
                DType::S16, kRms16);
}

// A record for each slice of each expert: gate, up, down, each with biases (the zero points folded in) and multipliers.
void Builder::AddExpertSet(const Edge &ffn_in) {
  constexpr double kDownInRms = 35;
  constexpr int kDownInZero = -4;
  ExpertPart part;
  const auto align = [&part](uint64_t to) { part.bytes.resize((part.bytes.size() + to - 1) / to * to); };
  const auto put32 = [&part, &align](const std::vector<int32_t> &values) {
    for (const int32_t value : values) {
      for (int b = 0; b < 4; ++b) part.bytes.push_back(static_cast<uint8_t>(static_cast<uint32_t>(value) >> (8 * b)));
    }
    align(64);
  };
  const std::vector<uint32_t> widths = spec_.expert_slices.empty() ? std::vector<uint32_t>{spec_.expert_ffn} : spec_.expert_slices;
  for (size_t slice = 0; slice < spec_.experts * widths.size(); ++slice) {
    const uint32_t ffn = widths[slice % widths.size()];
    WeightKind kind = spec_.expert_weights[slice / widths.size() % spec_.expert_weights.size()];
    const uint64_t begin = part.bytes.size();
    uint8_t shifts[3];
    for (int i = 0; i < 3; ++i) {
      const bool down = i == 2;
      const uint32_t n = down ? spec_.hidden : ffn, k = down ? ffn : spec_.hidden;
      const WeightMatrix matrix = RandomWeights(kind, n, k, &random_);
      const std::vector<uint8_t> packed = Pack(matrix);
      part.bytes.insert(part.bytes.end(), packed.begin(), packed.end());
      align(64);
      std::vector<int32_t> bias(n);
      double largest = 0;
      for (uint32_t row = 0; row < n; ++row) {
        bias[row] = static_cast<int32_t>(-(down ? kDownInZero : ffn_in.zero_point) * matrix.RowSum(row));
        largest = std::max(largest, std::fabs(bias[row]));
      }
      put32(bias);
      uint64_t &bound = down ? part.down_bound : part.in_bound;
      bound = std::max(bound, matrix.AccBound(127));
      const double acc_rms = (down ? kDownInRms : ffn_in.rms) * matrix.Rms() * std::sqrt(k);
      // Its set's bound is the largest of its experts: half of the room is left for that.
      const Factors factors = MakeFactors(Spread(n, kRms16 / acc_rms), 4 * (static_cast<double>(matrix.AccBound(127)) + largest));
      put32(factors.multipliers);
      shifts[i] = factors.shift;
    }
    const uint64_t checksum = RecordChecksum(part.bytes.data() + begin, part.bytes.size() - begin);
    part.records.emplace_back(begin, checksum, static_cast<uint8_t>(kind.format), static_cast<uint8_t>(kind.format), shifts[0],
                              shifts[1], shifts[2]);
    align(kSegmentAlignment);
  }
  expert_parts_.push_back(std::move(part));
}

Edge Builder::Experts(const Edge &ffn_in) {
  const WeightKind w8{WeightFormat::kW8, Layout::kX16C8};
  const Edge router = Linear("router", ffn_in, AddWeight(w8, spec_.experts, spec_.hidden), DType::S32, kLogitRms);
  Edge shared{}, gate{};
  if (spec_.shared_expert) shared = Ffn(ffn_in);
  if (spec_.shared_gate) gate = Linear("shared_gate", ffn_in, AddWeight(w8, 1, spec_.hidden), DType::S32, kLogitRms);
  if (!again_) AddExpertSet(ffn_in);
  const size_t set = again_ ? next_set_++ : expert_parts_.size() - 1;
  const Edge out = NewValue("routed", DType::S16, spec_.hidden, kRms16);
  std::vector<int16_t> table(514);
  for (int i = 0; i < 514; ++i) {
    table[static_cast<size_t>(i)] =
        static_cast<int16_t>(std::min(32767L, std::lround(32768 / (1 + std::exp((256 - std::min(i, 512)) / 16.0)))));
  }
  const schema::Factor octaves = MakeFactor(kNaturalLogitRms / kLogitRms * 1.4427 * 67108864, std::ldexp(1, 32));
  const schema::Factor index = MakeFactor(3000 / kRms16, kInt16), down = MakeFactor(35 / (kRms16 * std::sqrt(32)), kInt16 * 32);
  const auto shift = static_cast<uint8_t>(std::lround(std::log2(kRms16 * 64 * kRms16 / kRms16)));
  const Ref table_ref = segments_.Put(constants_, table);
  const Slice in = ffn_in.slice(), logits = router.slice(), to = out.slice(), shared_slice = shared.slice(), gate_slice = gate.slice();
  Push(Op::Experts,
       schema::CreateExperts(fbb_, &in, &logits, &to, static_cast<uint16_t>(set), spec_.top_k,
                             static_cast<uint8_t>(spec_.scoring), &octaves, &index, &table_ref, shift, 32, &down, -4,
                             spec_.shared_expert ? &shared_slice : nullptr, spec_.shared_gate ? &gate_slice : nullptr,
                             spec_.shared_gate ? &octaves : nullptr, static_cast<uint8_t>(widths_.expert_slices))
           .Union());
  return out;
}

// The rope of queries for sinks: no farther from them than in a window that is full for the first time.
uint16_t Builder::SinkRope(uint32_t window) {
  const uint32_t limit = spec_.prefix_rows + window - 1;
  const auto [entry, added] = sink_ropes_.emplace(limit, static_cast<uint16_t>(ropes_.size()));
  if (added) AddRope(limit);
  return entry->second;
}

void Builder::AddRope(uint32_t limit) {
  std::vector<uint64_t> frequencies(spec_.rotary_dims / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double angle = std::pow(spec_.rope_base, -2.0 * static_cast<double>(i) / spec_.rotary_dims);
    frequencies[i] = static_cast<uint64_t>(std::ldexp(angle / 6.283185307179586, 64));
  }
  const Ref frequencies_ref = segments_.Put(constants_, frequencies);
  ropes_.push_back(schema::CreateRope(fbb_, spec_.rotary_dims, &frequencies_ref, limit));
}

AlignedBytes Builder::Finish(const Edge &body_out, const Edge &logits) {
  std::vector<int32_t> prefix_tokens(spec_.prefix_rows);
  for (uint32_t i = 0; i < spec_.prefix_rows; ++i) prefix_tokens[i] = static_cast<int32_t>((7 * i + 1) % spec_.vocab_size);
  uint16_t tokenizer = 65535;
  if (!spec_.tokenizer.empty()) {
    tokenizer = segments_.Open(schema::SegmentKind::Tokenizer);
    segments_.Put(tokenizer, spec_.tokenizer);
  }
  Layout layout = Layout::kX16C8;
  for (const WeightKind &kind : spec_.expert_weights) {
    if (GroupSize(kind.format) == 0) layout = kind.layout;
  }
  std::vector<flatbuffers::Offset<schema::ExpertSet>> sets;
  for (const ExpertPart &part : expert_parts_) {
    const uint16_t segment = segments_.Open(schema::SegmentKind::Experts);
    segments_.Put(segment, part.bytes);
    sets.push_back(schema::CreateExpertSetDirect(fbb_, segment, spec_.hidden, spec_.expert_ffn,
                                                 static_cast<uint8_t>(layout), part.in_bound,
                                                 part.down_bound, &part.records,
                                                 spec_.expert_slices.empty() ? nullptr : &spec_.expert_slices));
  }
  const std::vector<schema::Segment> table = segments_.Table(0);
  const schema::Factor logit_factor = MakeFactor(kNaturalLogitRms * 65536 / kLogitRms, kInt31);
  fbb_.Finish(schema::CreateModelDirect(fbb_, spec_.name.c_str(), "test", spec_.vocab_size, spec_.max_context, &prefix_tokens,
                                        &table, &values_, &weights_, &ropes_, &caches_, &body_, &head_, body_out.value,
                                        logits.value, &logit_factor, tokenizer, nullptr, 0, sets.empty() ? nullptr : &sets,
                                        states_.empty() ? nullptr : &states_, profiles_.empty() ? nullptr : &profiles_),
              schema::ModelIdentifier());
  return AlignedBytes(segments_.File(fbb_.GetBufferPointer(), fbb_.GetSize()));
}

Edge Builder::Body(const Widths &widths) {
  const auto or_whole = [](uint32_t width, uint32_t whole) { return width == 0 ? whole : width; };
  widths_ = {or_whole(widths.k_dim, spec_.head_dim), or_whole(widths.v_dim, or_whole(spec_.v_dim, spec_.head_dim)),
             or_whole(widths.ffn, spec_.ffn), or_whole(widths.state_head_dim, spec_.state_head_dim),
             or_whole(widths.state_columns, spec_.state_columns), widths.expert_slices};
  next_weight_ = next_cache_ = next_state_ = next_set_ = 0;
  Edge residual = Embed(AddWeight(spec_.head, spec_.vocab_size, spec_.hidden));
  for (uint32_t layer = 0; layer < spec_.layers; ++layer) {
    residual = Layer(residual, spec_.mixers[layer % spec_.mixers.size()]);
  }
  return residual;
}

AlignedBytes Builder::Build() {
  if (spec_.ffn % spec_.hadamard_block != 0 || spec_.heads % spec_.kv_heads != 0) {
    throw std::invalid_argument("ModelSpec: widths do not fit");
  }
  constants_ = segments_.Open(schema::SegmentKind::Constants);
  AddRope(0);
  weight_segment_ = segments_.Open(schema::SegmentKind::Weights);
  const Edge residual = Body({});
  steps_ = &head_;
  const Edge normed = Norm("head_in", residual, 1);
  if (spec_.head_weights == HeadWeights::kOwn) weight_segment_ = segments_.Open(schema::SegmentKind::Weights);
  const Edge logits =
      Linear("logits", normed,
             spec_.head_weights == HeadWeights::kOwn ? AddWeight(spec_.head, spec_.vocab_size, spec_.hidden) : stored_.front(),
             DType::S32, kLogitRms);
  again_ = true;
  for (const ProfileSpec &profile : spec_.profiles) {
    std::vector<flatbuffers::Offset<schema::Step>> steps;
    steps_ = &steps;
    Body(profile.widths);
    profiles_.push_back(schema::CreateProfileDirect(fbb_, static_cast<uint8_t>(profile.rate), &steps));
  }
  return Finish(residual, logits);
}

}  // namespace

AlignedBytes BuildModel(const ModelSpec &spec) { return Builder(spec).Build(); }

}  // namespace acorn::test
