// Sets of routed experts and their records; and what a lying one could make a device plan for.
#include <algorithm>

#include "acorn_schema/expert_record.h"
#include "tests/evil/evil_file.h"
#include "tests/support/host_features.h"

namespace acorn::test {
namespace {

using schema::ModelT;
using schema::Op;
using schema::SegmentKind;

ModelSpec Spec() {
  ModelSpec spec;
  spec.name = "sparse";
  spec.experts = 5;
  spec.expert_weights = {{WeightFormat::kW8, Layout::kX8C8}, {WeightFormat::kW4G32, Layout::kC4}};
  spec.shared_expert = spec.shared_gate = true;
  return spec;
}

using E = schema::ExpertSetT;
GraphCase Set(const char *name, const std::function<void(E &)> &harm) {
  return {std::string("set ") + name, "experts", [=](ModelT &m) {
            harm(*m.expert_sets[1]);
            return Where(1);
          }};
}

struct Record {
  uint64_t offset, checksum;
  int format, down_format, gate_shift, up_shift, down_shift;
};
// Record 3 of set 1. Faults of a record are in "expert", at its offset; of its shifts in "experts", at its set.
std::vector<schema::ExpertRecord> Changed(const std::vector<schema::ExpertRecord> &records,
                                          const std::function<void(Record *)> &harm) {
  std::vector<schema::ExpertRecord> changed = records;
  const schema::ExpertRecord &was = records[3];
  Record r = {was.offset(), was.checksum(), was.format(), was.down_format(), was.gate_shift(), was.up_shift(), was.down_shift()};
  harm(&r);
  const auto byte = [](int value) { return static_cast<uint8_t>(value); };
  changed[3] = schema::ExpertRecord(r.offset, r.checksum, byte(r.format), byte(r.down_format), byte(r.gate_shift), byte(r.up_shift),
                                    byte(r.down_shift));
  return changed;
}
GraphCase RecordCase(const char *name, const std::function<void(Record *)> &harm) {
  return {std::string("record ") + name, "expert", [=](ModelT &m) {
            m.expert_sets[1]->records = Changed(m.expert_sets[1]->records, harm);
            return Where(3, m.expert_sets[1]->records[3].offset());
          }};
}
GraphCase ShiftCase(const char *name, const std::function<void(Record *)> &harm) {
  return Set(name, [=](E &set) { set.records = Changed(set.records, harm); });
}

TEST(EvilExperts, Sets) {
  ExpectAllRefused(Spec(), {
      Set("in segment -1", [](E &s) { s.segment = 65535; }),
      Set("among the weights", [](E &s) { s.segment = 1; }),
      Set("among the constants", [](E &s) { s.segment = 0; }),
      Set("of no width", [](E &s) { s.hidden = 0; }),
      Set("too wide", [](E &s) { s.hidden = (1u << 20) + 1; }),
      Set("of width 2^32 - 1", [](E &s) { s.hidden = UINT32_MAX; }),
      Set("of no depth", [](E &s) { s.ffn = 0; }),
      Set("too deep", [](E &s) { s.ffn = (1u << 20) + 1; }),
      Set("of sums of 2^31", [](E &s) { s.in_bound = uint64_t{1} << 31; }),
      Set("of sums of 2^64 - 1", [](E &s) { s.in_bound = UINT64_MAX; }),
      Set("of sums of down of 2^31", [](E &s) { s.down_bound = uint64_t{1} << 31; }),
      Set("of sums of down of 2^63", [](E &s) { s.down_bound = uint64_t{1} << 63; }),
      Set("of no experts", [](E &s) { s.records.clear(); }),
      Set("of 1,025 experts", [](E &s) { s.records.resize(1025, s.records[0]); }),
      ShiftCase("of a gate's shift 0", [](Record *r) { r->gate_shift = 0; }),
      ShiftCase("of a gate's shift 63", [](Record *r) { r->gate_shift = 63; }),
      ShiftCase("of an up's shift 0", [](Record *r) { r->up_shift = 0; }),
      ShiftCase("of an up's shift 255", [](Record *r) { r->up_shift = 255; }),
      ShiftCase("of a down's shift 0", [](Record *r) { r->down_shift = 0; }),
      ShiftCase("of a down's shift 63", [](Record *r) { r->down_shift = 63; }),
  });
}

TEST(EvilExperts, Records) {
  const auto of_set = [](const char *name, const std::function<void(E &)> &harm, uint64_t first) {
    return GraphCase{std::string("records of a set ") + name, "expert", [=](ModelT &m) {
                       harm(*m.expert_sets[1]);
                       return Where(first, m.expert_sets[1]->records[first].offset());
                     }};
  };
  ExpectAllRefused(Spec(), {
      RecordCase("askew by 64", [](Record *r) { r->offset += 64; }),
      RecordCase("askew by 4096", [](Record *r) { r->offset += 4096; }),
      RecordCase("a block past the end", [](Record *r) { r->offset += 2 * kSegmentAlignment; }),
      RecordCase("at 2^32", [](Record *r) { r->offset = uint64_t{1} << 32; }),
      RecordCase("at 2^63", [](Record *r) { r->offset = uint64_t{1} << 63; }),
      RecordCase("whose end wraps around", [](Record *r) { r->offset = 0 - kSegmentAlignment; }),
      RecordCase("of no format", [](Record *r) { r->format = 0; }),
      RecordCase("of the format after the last", [](Record *r) { r->format = 7; }),
      RecordCase("of format 255", [](Record *r) { r->format = 255; }),
      RecordCase("of no down format", [](Record *r) { r->down_format = 0; }),
      RecordCase("of down format 255", [](Record *r) { r->down_format = 255; }),
      RecordCase("of groups deeper than it is", [](Record *r) { r->down_format = 5; }),
      of_set("of no layout", [](E &s) { s.layout = 0; }, 0),
      of_set("of layout 255", [](E &s) { s.layout = 255; }, 0),
      of_set("of giant experts", [](E &s) { s.ffn = 1u << 20; }, 0),
      of_set("of 2^20 by 2^20", [](E &s) { s.ffn = s.hidden = 1u << 20; }, 0),
  });
}

TEST(EvilExperts, Steps) {
  using T = schema::ExpertsT;
  const auto step = [](const char *name, const std::function<void(T &)> &harm) {
    return StepCase<T>(name, Op::Experts, [=](T &op, ModelT &) { harm(op); });
  };
  const auto narrow = [](const std::unique_ptr<schema::Slice> &s) { *s = schema::Slice(s->value(), s->offset(), s->width() - 1); };
  ExpectAllRefused(Spec(), {
      step("set -1", [](T &op) { op.set = 65535; }),
      step("set after the last", [](T &op) { op.set = 2; }),
      step("nobody chosen", [](T &op) { op.top_k = 0; }),
      step("more chosen than there are", [](T &op) { op.top_k = 6; }),
      step("more chosen than any may", [](T &op) { op.top_k = 65; }),
      step("2^32 - 1 chosen", [](T &op) { op.top_k = UINT32_MAX; }),
      step("no scoring", [](T &op) { op.scoring = 0; }),
      step("the scoring after the last", [](T &op) { op.scoring = static_cast<uint8_t>(Scoring::kSigmoidOfChosen) + 1; }),
      step("scoring 255", [](T &op) { op.scoring = 255; }),
      step("no block", [](T &op) { op.block = 0; }),
      step("a block of 24", [](T &op) { op.block = 24; }),
      step("a block that does not divide", [](T &op) { op.block = 128; }),
      step("a block of 2^31", [](T &op) { op.block = 1u << 31; }),
      step("octaves past 2^30", [](T &op) { *op.octaves = schema::Factor((1 << 30) + 1, op.octaves->shift()); }),
      step("octaves of the shared gate past 2^30", [](T &op) { *op.shared_octaves = schema::Factor(INT32_MAX, 30); }),
      step("logits of fewer experts", [=](T &op) { narrow(op.router); }),
      step("another width", [=](T &op) { narrow(op.input); }),
      step("to another width", [=](T &op) { narrow(op.out); }),
      step("a shared expert of another width", [=](T &op) { narrow(op.shared); }),
      step("a gate without a shared expert", [](T &op) { op.shared = nullptr; }),
      step("a gate of two", [](T &op) { *op.shared_gate = *op.router; }),
      step("in the shared expert's place", [](T &op) { *op.out = *op.shared; }),
  });
}

// The value that holds the logits of routers may be wider than a set: what is kept for each expert follows the set.
TEST(EvilExperts, AWideRouterPlansNoMore) {
  const AlignedBytes file = BuildModel(Spec());
  acorn_options options = {};
  options.expert_cache_bytes = 1 << 20;
  options.expert_prefetch = ACORN_PREFETCH_PATH;
  CountingPort counting;
  const auto plan_of = [&](const AlignedBytes &image) {
    ModelSession session(image, options, &counting.port);
    EXPECT_EQ(session.status(), static_cast<acorn_status>(ACORN_OK));
    return session.plan().model_bytes;
  };
  ModelT model = *GraphOf(file);
  const uint16_t router = model.body[IndexOf(model.body, Op::Experts)]->op.AsExperts()->router->value();
  model.values[router] = schema::Value(schema::DType::S32, 1 << 12);
  // The order of steps wants whole values written, so that the rest of a wide one is never read.
  EXPECT_EQ(plan_of(WithGraph(file, model)), plan_of(file));
}

// Records are checked when they are used; with ACORN_OPEN_CHECK_WEIGHTS before.
TEST(EvilExperts, Contents) {
  const AlignedBytes file = BuildModel(Spec());
  const ModelT model = *GraphOf(file);
  acorn_options check = {};
  check.flags = ACORN_OPEN_CHECK_WEIGHTS;
  ExpectOpens("unharmed", file, check);
  const E &set = *model.expert_sets[1];
  const uint64_t begin = model.segments[set.segment].offset() + set.records[2].offset();
  const expert::Shape shape = {set.hidden, set.ffn, static_cast<WeightFormat>(set.records[2].format()),
                               static_cast<WeightFormat>(set.records[2].down_format()), static_cast<Layout>(set.layout)};
  Bytes bad = BytesOf(file);
  bad[begin + 100] ^= 1;
  ExpectRefused("a bit of a record", bad, {ACORN_ERR_DAMAGED, "expert", 2, begin}, check);
  struct Row {
    const char *name;
    bool multipliers;
    uint32_t value;
  };
  for (const Row &row : {Row{"a bias past the sums", false, INT32_MAX}, Row{"a bias of -2^31", false, 0x80000000u},
                         Row{"a multiplier below 0", true, UINT32_MAX}}) {
    for (size_t part = 0; part < expert::kParts; ++part) {
      bad = BytesOf(file);
      const expert::Place place = expert::PlaceOf(shape, part);
      Put(&bad, begin + (row.multipliers ? place.multipliers : place.bias) + 4, row.value, 4);
      // The set's records, whose checksum is told anew.
      ModelT sealed = model;
      const schema::ExpertRecord &was = set.records[2];
      const uint64_t checksum = RecordChecksum(bad.data() + begin, expert::RecordBytes(shape));
      sealed.expert_sets[1]->records[2] = schema::ExpertRecord(was.offset(), checksum, was.format(), was.down_format(),
                                                               was.gate_shift(), was.up_shift(), was.down_shift());
      const Bytes whole = BytesOf(WithGraph(AlignedBytes(bad), std::move(sealed)));
      const uint64_t moved = whole.size() - bad.size();
      ExpectRefused(std::string(row.name) + ", part " + std::to_string(part), whole,
                    {ACORN_ERR_INVALID, "expert", 2, begin + moved}, check);
    }
  }
}

// A token that wants 64 experts has 128 matrices at once, which 256 threads cut in longer pieces than those of fewer. All tasks
// are the last thread's: its memory ends where the block does.
TEST(EvilExperts, ManyOfThemStayInAThreadsMemory) {
  ModelSpec spec;
  spec.name = "crowded";
  spec.layers = 1;
  spec.max_context = 4;
  spec.experts = spec.top_k = 64;
  spec.expert_ffn = 4096;
  spec.expert_slices = {1024, 1024, 1024, 1024};
  spec.linear = spec.head = {WeightFormat::kW8, Layout::kX16C8};
  spec.expert_weights = {{WeightFormat::kW4, Layout::kX16C8}};  // whose kernels' needs do not grow with the depth
  const AlignedBytes file = BuildModel(spec);
  const acorn_image image = {file.data(), file.size()};
  acorn_port port = {};
  port.struct_size = sizeof port;
  port.threads = 256;
  port.cpu_features = HostFeatures();
  port.parallel_for = [](void *, acorn_task task, void *arg, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) task(arg, i, 255);
  };
  acorn_options options = {};
  options.struct_size = sizeof options;
  options.chunk_tokens = 1;
  acorn_memory_plan plan = {};
  plan.struct_size = sizeof plan;
  ASSERT_EQ(acorn_plan(&plan, nullptr, &image, &options, &port), static_cast<acorn_status>(ACORN_OK));
  constexpr size_t kBehind = 65536;
  constexpr uint8_t kUntouched = 0xa5;
  AlignedBytes block(std::vector<uint8_t>(plan.block_bytes + kBehind, kUntouched));
  acorn_model *model = nullptr;
  acorn_session *session = nullptr;
  ASSERT_EQ(acorn_model_open(&model, nullptr, &image, &options, &port, block.data(), plan.block_bytes),
            static_cast<acorn_status>(ACORN_OK));
  ASSERT_EQ(acorn_session_open(&session, model), static_cast<acorn_status>(ACORN_OK));
  const int32_t token = 1;
  ASSERT_EQ(acorn_session_prefill(session, &token, 1), static_cast<acorn_status>(ACORN_OK));
  const uint8_t *behind = block.data() + plan.block_bytes;
  const uint8_t *touched = std::find_if(behind, behind + kBehind, [](uint8_t byte) { return byte != kUntouched; });
  EXPECT_EQ(touched, behind + kBehind) << "byte " << touched - behind;
}

// In the image too what is met is told, as it is of records that stream.
TEST(EvilExperts, ADamagedRecordIsNamedWhereItIsMet) {
  const AlignedBytes file = BuildModel(Spec());
  const ModelT model = *GraphOf(file);
  const E &set = *model.expert_sets[1];
  AlignedBytes bad = file;
  for (const schema::ExpertRecord &record : set.records) {
    bad.data()[model.segments[set.segment].offset() + record.offset() + 100] ^= 1;
  }
  ModelSession session(bad), healthy(file);
  ASSERT_EQ(session.status(), static_cast<acorn_status>(ACORN_OK));
  acorn_expert_fault fault = {};
  const int32_t token = 1;
  ASSERT_EQ(acorn_session_prefill(session.session(), &token, 1), static_cast<acorn_status>(ACORN_ERR_DAMAGED));
  ASSERT_EQ(acorn_model_expert_fault(session.model(), &fault), static_cast<acorn_status>(ACORN_OK));
  EXPECT_EQ(fault.status, static_cast<acorn_status>(ACORN_ERR_DAMAGED));
  EXPECT_EQ(fault.layer, 1u);
  ASSERT_LT(fault.expert, set.records.size());
  EXPECT_EQ(fault.offset, model.segments[set.segment].offset() + set.records[fault.expert].offset());
  EXPECT_EQ(fault.error, 0);
  ASSERT_EQ(acorn_session_prefill(healthy.session(), &token, 1), static_cast<acorn_status>(ACORN_OK));
  ASSERT_EQ(acorn_model_expert_fault(healthy.model(), &fault), static_cast<acorn_status>(ACORN_OK));
  EXPECT_EQ(fault.status, static_cast<acorn_status>(ACORN_OK));
}

}  // namespace
}  // namespace acorn::test
