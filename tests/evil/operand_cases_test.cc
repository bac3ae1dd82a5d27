// What every step is made of: slices of values, ranges of segments, factors, shifts, zero points. Each operand of each operator is
// broken in every way there is; the rules are few, the places many.
#include "tests/evil/evil_file.h"

namespace acorn::test {
namespace {

using schema::DType;
using schema::Op;
using schema::StepT;

// One spec for each family of operators.
std::vector<ModelSpec> Specs() {
  std::vector<ModelSpec> specs(4);
  specs[0].name = "dense", specs[0].kv_bits = 4, specs[0].prefix_rows = 1;
  specs[1].name = "layer norms", specs[1].norms = Norms::kLayer;
  specs[2].name = "sparse", specs[2].experts = 3, specs[2].shared_expert = specs[2].shared_gate = true;
  specs[2].expert_weights = {{WeightFormat::kW4G32, Layout::kC4}};
  specs[3].name = "state space", specs[3].mixers = {Mixer::kStateSpace}, specs[3].state_groups = 2;
  return specs;
}

/// Runs `harm` on the first step of `type`, in the first spec that has one.
class Bench {
 public:
  Bench() {
    for (const ModelSpec &spec : Specs()) {
      const AlignedBytes file = BuildModel(spec);
      entries_.push_back({file, *GraphOf(file)});
      ExpectOpens(spec.name, WithGraph(file, entries_.back().graph));
    }
  }

  using Harm = std::function<uint64_t(StepT &, schema::ModelT &)>;  // returns the offset of the fault
  void ExpectRefused(Op type, const std::string &name, const Harm &harm) const {
    for (const Entry &entry : entries_) {
      for (size_t i = 0; i < entry.graph.body.size(); ++i) {
        if (entry.graph.body[i]->op.type != type) continue;
        schema::ModelT model = entry.graph;
        const uint64_t offset = harm(*model.body[i], model);
        test::ExpectRefused(schema::EnumNameOp(type) + ("." + name), BytesOf(WithGraph(entry.file, std::move(model))),
                            {ACORN_ERR_INVALID, "body", i, offset});
        return;
      }
    }
    FAIL() << "no " << schema::EnumNameOp(type);
  }

  /// The same of the bytes behind a Ref: element `at` of `size` bytes becomes `value`.
  void ExpectContentRefused(Op type, const std::string &name, const std::function<std::unique_ptr<schema::Ref> &(StepT &)> &ref,
                            uint64_t at, int size, uint64_t value) const {
    for (const Entry &entry : entries_) {
      for (size_t i = 0; i < entry.graph.body.size(); ++i) {
        if (entry.graph.body[i]->op.type != type) continue;
        Bytes bytes = BytesOf(entry.file);
        const schema::Ref &place = *ref(*entry.graph.body[i]);
        const uint64_t offset = entry.graph.segments[place.segment()].offset() + place.offset() + at * static_cast<uint64_t>(size);
        Put(&bytes, offset, value, size);
        AlignedBytes file(bytes);
        Reseal(&file);
        test::ExpectRefused(schema::EnumNameOp(type) + ("." + name), BytesOf(file), {ACORN_ERR_INVALID, "body", i});
        return;
      }
    }
    FAIL() << "no " << schema::EnumNameOp(type);
  }

 private:
  struct Entry {
    AlignedBytes file;
    schema::ModelT graph;
  };
  std::vector<Entry> entries_;
};

template <typename T>
struct Operand {
  Op type;
  const char *name;
  std::function<T &(StepT &)> get;
};
#define ACORN_OPERAND(Kind, field) Op::Kind, #field, [](StepT &step) -> decltype(auto) { return (step.op.As##Kind()->field); }

using SlicePtr = std::unique_ptr<schema::Slice>;
using RefPtr = std::unique_ptr<schema::Ref>;
using FactorPtr = std::unique_ptr<schema::Factor>;

struct SliceOperand {
  Operand<SlicePtr> operand;
  std::vector<DType> legal;
};

std::vector<SliceOperand> SliceOperands() {
  const std::vector<DType> s8 = {DType::S8}, s16 = {DType::S16}, s32 = {DType::S32};
  return {
      {{ACORN_OPERAND(Embedding, out)}, s16},
      {{ACORN_OPERAND(RmsNorm, input)}, s16},
      {{ACORN_OPERAND(RmsNorm, out)}, {DType::S8, DType::S16}},
      {{ACORN_OPERAND(Linear, input)}, {DType::S8, DType::S15}},
      {{ACORN_OPERAND(Linear, out)}, {DType::S8, DType::S16, DType::S32}},
      {{ACORN_OPERAND(Rotate, input)}, s16},
      {{ACORN_OPERAND(Rotate, out)}, {DType::S8, DType::S16}},
      {{ACORN_OPERAND(Append, k)}, s8},
      {{ACORN_OPERAND(Append, v)}, s16},
      {{ACORN_OPERAND(Attention, q)}, s8},
      {{ACORN_OPERAND(Attention, out)}, s8},
      {{ACORN_OPERAND(Glu, gate)}, s16},
      {{ACORN_OPERAND(Glu, up)}, s16},
      {{ACORN_OPERAND(Glu, out)}, s16},
      {{ACORN_OPERAND(Hadamard, input)}, s16},
      {{ACORN_OPERAND(Hadamard, out)}, {DType::S8, DType::S15}},
      {{ACORN_OPERAND(Add, a)}, s16},
      {{ACORN_OPERAND(Add, b)}, s16},
      {{ACORN_OPERAND(Add, out)}, s16},
      {{ACORN_OPERAND(LayerNorm, input)}, s16},
      {{ACORN_OPERAND(LayerNorm, out)}, {DType::S8, DType::S16}},
      {{ACORN_OPERAND(Experts, input)}, s8},
      {{ACORN_OPERAND(Experts, router)}, s32},
      {{ACORN_OPERAND(Experts, out)}, s16},
      {{ACORN_OPERAND(Experts, shared)}, s16},
      {{ACORN_OPERAND(Experts, shared_gate)}, s32},
      {{ACORN_OPERAND(Conv, input)}, s16},
      {{ACORN_OPERAND(Conv, out)}, s16},
      {{ACORN_OPERAND(Scan, x)}, s16},
      {{ACORN_OPERAND(Scan, b)}, s16},
      {{ACORN_OPERAND(Scan, c)}, s16},
      {{ACORN_OPERAND(Scan, dt)}, s16},
      {{ACORN_OPERAND(Scan, out)}, s16},
  };
}

// CVE-2020-15211: the index -1 of a tensor, legal everywhere because it was legal somewhere. CVE-2025-30404, -30405: a place plus a
// size that wraps around, and lies outside the memory that it is said to lie in.
TEST(EvilOperands, Slices) {
  const Bench bench;
  struct Row {
    const char *name;
    std::function<schema::Slice(const schema::Slice &, const schema::ModelT &)> change;
  };
  const std::vector<Row> rows = {
      {"in value -1", [](const auto &s, const auto &) { return schema::Slice(65535, s.offset(), s.width()); }},
      {"in the value after the last",
       [](const auto &s, const auto &m) { return schema::Slice(static_cast<uint16_t>(m.values.size()), s.offset(), s.width()); }},
      {"of no width", [](const auto &s, const auto &) { return schema::Slice(s.value(), s.offset(), 0); }},
      {"of width 2^31", [](const auto &s, const auto &) { return schema::Slice(s.value(), s.offset(), 1u << 31); }},
      {"of width 2^32 - 1", [](const auto &s, const auto &) { return schema::Slice(s.value(), s.offset(), UINT32_MAX); }},
      {"behind its value",
       [](const auto &s, const auto &m) { return schema::Slice(s.value(), m.values[s.value()].width(), s.width()); }},
      {"at 2^31", [](const auto &s, const auto &) { return schema::Slice(s.value(), 1u << 31, s.width()); }},
      {"whose end wraps around", [](const auto &s, const auto &) { return schema::Slice(s.value(), 0u - s.width(), s.width()); }},
  };
  for (const SliceOperand &slice : SliceOperands()) {
    const auto &[type, name, operand] = slice.operand;
    const auto &get = operand;  // which a lambda may capture
    for (const Row &row : rows) {
      bench.ExpectRefused(type, name + (std::string(" ") + row.name), [&](StepT &step, schema::ModelT &model) {
        *get(step) = row.change(*get(step), model);
        return 0;
      });
    }
    for (const DType dtype : {DType::S8, DType::S15, DType::S16, DType::S32}) {
      if (std::find(slice.legal.begin(), slice.legal.end(), dtype) != slice.legal.end()) continue;
      bench.ExpectRefused(type, std::string(name) + " as " + schema::EnumNameDType(dtype), [&](StepT &step, schema::ModelT &model) {
        const schema::Slice &was = *get(step);
        model.values.emplace_back(dtype, model.values[was.value()].width());
        *get(step) = schema::Slice(static_cast<uint16_t>(model.values.size() - 1), was.offset(), was.width());
        return 0;
      });
    }
    // CVE-2020-15209: a tensor without memory.
    if (std::string(name) == "shared_gate") continue;  // legal: the shared expert then counts whole
    bench.ExpectRefused(type, std::string(name) + " absent", [&](StepT &step, schema::ModelT &) {
      get(step) = nullptr;
      return 0;
    });
  }
}

std::vector<Operand<RefPtr>> RefOperands() {
  return {
      {ACORN_OPERAND(Embedding, multipliers)},     {ACORN_OPERAND(RmsNorm, gamma)},
      {ACORN_OPERAND(Linear, bias)},               {ACORN_OPERAND(Linear, multipliers)},
      {ACORN_OPERAND(Rotate, multipliers)},        {ACORN_OPERAND(Append, v_multipliers)},
      {ACORN_OPERAND(Attention, exp_multipliers)}, {ACORN_OPERAND(Attention, out_multipliers)},
      {ACORN_OPERAND(Glu, factor_table)},          {ACORN_OPERAND(LayerNorm, gamma)},
      {ACORN_OPERAND(LayerNorm, bias)},            {ACORN_OPERAND(Experts, glu_table)},
      {ACORN_OPERAND(Conv, weights)},              {ACORN_OPERAND(Conv, bias)},
      {ACORN_OPERAND(Conv, multipliers)},          {ACORN_OPERAND(Conv, index_multipliers)},
      {ACORN_OPERAND(Conv, factor_table)},         {ACORN_OPERAND(Scan, dt_multipliers)},
      {ACORN_OPERAND(Scan, dt_bias)},              {ACORN_OPERAND(Scan, softplus_table)},
      {ACORN_OPERAND(Scan, decay_multipliers)},    {ACORN_OPERAND(Scan, input_multipliers)},
      {ACORN_OPERAND(Scan, skip)},                 {ACORN_OPERAND(Scan, out_shifts)},
  };
}

// CVE-2026-7482: a tensor that is longer than the file. CVE-2025-53630, CVE-2026-27940: offset + size that wraps around.
// CVE-2026-33298, CVE-2022-23558: sizes that are a product, and shorter than what is read. CVE-2024-42479: a place that is believed.
TEST(EvilOperands, Ranges) {
  const Bench bench;
  struct Row {
    const char *name;
    std::function<schema::Ref(const schema::Ref &)> change;
  };
  const auto at = [](const schema::Ref &r, uint64_t offset) { return schema::Ref(r.segment(), offset, r.bytes()); };
  const auto of = [](const schema::Ref &r, uint64_t bytes) { return schema::Ref(r.segment(), r.offset(), bytes); };
  const std::vector<Row> rows = {
      {"among the weights", [](const auto &r) { return schema::Ref(1, r.offset(), r.bytes()); }},
      {"askew by 4", [=](const auto &r) { return at(r, r.offset() + 4); }},
      {"at 2^31", [=](const auto &r) { return at(r, uint64_t{1} << 31); }},
      {"at 2^32", [=](const auto &r) { return at(r, uint64_t{1} << 32); }},
      {"at 2^63", [=](const auto &r) { return at(r, uint64_t{1} << 63); }},
      {"before the segment", [=](const auto &r) { return at(r, 0 - uint64_t{64}); }},
      {"whose end wraps around", [=](const auto &r) { return at(r, 0 - ((r.bytes() + 63) / 64 * 64)); }},
      {"of no bytes", [=](const auto &r) { return of(r, 0); }},
      {"a byte short", [=](const auto &r) { return of(r, r.bytes() - 1); }},
      {"64 bytes long", [=](const auto &r) { return of(r, r.bytes() + 64); }},
      {"of 2^32 - 1 bytes", [=](const auto &r) { return of(r, UINT32_MAX); }},
      {"of 2^63 - 1 bytes", [=](const auto &r) { return of(r, INT64_MAX); }},
      {"of 2^64 - 1 bytes", [=](const auto &r) { return of(r, UINT64_MAX); }},
  };
  for (const Operand<RefPtr> &ref : RefOperands()) {
    const std::string name = ref.name;
    for (const Row &row : rows) {
      bench.ExpectRefused(ref.type, name + " " + row.name, [&](StepT &step, schema::ModelT &) {
        *ref.get(step) = row.change(*ref.get(step));
        return ref.get(step)->offset();
      });
    }
    bench.ExpectRefused(ref.type, name + " absent", [&](StepT &step, schema::ModelT &) {
      ref.get(step) = nullptr;
      return 0;
    });
    bench.ExpectRefused(ref.type, name + " in segment -1", [&](StepT &step, schema::ModelT &) {
      *ref.get(step) = schema::Ref(65535, 0, ref.get(step)->bytes());
      return 0;
    });
  }
}

TEST(EvilOperands, Factors) {
  const Bench bench;
  const std::vector<Operand<FactorPtr>> factors = {
      {ACORN_OPERAND(RmsNorm, factor)},      {ACORN_OPERAND(Glu, index)},         {ACORN_OPERAND(Hadamard, factor)},
      {ACORN_OPERAND(Experts, octaves)},     {ACORN_OPERAND(Experts, glu_index)}, {ACORN_OPERAND(Experts, down_factor)},
      {ACORN_OPERAND(Experts, shared_octaves)},
  };
  struct Row {
    const char *name;
    std::function<schema::Factor(const schema::Factor &)> change;
  };
  const std::vector<Row> rows = {
      {"of shift 0", [](const auto &f) { return schema::Factor(f.multiplier(), 0); }},
      {"of shift 63", [](const auto &f) { return schema::Factor(f.multiplier(), 63); }},
      {"of shift 255", [](const auto &f) { return schema::Factor(f.multiplier(), 255); }},
      {"below 0", [](const auto &f) { return schema::Factor(-1, f.shift()); }},
      {"of -2^31", [](const auto &f) { return schema::Factor(INT32_MIN, f.shift()); }},
  };
  for (const Operand<FactorPtr> &factor : factors) {
    for (const Row &row : rows) {
      bench.ExpectRefused(factor.type, factor.name + (std::string(" ") + row.name), [&](StepT &step, schema::ModelT &) {
        *factor.get(step) = row.change(*factor.get(step));
        return 0;
      });
    }
    bench.ExpectRefused(factor.type, factor.name + std::string(" absent"), [&](StepT &step, schema::ModelT &) {
      factor.get(step) = nullptr;
      return 0;
    });
  }
}

TEST(EvilOperands, Shifts) {
  const Bench bench;
  struct Shift {
    Operand<uint8_t> operand;
    int most;
  };
  const std::vector<Shift> shifts = {
      {{ACORN_OPERAND(Embedding, shift)}, 62},     {{ACORN_OPERAND(Linear, shift)}, 62},
      {{ACORN_OPERAND(Rotate, shift)}, 62},        {{ACORN_OPERAND(Append, v_shift)}, 62},
      {{ACORN_OPERAND(Attention, exp_shift)}, 62}, {{ACORN_OPERAND(Attention, out_shift)}, 38},
      {{ACORN_OPERAND(Glu, shift)}, 62},           {{ACORN_OPERAND(Add, shift)}, 62},
      {{ACORN_OPERAND(LayerNorm, shift)}, 62},     {{ACORN_OPERAND(Experts, glu_shift)}, 62},
      {{ACORN_OPERAND(Conv, shift)}, 62},          {{ACORN_OPERAND(Conv, index_shift)}, 62},
      {{ACORN_OPERAND(Scan, dt_shift)}, 62},       {{ACORN_OPERAND(Scan, decay_shift)}, 62},
      {{ACORN_OPERAND(Scan, input_shift)}, 62},
  };
  for (const Shift &shift : shifts) {
    for (const int value : {0, shift.most + 1, 128, 255}) {
      const std::string name = shift.operand.name + (" " + std::to_string(value));
      bench.ExpectRefused(shift.operand.type, name, [&](StepT &step, schema::ModelT &) {
        shift.operand.get(step) = static_cast<uint8_t>(value);
        return 0;
      });
    }
  }
}

TEST(EvilOperands, ZeroPoints) {
  const Bench bench;
  const std::vector<Operand<int16_t>> points = {
      {ACORN_OPERAND(RmsNorm, zero_point)},  {ACORN_OPERAND(Linear, zero_point)},    {ACORN_OPERAND(Attention, zero_point)},
      {ACORN_OPERAND(Hadamard, zero_point)}, {ACORN_OPERAND(LayerNorm, zero_point)}, {ACORN_OPERAND(Experts, down_zero_point)},
  };
  for (const Operand<int16_t> &point : points) {
    for (const int value : {128, -128, 32767, -32768}) {
      bench.ExpectRefused(point.type, point.name + (" " + std::to_string(value)), [&](StepT &step, schema::ModelT &) {
        point.get(step) = static_cast<int16_t>(value);
        return 0;
      });
    }
  }
}

// Numbers behind the ranges that a kernel would multiply, shift or look up by.
TEST(EvilOperands, Contents) {
  const Bench bench;
  struct Row {
    Operand<RefPtr> ref;
    const char *name;
    uint64_t at;
    int size;
    uint64_t value;
  };
  std::vector<Row> rows = {
      {{ACORN_OPERAND(Linear, bias)}, "that passes the sums", 3, 4, INT32_MAX},
      {{ACORN_OPERAND(Linear, bias)}, "of -2^31", 0, 4, 0x80000000u},
      {{ACORN_OPERAND(Attention, out_multipliers)}, "below 2^30", 1, 4, (1u << 30) - 1},
      {{ACORN_OPERAND(Conv, bias)}, "of -2^31", 1, 4, 0x80000000u},
      {{ACORN_OPERAND(Scan, skip)}, "past 2^46", 1, 8, (uint64_t{1} << 46) + 1},
      {{ACORN_OPERAND(Scan, skip)}, "past -2^46", 0, 8, 0 - ((uint64_t{1} << 46) + 1)},
      {{ACORN_OPERAND(Scan, out_shifts)}, "of 0", 1, 1, 0},
      {{ACORN_OPERAND(Scan, out_shifts)}, "of 63", 0, 1, 63},
  };
  for (const uint64_t value : {uint64_t{UINT32_MAX}, uint64_t{1} << 31}) {
    for (const Operand<RefPtr> &ref : RefOperands()) {
      if (std::string(ref.name).find("multipliers") != std::string::npos) rows.push_back({ref, "below 0", 1, 4, value});
    }
  }
  for (const Row &row : rows) {
    bench.ExpectContentRefused(row.ref.type, row.ref.name + (std::string(" ") + row.name), row.ref.get, row.at, row.size, row.value);
  }
}

}  // namespace
}  // namespace acorn::test
