// The third promise: the plan is exact, nothing outside the block is touched, and nothing is allocated after open.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "acorn.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/recorded_model.h"
#include "tests/support/thread_port.h"

namespace {

std::atomic<bool> g_counting{false};
std::atomic<uint64_t> g_allocations{0};

void Count() {
  if (g_counting.load(std::memory_order_relaxed)) g_allocations.fetch_add(1);
}

}  // namespace

// glibc's own allocator under the names that everything in this process calls.
extern "C" {
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void *malloc(size_t bytes) {
  Count();
  return __libc_malloc(bytes);
}
void *calloc(size_t count, size_t bytes) {
  Count();
  return __libc_calloc(count, bytes);
}
void *realloc(void *old, size_t bytes) {
  Count();
  return __libc_realloc(old, bytes);
}
void *aligned_alloc(size_t alignment, size_t bytes) {
  Count();
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void **out, size_t alignment, size_t bytes) {
  Count();
  *out = __libc_memalign(alignment, bytes);
  return *out == nullptr ? 12 : 0;
}
}

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

class Memory : public testing::TestWithParam<ModelSpec> {};

TEST_P(Memory, StaysInsideTheBlockAndAllocatesNothing) {
  const AlignedBytes file = Recorded(BuildModel(GetParam()));
  for (const uint32_t features : FeatureLevels()) {
    for (const uint32_t chunk : {1u, 5u, 64u}) {
      // Unreadable pages touch the block's end, or its beginning.
      const Guard guard = chunk == 5 ? Guard::kBegin : Guard::kEnd;
      const ThreadPort port(features, 1);
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

      g_allocations = 0;
      g_counting = true;
      acorn_status status = Open(file, options, port.get(), block.data(), block.size(), &opened);
      if (status == ACORN_OK) status = acorn_session_open(&opened.session, opened.model);
      if (status == ACORN_OK) status = acorn_session_prefill(opened.session, tokens.data(), tokens.size());
      for (int i = 0; i < 3 && status == ACORN_OK; ++i) {
        int32_t token = 0;
        status = acorn_session_sample(opened.session, &token, &sampling);
        if (status == ACORN_OK) status = acorn_session_decode(opened.session, nullptr, token);
      }
      const auto ignore = [](void *, size_t, const int32_t *, size_t) { return 0; };
      if (status == ACORN_OK) status = acorn_session_rewind(opened.session, 3);
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
      g_counting = false;
      EXPECT_EQ(report.passed, chunk == 5 ? 1u : 0u);
      EXPECT_EQ(status, ACORN_OK) << acorn_status_text(status);
      EXPECT_EQ(g_allocations.load(), 0u);
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
  EXPECT_EQ(traced.plan.scratch_bytes, base.plan.scratch_bytes);
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
