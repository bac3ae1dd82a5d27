// The third promise: the plan is exact, nothing outside the block is touched, and nothing is allocated after open.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "acorn.h"
#include "tests/support/allocations.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/recorded_model.h"
#include "tests/support/thread_port.h"

namespace acorn::test {
namespace {

struct Opened {
  acorn_memory_plan plan = {};
  acorn_fault fault = {};
  acorn_model *model = nullptr;
  acorn_session *session = nullptr;
};

acorn_status Plan(const AlignedBytes &file, const acorn_options &options, const acorn_port *port, Opened *out) {
  const acorn_image image{file.data(), file.size()};
  return acorn_plan(&out->plan, &out->fault, &image, &options, port);
}

acorn_status Open(const AlignedBytes &file, const acorn_options &options, const acorn_port *port, void *block, size_t bytes, Opened *out) {
  const acorn_image image{file.data(), file.size()};
  return acorn_model_open(&out->model, &out->fault, &image, &options, port, block, bytes);
}

// Without which the next tests would say nothing.
TEST(MemoryCount, SeesEveryAllocation) {
  const AllocationCount allocations;
  void *volatile memory = std::malloc(1);
  EXPECT_EQ(allocations.value(), 1u);
  std::free(memory);
}

class Memory : public testing::TestWithParam<ModelSpec> {};

TEST_P(Memory, StaysInsideTheBlockAndAllocatesNothing) {
  const AlignedBytes file = Recorded(BuildModel(GetParam()));
  for (const uint32_t features : FeatureLevels()) {
    for (const uint32_t chunk : {1u, 5u, 64u}) {
      // Unreadable pages touch the block's end, or its beginning.
      const Guard guard = chunk == 5 ? Guard::kBegin : Guard::kEnd;
      ThreadPort port(features, 1);
      acorn_options options = {};
      options.struct_size = sizeof options;
      options.chunk_tokens = chunk;
      options.logit_rows = 2;
      options.flags = chunk == 5 ? ACORN_OPEN_TRACE : 0;
      Opened opened;
      ASSERT_EQ(Plan(file, options, port.get(), &opened), ACORN_OK);
      EXPECT_EQ(opened.plan.block_bytes,
                opened.plan.model_bytes + opened.plan.session_bytes * opened.plan.max_sessions + opened.plan.scratch_bytes);
      // block_bytes is a multiple of 64, so a block that ends at the guard page is aligned.
      GuardedBuffer<uint8_t> block(opened.plan.block_bytes, guard);
      std::vector<int32_t> tokens(GetParam().max_context - 4);
      for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7 % GetParam().vocab_size);
      acorn_sampling sampling = {};
      sampling.struct_size = sizeof sampling;
      sampling.temperature_q16 = 50000;
      sampling.top_p_q16 = 60000;
      sampling.repetition_penalty_q16 = 70000;

      const AllocationCount allocations;
      acorn_status status = Open(file, options, port.get(), block.data(), block.size(), &opened);
      if (status == ACORN_OK) status = acorn_session_open(&opened.session, opened.model);
      if (status == ACORN_OK) status = acorn_session_prefill(opened.session, tokens.data(), tokens.size());
      for (int i = 0; i < 3 && status == ACORN_OK; ++i) {
        int32_t token = 0;
        status = acorn_session_sample(opened.session, &token, &sampling);
        if (status == ACORN_OK) status = acorn_session_decode(opened.session, nullptr, token);
      }
      const auto ignore = [](void *, size_t, const int32_t *, size_t) { return 0; };
      const uint64_t back = GetParam().windows.empty() ? 3 : 0;  // a window has moved past it
      if (status == ACORN_OK) status = acorn_session_rewind(opened.session, back);
      if (status == ACORN_OK) status = acorn_session_score(opened.session, tokens.data(), tokens.size() / 2, ignore, nullptr);
      uint32_t rates[16];
      size_t count = 0;
      if (status == ACORN_OK) status = acorn_model_rates(opened.model, rates, 16, &count);
      for (size_t i = 0; i < count && status == ACORN_OK; ++i) {
        status = acorn_session_set_rate(opened.session, rates[i]);
        if (status == ACORN_OK) status = acorn_session_decode(opened.session, nullptr, 1);
      }
      acorn_selftest_report report = {};
      if (status == ACORN_OK && chunk == 5) status = acorn_session_selftest(opened.session, &report);
      const uint64_t allocated = allocations.value();
      EXPECT_EQ(report.passed, chunk == 5 ? 1u : 0u);
      EXPECT_EQ(status, ACORN_OK) << acorn_status_text(status);
      EXPECT_EQ(allocated, 0u);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Specs, Memory, testing::ValuesIn(VariedSpecs()),
                         [](const testing::TestParamInfo<ModelSpec> &spec) { return spec.param.name; });

INSTANTIATE_TEST_SUITE_P(ElasticSpecs, Memory, testing::ValuesIn(ElasticSpecs()),
                         [](const testing::TestParamInfo<ModelSpec> &spec) { return spec.param.name; });

TEST(MemoryBlock, EverySmallerBlockIsRefusedUntouched) {
  const AlignedBytes file = BuildModel(VariedSpecs().front());
  acorn_options options = {};
  options.struct_size = sizeof options;
  Opened opened;
  ASSERT_EQ(Plan(file, options, nullptr, &opened), ACORN_OK);
  const size_t need = opened.plan.block_bytes;
  GuardedBuffer<uint8_t> block(need);
  std::memset(block.data(), 0x5a, need);
  for (size_t bytes = 0; bytes < need; bytes += bytes < 4096 ? 1 : 997) {
    ASSERT_EQ(Open(file, options, nullptr, block.data(), bytes, &opened), ACORN_ERR_MEMORY);
    EXPECT_EQ(opened.fault.offset, need);
  }
  EXPECT_EQ(Open(file, options, nullptr, block.data(), need - 1, &opened), ACORN_ERR_MEMORY);
  for (size_t i = 0; i < need; ++i) ASSERT_EQ(block[i], 0x5a) << i;
  EXPECT_EQ(Open(file, options, nullptr, block.data(), need, &opened), ACORN_OK);
}

/// A file as a port reads it.
class ReadPort {
 public:
  explicit ReadPort(const AlignedBytes &file) : file_(file), threads_(HostFeatures(), 1), port_(*threads_.get()) {
    port_.ctx = this;
    port_.read = [](void *ctx, void *to, uint64_t offset, size_t bytes) {
      const AlignedBytes &from = static_cast<ReadPort *>(ctx)->file_;
      if (offset > from.size() || bytes > from.size() - offset) return 1;
      std::memcpy(to, from.data() + offset, bytes);
      return 0;
    };
  }
  const acorn_port *get() const { return &port_; }

 private:
  const AlignedBytes &file_;
  ThreadPort threads_;
  acorn_port port_;
};

struct Way {
  const char *spec;
  uint32_t slots;  // of experts that stream; 0: none does
};

class SmallBlock : public testing::TestWithParam<Way> {
 protected:
  SmallBlock() : file_(BuildModel(SpecNamed(GetParam().spec))), port_(file_) {
    options_.struct_size = sizeof options_;
    options_.max_sessions = 3;
    options_.flags = ACORN_OPEN_TRACE;
    EXPECT_EQ(Plan(file_, options_, port_.get(), &opened_), ACORN_OK);
    if (GetParam().slots == 0) return;
    options_.expert_cache_bytes = GetParam().slots * opened_.plan.expert_record_bytes;
    options_.expert_prefetch = ACORN_PREFETCH_PATH;
    EXPECT_EQ(Plan(file_, options_, port_.get(), &opened_), ACORN_OK);
  }

  static ModelSpec SpecNamed(const std::string &name) {
    for (const std::vector<ModelSpec> &specs : {VariedSpecs(), ElasticSpecs()}) {
      for (const ModelSpec &spec : specs) {
        if (spec.name == name) return spec;
      }
    }
    ADD_FAILURE() << name;
    return {};
  }

  AlignedBytes file_;
  ReadPort port_;
  acorn_options options_ = {};
  Opened opened_;
};

// Around the end of every class of memory byte by byte, in strides between: refused with the need, and not touched.
TEST_P(SmallBlock, IsRefusedUntouched) {
  const acorn_memory_plan &plan = opened_.plan;
  const uint64_t need = plan.block_bytes;
  std::vector<uint64_t> ends = {0, plan.model_bytes};
  for (uint32_t i = 0; i < plan.max_sessions; ++i) ends.push_back(ends.back() + plan.session_bytes);
  ends.push_back(ends.back() + plan.scratch_bytes);
  ends.push_back(ends.back() + plan.expert_slot_bytes);
  ASSERT_EQ(ends.back(), need);
  std::set<uint64_t> sizes;
  for (const uint64_t end : ends) {
    for (uint64_t bytes = end < 65 ? 0 : end - 65; bytes <= end + 65; ++bytes) sizes.insert(bytes);
  }
  for (uint64_t bytes = 0; bytes < need; bytes += need / 251 + 1) sizes.insert(bytes);
  GuardedBuffer<uint8_t> block(need);
  std::memset(block.data(), 0x5a, need);
  for (const uint64_t bytes : sizes) {
    if (bytes >= need) break;
    ASSERT_EQ(Open(file_, options_, port_.get(), block.data(), bytes, &opened_), ACORN_ERR_MEMORY) << bytes;
    ASSERT_EQ(opened_.model, nullptr);
    ASSERT_EQ(opened_.fault.status, static_cast<acorn_status>(ACORN_ERR_MEMORY));
    ASSERT_STREQ(opened_.fault.section, "block");
    ASSERT_EQ(opened_.fault.offset, need);
  }
  for (size_t i = 0; i < need; ++i) ASSERT_EQ(block[i], 0x5a) << i;
}

// A block that is larger than the need is used as far as the plan says, whatever the sessions do; and no further session opens than
// were planned.
TEST_P(SmallBlock, NothingIsWrittenBehindThePlan) {
  const uint64_t need = opened_.plan.block_bytes;
  constexpr size_t kMore = 4096;
  GuardedBuffer<uint8_t> block(need + kMore);
  std::memset(block.data(), 0x5a, block.size());
  ASSERT_EQ(Open(file_, options_, port_.get(), block.data(), block.size(), &opened_), ACORN_OK);
  std::vector<acorn_session *> sessions(opened_.plan.max_sessions);
  for (acorn_session *&session : sessions) ASSERT_EQ(acorn_session_open(&session, opened_.model), ACORN_OK);
  acorn_session *none = nullptr;
  EXPECT_EQ(acorn_session_open(&none, opened_.model), static_cast<acorn_status>(ACORN_ERR_STATE));
  EXPECT_EQ(none, nullptr);
  for (acorn_session *session : sessions) {
    std::vector<int32_t> tokens(acorn_session_capacity(session));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 5 % 41);
    EXPECT_EQ(acorn_session_prefill(session, tokens.data(), tokens.size()), ACORN_OK);
    EXPECT_EQ(acorn_session_decode(session, nullptr, 1), static_cast<acorn_status>(ACORN_ERR_CONTEXT_FULL));
    std::vector<uint8_t> snapshot(acorn_session_snapshot_bytes(session));
    EXPECT_EQ(acorn_session_save(session, snapshot.data(), snapshot.size()), ACORN_OK);
    EXPECT_EQ(acorn_session_load(sessions[0], snapshot.data(), snapshot.size()), ACORN_OK);
  }
  for (size_t i = need; i < block.size(); ++i) ASSERT_EQ(block[i], 0x5a) << i - need;
}

TEST_P(SmallBlock, NoAddressButAnAlignedOne) {
  const uint64_t need = opened_.plan.block_bytes;
  AlignedBytes block(std::vector<uint8_t>(need + 64, 0x5a));
  for (size_t offset = 1; offset < 64; ++offset) {
    EXPECT_EQ(Open(file_, options_, port_.get(), block.data() + offset, need, &opened_), static_cast<acorn_status>(ACORN_ERR_ARGUMENT));
  }
  EXPECT_EQ(Open(file_, options_, port_.get(), nullptr, need, &opened_), static_cast<acorn_status>(ACORN_ERR_ARGUMENT));
  for (size_t i = 0; i < block.size(); ++i) ASSERT_EQ(block.data()[i], 0x5a) << i;
}

// Less than one expert is no cache: the plan says how much one takes.
TEST_P(SmallBlock, ACacheOfLessThanAnExpert) {
  if (GetParam().slots == 0) return;
  const uint64_t record = opened_.plan.expert_record_bytes;
  for (const uint64_t bytes : {uint64_t{1}, uint64_t{64}, record / 2, record - 1}) {
    options_.expert_cache_bytes = bytes;
    EXPECT_EQ(Plan(file_, options_, port_.get(), &opened_), static_cast<acorn_status>(ACORN_ERR_MEMORY)) << bytes;
    EXPECT_STREQ(opened_.fault.section, "expert cache");
    EXPECT_EQ(opened_.fault.offset, record);
  }
  options_.expert_cache_bytes = record;
  EXPECT_EQ(Plan(file_, options_, port_.get(), &opened_), ACORN_OK);
  EXPECT_EQ(opened_.plan.expert_slots, 1u);
}

INSTANTIATE_TEST_SUITE_P(Models, SmallBlock,
                         testing::Values(Way{"w4g32_tied_groups", 0}, Way{"elastic_experts", 5}, Way{"state_space", 0},
                                         Way{"elastic_hybrid_experts", 2}),
                         [](const testing::TestParamInfo<Way> &way) { return way.param.spec; });

TEST(MemoryBlock, ATraceIsInThePlan) {
  const AlignedBytes file = BuildModel(VariedSpecs().front());
  acorn_options options = {};
  options.struct_size = sizeof options;
  Opened base, traced;
  ASSERT_EQ(Plan(file, options, nullptr, &base), ACORN_OK);
  options.flags = ACORN_OPEN_TRACE;
  ASSERT_EQ(Plan(file, options, nullptr, &traced), ACORN_OK);
  const auto model = GraphOf(file);
  const uint64_t digests = (model->body.size() + model->head.size()) * sizeof(uint64_t);
  EXPECT_EQ(traced.plan.model_bytes - base.plan.model_bytes, (digests + 63) / 64 * 64);
  EXPECT_EQ(traced.plan.session_bytes, base.plan.session_bytes);
  EXPECT_GE(traced.plan.scratch_bytes, base.plan.scratch_bytes);  // gates and ups have a place only where they are looked at
}

TEST(MemoryBlock, PlanGrowsWithWhatIsAsked) {
  const AlignedBytes file = BuildModel(VariedSpecs().front());
  acorn_options options = {};
  options.struct_size = sizeof options;
  Opened base, more;
  ASSERT_EQ(Plan(file, options, nullptr, &base), ACORN_OK);
  options.max_sessions = 3;
  ASSERT_EQ(Plan(file, options, nullptr, &more), ACORN_OK);
  EXPECT_EQ(more.plan.session_bytes, base.plan.session_bytes);
  EXPECT_GE(more.plan.block_bytes, base.plan.block_bytes + 2 * base.plan.session_bytes);
  options = {};
  options.struct_size = sizeof options;
  options.context_tokens = 16;
  ASSERT_EQ(Plan(file, options, nullptr, &more), ACORN_OK);
  EXPECT_LT(more.plan.session_bytes, base.plan.session_bytes);
  EXPECT_EQ(more.plan.context_tokens, 16u);
}

}  // namespace
}  // namespace acorn::test
