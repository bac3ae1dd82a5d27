#include "tests/reference/reference_model.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>

#include "acorn_schema/file.h"
#include "acorn_schema/layout.h"
#include "acorn_schema/layout_xnnpack.h"

namespace acorn::reference {

using schema::DType;
using schema::Op;

// The state of one run. K and V hold the prefix and every row of the run from the first layer's Append on.
struct ReferenceModel::Run {
  const std::vector<int32_t> *tokens;
  uint32_t rows;
  uint64_t first_position;
  std::vector<std::vector<int32_t>> values;  // each [rows, width]
  std::vector<std::vector<int8_t>> k, v;     // each [prefix + rows, kv_heads, head_dim of the cache]
  const schema::Model *model;

  int32_t *Row(const schema::Slice *slice, uint32_t row) {
    const uint32_t width = model->values()->Get(slice->value())->width();
    Require(uint64_t{slice->offset()} + slice->width() <= width, "slice outside its value");
    return values[slice->value()].data() + size_t{row} * width + slice->offset();
  }
};

namespace {

Factor FactorOf(const schema::Factor *factor) { return {factor->multiplier(), factor->shift()}; }

const schema::Slice *OutputOf(const schema::Step &step) {
  switch (step.op_type()) {
    case Op::Embedding:
      return step.op_as_Embedding()->out();
    case Op::RmsNorm:
      return step.op_as_RmsNorm()->out();
    case Op::Linear:
      return step.op_as_Linear()->out();
    case Op::Rotate:
      return step.op_as_Rotate()->out();
    case Op::Attention:
      return step.op_as_Attention()->out();
    case Op::Glu:
      return step.op_as_Glu()->out();
    case Op::Hadamard:
      return step.op_as_Hadamard()->out();
    case Op::Add:
      return step.op_as_Add()->out();
    case Op::LayerNorm:
      return step.op_as_LayerNorm()->out();
    case Op::Experts:
      return step.op_as_Experts()->out();
    case Op::Conv:
      return step.op_as_Conv()->out();
    case Op::Scan:
      return step.op_as_Scan()->out();
    default:
      return nullptr;
  }
}

// The first k columns of the rows of `runs`; none: of all.
Matrix PartOf(const Matrix &whole, const flatbuffers::Vector<const schema::Run *> *runs, uint32_t k) {
  Matrix part;
  part.k = k;
  part.group = whole.group;
  const auto take = [&](uint32_t first, uint32_t count) {
    Require(uint64_t{first} + count <= whole.n && k <= whole.k, "linear: rows or columns outside the weight");
    for (uint32_t n = first; n < first + count; ++n, ++part.n) {
      const auto row = whole.w.begin() + static_cast<int64_t>(size_t{n} * whole.k);
      part.w.insert(part.w.end(), row, row + k);
      if (whole.group == 0) continue;
      const auto multipliers = whole.multipliers.begin() + static_cast<int64_t>(size_t{n} * (whole.k / whole.group));
      part.multipliers.insert(part.multipliers.end(), multipliers, multipliers + k / whole.group);
    }
  };
  if (runs == nullptr) {
    take(0, whole.n);
  } else {
    for (const schema::Run *run : *runs) take(run->first(), run->count());
  }
  return part;
}

Matrix Unpack(const XnnMatrix &stored, const uint8_t *data) {
  const WeightFormat format = stored.format;
  const Layout layout = stored.layout;
  Matrix matrix;
  matrix.n = static_cast<uint32_t>(stored.n);
  matrix.k = static_cast<uint32_t>(stored.k);
  matrix.group = GroupSize(format);
  matrix.w.resize(size_t{matrix.n} * matrix.k);
  for (uint32_t n = 0; n < matrix.n; ++n) {
    for (uint32_t k = 0; k < matrix.k; ++k) {
      int32_t w;
      if (layout == Layout::kC4) {
        const int32_t byte = data[c4::WeightOffset(format, n, k, matrix.k)];
        const uint32_t shift = c4::Shift(format, k);
        w = format == WeightFormat::kW2G32 ? 2 * (byte >> shift & 3) - 3 : (byte >> shift & 15) - 8;
      } else {
        const XnnWeightPlace place = XnnWeight(stored, n, k);
        w = XnnDecode(format, layout, (data[place.offset] >> place.shift) & (format == WeightFormat::kW8 ? 255 : 15));
      }
      matrix.w[size_t{n} * matrix.k + k] = static_cast<int8_t>(w);
    }
    if (layout != Layout::kC4) continue;
    for (uint32_t g = 0; g < matrix.k / matrix.group; ++g) {
      matrix.multipliers.push_back(data[c4::MultiplierOffset(format, n, g, matrix.k)]);
    }
  }
  return matrix;
}

std::vector<uint32_t> SlicesOf(const schema::ExpertSet &set) {
  if (set.slices() == nullptr) return {set.ffn()};
  return {set.slices()->begin(), set.slices()->end()};
}

}  // namespace

ReferenceModel ReferenceModel::Open(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  Require(static_cast<bool>(in), "cannot open the model file");
  return ReferenceModel(std::vector<uint8_t>(std::istreambuf_iterator<char>(in), {}));
}

ReferenceModel::ReferenceModel(std::vector<uint8_t> file) : file_(std::move(file)) {
  Require(file_.size() > kHeaderBytes && std::memcmp(file_.data(), kFileMagic, 8) == 0, "not an Acorn file");
  Require(LoadLittle32(file_.data() + kHeaderVersion) == kFileVersion, "another version");
  Require(LoadLittle64(file_.data() + kHeaderFileBytes) == file_.size(), "another size than the header says");
  Require(Checksum(file_.data(), kHeaderChecksum) == LoadLittle64(file_.data() + kHeaderChecksum), "header checksum");
  const uint64_t graph_bytes = LoadLittle64(file_.data() + kHeaderGraphBytes);
  Require(graph_bytes <= file_.size() - kHeaderBytes, "graph outside the file");
  Require(Checksum(file_.data() + kHeaderBytes, graph_bytes) == LoadLittle64(file_.data() + kHeaderGraphChecksum),
          "graph checksum");
  flatbuffers::Verifier verifier(file_.data() + kHeaderBytes, graph_bytes);
  Require(schema::VerifyModelBuffer(verifier), "graph is not a model");
  for (const schema::Segment *segment : *model().segments()) {
    Require(segment->offset() <= file_.size() && segment->bytes() <= file_.size() - segment->offset(), "segment outside");
    const bool experts = segment->kind() == schema::SegmentKind::Experts;  // each has a checksum of its own
    Require(experts || Checksum(file_.data() + segment->offset(), segment->bytes()) == segment->checksum(), "segment checksum");
  }
  UnpackWeights();
}

const schema::Model &ReferenceModel::model() const { return *schema::GetModel(file_.data() + kHeaderBytes); }

void ReferenceModel::UnpackWeights() {
  for (const schema::Weight *weight : *model().weights()) {
    const schema::Segment *segment = model().segments()->Get(weight->data()->segment());
    const XnnMatrix stored{static_cast<WeightFormat>(weight->format()), static_cast<Layout>(weight->layout()), weight->n(),
                           weight->k(), weight->k_panel()};
    weights_.push_back(Unpack(stored, file_.data() + segment->offset() + weight->data()->offset()));
  }
}

template <typename T>
std::vector<T> ReferenceModel::Array(const schema::Ref *ref, uint64_t count) const {
  const schema::Segment *segment = model().segments()->Get(ref->segment());
  Require(ref->bytes() == count * sizeof(T), "array of another size");
  Require(ref->offset() + ref->bytes() <= segment->bytes(), "array outside its segment");
  std::vector<T> values(count);
  for (uint64_t i = 0; i < count; ++i) {
    values[i] = static_cast<T>(LoadLittle(file_.data() + segment->offset() + ref->offset() + i * sizeof(T), sizeof(T)));
  }
  return values;
}

Range ReferenceModel::RangeOf(const schema::Slice *slice) const {
  switch (model().values()->Get(slice->value())->dtype()) {
    case DType::S8:
      return Range::kS8;
    case DType::S15:
      return Range::kS15;
    case DType::S16:
      return Range::kS16;
    default:
      return Range::kS32;
  }
}

void ReferenceModel::Execute(Run *run, const schema::Embedding &op) const {
  const Matrix &weight = weights_[op.weight()];
  const auto multipliers = Array<int32_t>(op.multipliers(), weight.n);
  for (uint32_t row = 0; row < run->rows; ++row) {
    const auto token = static_cast<uint32_t>((*run->tokens)[row]);
    Require(token < weight.n, "token outside the vocabulary");
    Embed(weight, token, {multipliers[token], op.shift()}, run->Row(op.out(), row));
  }
}

void ReferenceModel::Execute(Run *run, const schema::RmsNorm &op) const {
  const uint32_t width = op.input()->width() / op.groups();
  const uint32_t gains = op.gamma()->bytes() == 2 * uint64_t{width} ? 1 : op.groups();  // sets of them
  const auto gamma = Array<int16_t>(op.gamma(), uint64_t{width} * gains);
  RmsNormSpec spec{{}, op.eps_term(), FactorOf(op.factor()), op.zero_point(), RangeOf(op.out())};
  for (uint32_t row = 0; row < run->rows; ++row) {
    for (uint32_t group = 0; group < op.groups(); ++group) {
      const auto own = gamma.begin() + static_cast<int64_t>(gains == 1 ? 0 : group * width);
      spec.gamma.assign(own, own + width);
      RmsNorm(spec, run->Row(op.input(), row) + group * width, run->Row(op.out(), row) + group * width);
    }
  }
}

void ReferenceModel::Execute(Run *run, const schema::Linear &op) const {
  const Matrix weight = PartOf(weights_[op.weight()], op.rows(), op.input()->width());
  Require(weight.n == op.out()->width(), "linear: another number of rows than columns of the output");
  const LinearSpec spec{&weight,
                        Array<int32_t>(op.bias(), weight.n),
                        Array<int32_t>(op.multipliers(), weight.n),
                        op.shift(),
                        op.zero_point(),
                        RangeOf(op.input()),
                        RangeOf(op.out())};
  for (uint32_t row = 0; row < run->rows; ++row) Linear(spec, run->Row(op.input(), row), run->Row(op.out(), row));
}

void ReferenceModel::Execute(Run *run, const schema::Rotate &op) const {
  const schema::Rope *rope = model().ropes()->Get(op.rope());
  const auto frequencies = Array<uint64_t>(rope->frequencies(), rope->rotary_dims() / 2);
  const auto multipliers = Array<int32_t>(op.multipliers(), op.heads());
  const uint32_t head_dim = op.input()->width() / op.heads(), pairs = head_dim / 2;
  std::vector<uint8_t> sorted;  // [heads of keys, pairs]
  if (op.pairs() != nullptr) sorted = Array<uint8_t>(op.pairs(), op.pairs()->bytes());
  for (uint32_t row = 0; row < run->rows; ++row) {
    for (uint32_t head = 0; head < op.heads(); ++head) {
      const Factor factor{multipliers[head], op.shift()};
      const int32_t *x = run->Row(op.input(), row) + head * head_dim;
      int32_t *y = run->Row(op.out(), row) + head * head_dim;
      uint64_t position = run->first_position + row;
      if (rope->limit() != 0) position = std::min<uint64_t>(position, rope->limit());
      if (sorted.empty()) {
        Rotate(frequencies, position, head_dim, factor, RangeOf(op.out()), x, y);
        continue;
      }
      const size_t key_head = head / (op.heads() / (sorted.size() / pairs));
      for (uint32_t pair = 0; pair < pairs; ++pair) {
        const uint8_t name = sorted[key_head * pairs + pair];
        const uint32_t first = pair / 8 * 16 + pair % 8, second = first + 8;
        RotatePair(name == 255 ? nullptr : &frequencies.at(name), position, factor, RangeOf(op.out()), x[first], x[second], y + first,
                   y + second);
      }
    }
  }
}

// K and V hold whole heads of the cache; what a row lacks is 0.
void ReferenceModel::Execute(Run *run, const schema::Append &op) const {
  const schema::Cache *cache = model().caches()->Get(op.cache());
  const uint32_t head_dim = cache->head_dim(), width = cache->kv_heads() * head_dim;
  const uint32_t k_dim = op.k()->width() / cache->kv_heads(), v_dim = op.v()->width() / cache->kv_heads();
  const auto multipliers = Array<int32_t>(op.v_multipliers(), cache->kv_heads());
  std::vector<int8_t> &k = run->k[op.cache()], &v = run->v[op.cache()];
  const uint64_t prefix = run->first_position;
  if (prefix > 0) {
    k = Array<int8_t>(cache->prefix_k(), prefix * width);
    v = Array<int8_t>(cache->prefix_v(), prefix * width);
  }
  for (uint32_t row = 0; row < run->rows; ++row) {
    const int32_t *k_row = run->Row(op.k(), row), *v_row = run->Row(op.v(), row);
    for (uint32_t i = 0; i < width; ++i) {
      const uint32_t head = i / head_dim, d = i % head_dim;
      const Factor factor{multipliers[head], op.v_shift()};
      k.push_back(static_cast<int8_t>(d < k_dim ? k_row[head * k_dim + d] : 0));
      v.push_back(static_cast<int8_t>(d < v_dim ? Saturate(Apply(factor, v_row[head * v_dim + d]), Range::kS8) : 0));
    }
  }
  if (cache->bits() != 4) return;
  for (std::vector<int8_t> *rows : {&k, &v}) {
    for (int8_t &value : *rows) value = value < -7 ? int8_t{-7} : value > 7 ? int8_t{7} : value;
  }
}

void ReferenceModel::Execute(Run *run, const schema::Attention &op) const {
  const schema::Cache *cache = model().caches()->Get(op.cache());
  const uint32_t head_dim = cache->head_dim(), per_kv = op.heads() / cache->kv_heads();
  const uint32_t k_dim = op.q()->width() / op.heads(), v_dim = op.v_dim() == 0 ? head_dim : op.v_dim();
  const uint32_t side_by_side = op.run() == 0 ? v_dim : op.run();
  const auto exponents = Array<int32_t>(op.exp_multipliers(), op.heads());
  const auto results = Array<int32_t>(op.out_multipliers(), op.heads());
  for (uint32_t row = 0; row < run->rows; ++row) {
    int32_t *out = run->Row(op.out(), row);
    std::fill(out, out + op.out()->width(), op.zero_point());
    for (uint32_t head = 0; head < op.heads(); ++head) {
      const AttentionHead spec{{exponents[head], op.exp_shift()},
                               {results[head], op.out_shift()},
                               op.zero_point(),
                               k_dim,
                               v_dim,
                               uint64_t{cache->kv_heads()} * head_dim};
      const uint32_t kv_offset = head / per_kv * head_dim;
      std::vector<int32_t> y(v_dim);
      // All rows are kept here, also those that nobody sees any more.
      const int32_t *q = run->Row(op.q(), row) + head * k_dim;
      const int32_t *sink_q = op.sink_q() == nullptr ? q : run->Row(op.sink_q(), row) + head * k_dim;
      const uint64_t prefix = run->first_position, end = prefix + row + 1, window = cache->window();
      std::vector<SeenKeys> seen = {{q, 0, end}};
      if (window != 0) seen = {{sink_q, 0, prefix}, {q, std::max(prefix, end < window ? 0 : end - window), end}};
      Attend(spec, seen, run->k[op.cache()].data() + kv_offset, run->v[op.cache()].data() + kv_offset, y.data());
      for (uint32_t d = 0; d < v_dim; ++d) {
        out[(d / side_by_side * op.heads() + head) * side_by_side + d % side_by_side] = y[d];
      }
    }
  }
}

void ReferenceModel::Execute(Run *run, const schema::Glu &op) const {
  const auto table = Array<int16_t>(op.factor_table(), 514);
  for (uint32_t row = 0; row < run->rows; ++row) {
    const int32_t *gate = run->Row(op.gate(), row), *up = run->Row(op.up(), row);
    int32_t *out = run->Row(op.out(), row);
    for (uint32_t i = 0; i < op.out()->width(); ++i) {
      out[i] = Gate(table, FactorOf(op.index()), op.shift(), gate[i], up[i]);
    }
  }
}

void ReferenceModel::Execute(Run *run, const schema::Hadamard &op) const {
  for (uint32_t row = 0; row < run->rows; ++row) {
    for (uint32_t begin = 0; begin < op.input()->width(); begin += op.block()) {
      Hadamard(op.block(), FactorOf(op.factor()), op.zero_point(), RangeOf(op.out()), run->Row(op.input(), row) + begin,
               run->Row(op.out(), row) + begin);
    }
  }
}

void ReferenceModel::Execute(Run *run, const schema::Add &op) const {
  for (uint32_t row = 0; row < run->rows; ++row) {
    const int32_t *a = run->Row(op.a(), row), *b = run->Row(op.b(), row);
    int32_t *out = run->Row(op.out(), row);
    for (uint32_t i = 0; i < op.out()->width(); ++i) {
      out[i] = Add(a[i], op.a_multiplier(), b[i], op.b_multiplier(), op.shift());
    }
  }
}

void ReferenceModel::Execute(Run *run, const schema::LayerNorm &op) const {
  const uint32_t width = op.input()->width() / op.groups();
  const auto gamma = Array<int16_t>(op.gamma(), op.input()->width());
  const auto bias = Array<int32_t>(op.bias(), op.input()->width());
  for (uint32_t group = 0; group < op.groups(); ++group) {
    const uint32_t first = group * width;
    const LayerNormSpec spec{{gamma.begin() + first, gamma.begin() + first + width},
                             {bias.begin() + first, bias.begin() + first + width},
                             op.eps_term(),
                             op.shift(),
                             op.zero_point(),
                             RangeOf(op.out())};
    for (uint32_t row = 0; row < run->rows; ++row) {
      LayerNorm(spec, run->Row(op.input(), row) + first, run->Row(op.out(), row) + first);
    }
  }
}

/// A slice of one.
struct ReferenceModel::Expert {
  Matrix matrices[3];
  LinearSpec gate, up, down;
};

// FORMAT.md "Expert records": gate, up, down of one slice, each its packed weights, biases and multipliers on multiples of 64.
const ReferenceModel::Expert &ReferenceModel::UnpackedExpert(uint32_t set_index, uint32_t index) const {
  std::shared_ptr<Expert> &place = experts_[{set_index, index}];
  if (place != nullptr) return *place;
  place = std::make_shared<Expert>();
  Expert &expert = *place;
  const schema::ExpertSet &set = *model().expert_sets()->Get(set_index);
  const schema::ExpertRecord *record = set.records()->Get(index);
  const std::vector<uint32_t> widths = SlicesOf(set);
  const uint32_t ffn = widths[index % widths.size()];
  const uint8_t *const base = file_.data() + model().segments()->Get(set.segment())->offset() + record->offset();
  LinearSpec *const specs[] = {&expert.gate, &expert.up, &expert.down};
  const uint8_t shifts[] = {record->gate_shift(), record->up_shift(), record->down_shift()};
  uint64_t at = 0;
  const auto align = [&at] { at = (at + 63) / 64 * 64; };
  for (int part = 0; part < 3; ++part) {
    const auto format = static_cast<WeightFormat>(part == 2 ? record->down_format() : record->format());
    const uint32_t n = part == 2 ? set.hidden() : ffn, k = part == 2 ? ffn : set.hidden();
    const bool grouped = GroupSize(format) != 0;
    const XnnMatrix stored{format, grouped ? Layout::kC4 : static_cast<Layout>(set.layout()), n, k,
                           grouped || k < 1024 ? k : 1024};
    expert.matrices[part] = Unpack(stored, base + at);
    at += grouped ? c4::PackedBytes(format, n, k) : XnnPackedBytes(stored);
    align();
    const auto integers = [&] {
      std::vector<int32_t> values(n);
      for (uint32_t i = 0; i < n; ++i) values[i] = static_cast<int32_t>(LoadLittle32(base + at + 4 * i));
      at += uint64_t{4} * n;
      align();
      return values;
    };
    std::vector<int32_t> bias = integers(), multipliers = integers();
    *specs[part] = {&expert.matrices[part], std::move(bias), std::move(multipliers), shifts[part], 0, Range::kS8, Range::kS16};
  }
  Require(RecordChecksum(base, at) == record->checksum(), "checksum of an expert");
  return expert;
}

void ReferenceModel::Execute(Run *run, const schema::Experts &op) const {
  const schema::ExpertSet &set = *model().expert_sets()->Get(op.set());
  const auto table = Array<int16_t>(op.glu_table(), 514);
  const uint32_t hidden = set.hidden();
  const std::vector<uint32_t> widths = SlicesOf(set);
  const size_t used = op.slices() == 0 ? widths.size() : op.slices();
  for (uint32_t row = 0; row < run->rows; ++row) {
    const int32_t *logits = run->Row(op.router(), row), *x = run->Row(op.input(), row);
    std::vector<int64_t> sums(hidden);
    if (op.shared() != nullptr) {
      const int64_t weight = op.shared_gate() == nullptr
                                 ? 32768
                                 : int64_t{SharedWeight(*run->Row(op.shared_gate(), row), FactorOf(op.shared_octaves()))};
      for (uint32_t c = 0; c < hidden; ++c) sums[c] = weight * run->Row(op.shared(), row)[c];
    }
    const std::vector<int32_t> all(logits, logits + op.router()->width());
    for (const Chosen &chosen : Route(all, op.top_k(), op.scoring(), FactorOf(op.octaves()))) {
      for (uint32_t slice = 0; slice < used; ++slice) {
        const Expert &expert = UnpackedExpert(op.set(), static_cast<uint32_t>(chosen.expert * widths.size() + slice));
        const uint32_t ffn = widths[slice];
        std::vector<int32_t> gate(ffn), up(ffn), mixed(ffn), out(hidden);
        Linear(expert.gate, x, gate.data());
        Linear(expert.up, x, up.data());
        for (uint32_t i = 0; i < ffn; ++i) gate[i] = Gate(table, FactorOf(op.glu_index()), op.glu_shift(), gate[i], up[i]);
        for (uint32_t begin = 0; begin < ffn; begin += op.block()) {
          Hadamard(op.block(), FactorOf(op.down_factor()), op.down_zero_point(), Range::kS8, gate.data() + begin,
                   mixed.data() + begin);
        }
        Linear(expert.down, mixed.data(), out.data());
        for (uint32_t c = 0; c < hidden; ++c) sums[c] += int64_t{chosen.weight} * out[c];
      }
    }
    for (uint32_t c = 0; c < hidden; ++c) run->Row(op.out(), row)[c] = Saturate(RoundShift(sums[c], 15), Range::kS16);
  }
}

// Every token before the first one is part of the prefix, or zero.
void ReferenceModel::Execute(Run *run, const schema::Conv &op) const {
  const uint32_t width = op.input()->width(), taps = op.taps(), before = taps - 1;
  const schema::State *state = model().states()->Get(op.state());
  const auto weights = Array<int16_t>(op.weights(), uint64_t{taps} * width), table = Array<int16_t>(op.factor_table(), 514);
  const auto bias = Array<int32_t>(op.bias(), width), multipliers = Array<int32_t>(op.multipliers(), width);
  const auto index = Array<int32_t>(op.index_multipliers(), width);
  std::vector<uint32_t> columns;  // of the state
  if (op.columns() == nullptr) {
    for (uint32_t c = 0; c < width; ++c) columns.push_back(c);
  } else {
    for (const schema::Run *part : *op.columns()) {
      for (uint32_t c = 0; c < part->count(); ++c) columns.push_back(part->first() + c);
    }
  }
  std::vector<int16_t> prefix(size_t{before} * state->columns());
  if (state->prefix() != nullptr) prefix = Array<int16_t>(state->prefix(), prefix.size());
  for (uint32_t c = 0; c < width; ++c) {
    ConvColumn column{std::vector<int32_t>(taps), bias[c], {multipliers[c], op.shift()}, {index[c], op.index_shift()}};
    for (uint32_t j = 0; j < taps; ++j) column.weights[j] = weights[size_t{j} * width + c];
    for (uint32_t row = 0; row < run->rows; ++row) {
      std::vector<int32_t> seen(taps);
      for (uint32_t j = 0; j < taps; ++j) {
        seen[j] = row + j >= before ? run->Row(op.input(), row + j - before)[c] : prefix[size_t{row + j} * state->columns() + columns[c]];
      }
      run->Row(op.out(), row)[c] = Convolve(column, table, seen);
    }
  }
}

void ReferenceModel::Execute(Run *run, const schema::Scan &op) const {
  const uint32_t heads = op.heads(), channels = op.x()->width() / heads, n = op.b()->width() / op.groups();
  const uint32_t side_by_side = op.run() == 0 ? channels : op.run();
  const schema::State *stored = model().states()->Get(op.state());
  std::vector<int32_t> state(size_t{stored->rows()} * stored->columns());
  if (stored->prefix() != nullptr) state = Array<int32_t>(stored->prefix(), state.size());
  const auto dt = Array<int32_t>(op.dt_multipliers(), heads), dt_bias = Array<int32_t>(op.dt_bias(), heads);
  const auto decay = Array<int32_t>(op.decay_multipliers(), heads), input = Array<int32_t>(op.input_multipliers(), heads);
  const auto skip = Array<int64_t>(op.skip(), heads);
  const auto shifts = Array<uint8_t>(op.out_shifts(), heads);
  for (uint32_t h = 0; h < heads; ++h) {
    const ScanHead head{{dt[h], op.dt_shift()},       dt_bias[h],  Array<int32_t>(op.softplus_table(), 1025),
                        op.dt_least(),                op.dt_most(), {decay[h], op.decay_shift()},
                        {input[h], op.input_shift()}, skip[h],     shifts[h]};
    const uint32_t group = h / (heads / op.groups()) * n;
    for (uint32_t p = 0; p < channels; ++p) {
      const uint32_t column = (p / side_by_side * heads + h) * side_by_side + p % side_by_side;
      int32_t *kept = state.data() + size_t{h * (stored->rows() / heads) + p} * stored->columns();
      for (uint32_t row = 0; row < run->rows; ++row) {
        run->Row(op.out(), row)[column] = Advance(head, run->Row(op.dt(), row)[h], run->Row(op.x(), row)[column],
                                                  run->Row(op.b(), row) + group, run->Row(op.c(), row) + group, n, kept);
      }
    }
  }
}

void ReferenceModel::Execute(Run *run, const schema::Step &step) const {
  switch (step.op_type()) {
    case Op::Embedding:
      return Execute(run, *step.op_as_Embedding());
    case Op::RmsNorm:
      return Execute(run, *step.op_as_RmsNorm());
    case Op::Linear:
      return Execute(run, *step.op_as_Linear());
    case Op::Rotate:
      return Execute(run, *step.op_as_Rotate());
    case Op::Append:
      return Execute(run, *step.op_as_Append());
    case Op::Attention:
      return Execute(run, *step.op_as_Attention());
    case Op::Glu:
      return Execute(run, *step.op_as_Glu());
    case Op::Hadamard:
      return Execute(run, *step.op_as_Hadamard());
    case Op::Add:
      return Execute(run, *step.op_as_Add());
    case Op::LayerNorm:
      return Execute(run, *step.op_as_LayerNorm());
    case Op::Experts:
      return Execute(run, *step.op_as_Experts());
    case Op::Conv:
      return Execute(run, *step.op_as_Conv());
    case Op::Scan:
      return Execute(run, *step.op_as_Scan());
    default:
      Require(false, "unknown operator");
  }
}

std::vector<int32_t> ReferenceModel::Logits(const std::vector<int32_t> &tokens, const Trace &trace) const {
  Run run;
  run.tokens = &tokens;
  run.rows = static_cast<uint32_t>(tokens.size());
  run.first_position = model().prefix_tokens() == nullptr ? 0 : model().prefix_tokens()->size();
  run.model = &model();
  for (const schema::Value *value : *model().values()) run.values.emplace_back(size_t{run.rows} * value->width());
  const size_t caches = model().caches() == nullptr ? 0 : model().caches()->size();
  run.k.resize(caches);
  run.v.resize(caches);
  const auto execute = [&](const char *list, const auto *steps) {
    for (flatbuffers::uoffset_t i = 0; i < steps->size(); ++i) {
      const schema::Step &step = *steps->Get(i);
      Execute(&run, step);
      if (!trace) continue;
      StepTrace entry{list, i, schema::EnumNameOp(step.op_type()), 0, 0, 0, run.rows, {}};
      if (const schema::Slice *out = OutputOf(step)) {
        entry.value = out->value();
        entry.offset = out->offset();
        entry.width = out->width();
        for (uint32_t row = 0; row < run.rows; ++row) {
          entry.data.insert(entry.data.end(), run.Row(out, row), run.Row(out, row) + out->width());
        }
      } else {
        const schema::Append &append = *step.op_as_Append();
        const schema::Cache *cache = model().caches()->Get(append.cache());
        const uint32_t heads = cache->kv_heads(), stride = heads * cache->head_dim();
        entry.width = append.k()->width() + append.v()->width();
        for (uint32_t row = 0; row < run.rows; ++row) {
          const size_t first = (run.first_position + row) * stride;
          const auto take = [&](const std::vector<int8_t> &rows, uint32_t dims) {
            for (uint32_t at = 0; at < heads * dims; ++at) {
              entry.data.push_back(rows[first + at / dims * cache->head_dim() + at % dims]);
            }
          };
          take(run.k[append.cache()], append.k()->width() / heads);
          take(run.v[append.cache()], append.v()->width() / heads);
        }
      }
      trace(entry);
    }
  };
  execute("body", model().body());
  execute("head", model().head());
  return run.values[model().logits()];
}

uint64_t Digest(const int32_t *values, size_t count) {
  uint64_t hash = kFnvBasis;
  for (size_t i = 0; i < count; ++i) {
    for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ ((static_cast<uint32_t>(values[i]) >> shift) & 255)) * kFnvPrime;
  }
  return hash;
}

}  // namespace acorn::reference
