// A conversation's state: what is kept, what a failed call leaves alone, what a rewind repeats.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/support/model_builder.h"
#include "tests/support/model_session.h"
#include "tests/support/thread_port.h"

namespace acorn::test {
namespace {

ModelSpec SmallSpec(uint32_t prefix_rows = 1) {
  ModelSpec spec = VariedSpecs().front();
  spec.prefix_rows = prefix_rows;
  return spec;
}

std::vector<int32_t> LastLogits(acorn_session *session, uint32_t vocab_size) {
  const int32_t *logits = nullptr;
  EXPECT_EQ(acorn_session_logits(session, &logits), ACORN_OK);
  return std::vector<int32_t>(logits, logits + vocab_size);
}

const std::vector<int32_t> kTokens = {5, 9, 1, 33, 2, 7, 7, 12, 40, 3};

ModelSpec SpecNamed(const char *name) {
  for (const ModelSpec &spec : VariedSpecs()) {
    if (spec.name == name) return spec;
  }
  ADD_FAILURE() << name;
  return {};
}

// Layers with states: alone, with caches between them, with experts.
constexpr const char *kStateSpace[] = {"state_space", "state_space_odd_widths", "state_space_hybrid", "state_space_hybrid_experts"};

TEST(Session, DecodeGivesWhatPrefillGives) {
  const ModelSpec spec = SmallSpec();
  const AlignedBytes file = BuildModel(spec);
  ModelSession whole(file), stepwise(file);
  ASSERT_EQ(acorn_session_prefill(whole.session(), kTokens.data(), kTokens.size()), ACORN_OK);
  const int32_t *logits = nullptr;
  for (const int32_t token : kTokens) ASSERT_EQ(acorn_session_decode(stepwise.session(), &logits, token), ACORN_OK);
  EXPECT_EQ(LastLogits(whole.session(), spec.vocab_size), std::vector<int32_t>(logits, logits + spec.vocab_size));
  EXPECT_EQ(acorn_session_position(stepwise.session()), kTokens.size());
}

// The linear layer's tasks hand gates and ups on; a trace, which looks at them, keeps their place.
TEST(Session, GatesAndUpsTakeNoMemory) {
  ModelSpec spec = SmallSpec();
  for (const uint32_t ffn : {512u, 520u}) {  // whole tiles of the weight's 16 channels, or not
    spec.ffn = ffn, spec.hadamard_block = 8;
    const AlignedBytes file = BuildModel(spec);
    acorn_options options = {};
    options.chunk_tokens = 32;
    ModelSession own(file, options);
    options.flags = ACORN_OPEN_TRACE;
    ModelSession traced(file, options);
    ASSERT_EQ(own.status(), ACORN_OK);
    ASSERT_EQ(traced.status(), ACORN_OK);
    const uint64_t gates = 32 * ffn * sizeof(int16_t), saved = traced.plan().scratch_bytes - own.plan().scratch_bytes;
    EXPECT_EQ(saved >= gates, ffn == 512) << saved;
    EXPECT_EQ(own.Score(kTokens), traced.Score(kTokens));
  }
}

TEST(Session, RewindRepeats) {
  const ModelSpec spec = SmallSpec();
  ModelSession session(BuildModel(spec));
  ASSERT_EQ(acorn_session_prefill(session.session(), kTokens.data(), kTokens.size()), ACORN_OK);
  const std::vector<int32_t> first = LastLogits(session.session(), spec.vocab_size);
  const std::vector<int32_t> detour = {60, 61, 62};
  ASSERT_EQ(acorn_session_rewind(session.session(), 4), ACORN_OK);
  const int32_t *logits = nullptr;
  EXPECT_EQ(acorn_session_logits(session.session(), &logits), ACORN_ERR_STATE);
  ASSERT_EQ(acorn_session_prefill(session.session(), detour.data(), detour.size()), ACORN_OK);
  EXPECT_NE(LastLogits(session.session(), spec.vocab_size), first);
  ASSERT_EQ(acorn_session_rewind(session.session(), 4), ACORN_OK);
  ASSERT_EQ(acorn_session_prefill(session.session(), kTokens.data() + 4, kTokens.size() - 4), ACORN_OK);
  EXPECT_EQ(LastLogits(session.session(), spec.vocab_size), first);
  EXPECT_EQ(acorn_session_rewind(session.session(), kTokens.size() + 1), ACORN_ERR_ARGUMENT);
  acorn_session_reset(session.session());
  EXPECT_EQ(acorn_session_position(session.session()), 0u);
  ASSERT_EQ(acorn_session_prefill(session.session(), kTokens.data(), kTokens.size()), ACORN_OK);
  EXPECT_EQ(LastLogits(session.session(), spec.vocab_size), first);
}

TEST(Session, AFullContextLosesNothing) {
  const ModelSpec spec = SmallSpec();
  acorn_options options = {};
  options.context_tokens = 12;
  ModelSession session(BuildModel(spec), options);
  ASSERT_EQ(acorn_session_prefill(session.session(), kTokens.data(), kTokens.size()), ACORN_OK);
  const std::vector<int32_t> before = LastLogits(session.session(), spec.vocab_size);
  EXPECT_EQ(acorn_session_prefill(session.session(), kTokens.data(), 3), ACORN_ERR_CONTEXT_FULL);
  EXPECT_EQ(acorn_session_position(session.session()), kTokens.size());
  EXPECT_EQ(LastLogits(session.session(), spec.vocab_size), before);
  EXPECT_EQ(acorn_session_prefill(session.session(), kTokens.data(), 2), ACORN_OK);
  EXPECT_EQ(acorn_session_decode(session.session(), nullptr, 1), ACORN_ERR_CONTEXT_FULL);
}

TEST(Session, AWrongTokenChangesNothing) {
  const ModelSpec spec = SmallSpec();
  ModelSession session(BuildModel(spec));
  const int32_t good = 1;
  ASSERT_EQ(acorn_session_prefill(session.session(), &good, 1), ACORN_OK);
  const std::vector<int32_t> before = LastLogits(session.session(), spec.vocab_size);
  for (const int32_t bad : {-1, static_cast<int32_t>(spec.vocab_size), INT32_MAX, INT32_MIN}) {
    const int32_t tokens[2] = {2, bad};
    EXPECT_EQ(acorn_session_prefill(session.session(), tokens, 2), ACORN_ERR_TOKEN);
    EXPECT_EQ(acorn_session_decode(session.session(), nullptr, bad), ACORN_ERR_TOKEN);
  }
  EXPECT_EQ(acorn_session_position(session.session()), 1u);
  EXPECT_EQ(LastLogits(session.session(), spec.vocab_size), before);
}

TEST(Session, CancelEndsOneCall) {
  const ModelSpec spec = SmallSpec();
  acorn_options options = {};
  options.chunk_tokens = 4;
  ModelSession session(BuildModel(spec), options);
  acorn_session_cancel(session.session());
  EXPECT_EQ(acorn_session_prefill(session.session(), kTokens.data(), kTokens.size()), ACORN_ERR_CANCELLED);
  EXPECT_EQ(acorn_session_position(session.session()), 0u);
  // One request ends one call.
  EXPECT_EQ(acorn_session_prefill(session.session(), kTokens.data(), kTokens.size()), ACORN_OK);
  acorn_session_reset(session.session());
  struct Stop {
    acorn_session *session;
    size_t rows;
  } stop = {session.session(), 0};
  const auto cancel = [](void *ctx, size_t, const int32_t *, size_t) {
    auto *state = static_cast<Stop *>(ctx);
    if (++state->rows == 2) acorn_session_cancel(state->session);
    return 0;
  };
  EXPECT_EQ(acorn_session_score(session.session(), kTokens.data(), kTokens.size(), cancel, &stop), ACORN_ERR_CANCELLED);
  // It is heard with the next row; the chunk is kept.
  EXPECT_EQ(acorn_session_position(session.session()), 4u);
  EXPECT_EQ(stop.rows, 2u);
}

// Rows of logits are written over block by block: where a block is not handed over whole, none of it is the last token's.
TEST(Session, AScoreThatItsCallbackEndsLeavesNoLogits) {
  acorn_options options = {};
  options.chunk_tokens = 8;
  options.logit_rows = 2;
  ModelSession session(BuildModel(SmallSpec()), options);
  size_t rows = 0;
  const auto stop = [](void *ctx, size_t, const int32_t *, size_t) { return ++*static_cast<size_t *>(ctx) == 3 ? 1 : 0; };
  EXPECT_EQ(acorn_session_score(session.session(), kTokens.data(), kTokens.size(), stop, &rows), ACORN_ERR_CANCELLED);
  const int32_t *logits = nullptr;
  EXPECT_EQ(acorn_session_logits(session.session(), &logits), ACORN_ERR_STATE);
}

TEST(Session, SessionsAreIndependent) {
  const ModelSpec spec = SmallSpec(0);
  acorn_options options = {};
  options.max_sessions = 2;
  ModelSession model(BuildModel(spec), options);
  acorn_session *second = nullptr, *third = nullptr;
  ASSERT_EQ(acorn_session_open(&second, model.model()), ACORN_OK);
  EXPECT_EQ(acorn_session_open(&third, model.model()), ACORN_ERR_STATE);
  ASSERT_EQ(acorn_session_prefill(model.session(), kTokens.data(), kTokens.size()), ACORN_OK);
  const std::vector<int32_t> alone = LastLogits(model.session(), spec.vocab_size);
  acorn_session_reset(model.session());
  for (size_t i = 0; i < kTokens.size(); ++i) {
    ASSERT_EQ(acorn_session_decode(model.session(), nullptr, kTokens[i]), ACORN_OK);
    ASSERT_EQ(acorn_session_decode(second, nullptr, static_cast<int32_t>(20 + i)), ACORN_OK);
  }
  EXPECT_EQ(LastLogits(model.session(), spec.vocab_size), alone);
  acorn_session_close(second);
  EXPECT_EQ(acorn_session_open(&third, model.model()), ACORN_OK);
}

TEST(Session, SamplingIsRepeatable) {
  const ModelSpec spec = SmallSpec();
  acorn_sampling sampling = {};
  sampling.struct_size = sizeof sampling;
  sampling.temperature_q16 = 65536;
  sampling.top_k = 20;
  sampling.seed = 42;
  std::vector<std::vector<int32_t>> runs;
  for (const uint32_t features : FeatureLevels()) {
    ThreadPort port(features, 2);
    ModelSession session(BuildModel(spec), {}, port.get());
    int32_t token = 0;
    EXPECT_EQ(acorn_session_sample(session.session(), &token, &sampling), ACORN_ERR_STATE);
    ASSERT_EQ(acorn_session_prefill(session.session(), kTokens.data(), kTokens.size()), ACORN_OK);
    std::vector<int32_t> run;
    for (int i = 0; i < 20; ++i) {
      ASSERT_EQ(acorn_session_sample(session.session(), &token, &sampling), ACORN_OK);
      run.push_back(token);
      ASSERT_EQ(acorn_session_decode(session.session(), nullptr, token), ACORN_OK);
    }
    runs.push_back(run);
  }
  for (const auto &run : runs) EXPECT_EQ(run, runs.front());
}

TEST(Session, ALogitHookSeesACopy) {
  const ModelSpec spec = SmallSpec();
  ModelSession session(BuildModel(spec));
  ASSERT_EQ(acorn_session_prefill(session.session(), kTokens.data(), kTokens.size()), ACORN_OK);
  const std::vector<int32_t> before = LastLogits(session.session(), spec.vocab_size);
  const auto only_17 = [](void *, int32_t *logits, size_t vocab_size) {
    for (size_t i = 0; i < vocab_size; ++i) logits[i] = i == 17 ? 0 : -2147483647;
  };
  acorn_session_set_logit_hook(session.session(), only_17, nullptr);
  acorn_sampling greedy = {};
  greedy.struct_size = sizeof greedy;
  int32_t token = -1;
  ASSERT_EQ(acorn_session_sample(session.session(), &token, &greedy), ACORN_OK);
  EXPECT_EQ(token, 17);
  EXPECT_EQ(LastLogits(session.session(), spec.vocab_size), before);
}

TEST(Session, ArgumentsAreChecked) {
  const ModelSpec spec = SmallSpec();
  const AlignedBytes file = BuildModel(spec);
  acorn_options options = {};
  options.context_tokens = spec.max_context + 1;
  EXPECT_EQ(ModelSession(file, options).status(), ACORN_ERR_ARGUMENT);
  options = {};
  options.chunk_tokens = 1025;
  EXPECT_EQ(ModelSession(file, options).status(), ACORN_ERR_ARGUMENT);
  options = {};
  options.flags = 0x80000000u;
  EXPECT_EQ(ModelSession(file, options).status(), ACORN_ERR_ARGUMENT);
  ModelSession session(file);
  EXPECT_EQ(acorn_session_prefill(session.session(), nullptr, 3), ACORN_ERR_ARGUMENT);
  EXPECT_EQ(acorn_session_prefill(session.session(), kTokens.data(), 0), ACORN_ERR_ARGUMENT);
  size_t count = 0;
  EXPECT_EQ(acorn_tokenize(session.model(), nullptr, 0, &count, "x", 1, 0), ACORN_ERR_TEXT);
  EXPECT_EQ(acorn_session_append_text(session.session(), "x", 1, 8), ACORN_ERR_ARGUMENT);
}

TEST(Session, StatesGoBackToWhereTheyWere) {
  for (const char *name : kStateSpace) {
    const ModelSpec spec = SpecNamed(name);
    acorn_options options = {};
    options.chunk_tokens = 3;
    options.flags = ACORN_OPEN_TRACE;
    ModelSession session(BuildModel(spec), options);
    const std::vector<int32_t> first = session.Score(kTokens);
    ASSERT_EQ(session.status(), ACORN_OK) << name;
    // To every position, on a detour, and back again.
    for (size_t position = 0; position < kTokens.size(); ++position) {
      ASSERT_EQ(acorn_session_rewind(session.session(), position), ACORN_OK);
      EXPECT_EQ(acorn_session_position(session.session()), position);
      const std::vector<int32_t> detour = {6, 11, 2, 30};
      session.Score(detour);
      ASSERT_EQ(acorn_session_rewind(session.session(), position + 2), ACORN_OK);
      ASSERT_EQ(acorn_session_rewind(session.session(), position), ACORN_OK);
      const std::vector<int32_t> rest = session.Score({kTokens.begin() + static_cast<std::ptrdiff_t>(position), kTokens.end()});
      EXPECT_TRUE(std::equal(rest.begin(), rest.end(), first.end() - static_cast<std::ptrdiff_t>(rest.size()), first.end()))
          << name << ", position " << position;
    }
    acorn_session_reset(session.session());
    EXPECT_EQ(session.Score(kTokens), first) << name;
  }
}

// What is computed again for the states' sake is in neither the trace nor the hook.
TEST(Session, StatesCatchUpUnseen) {
  for (const char *name : kStateSpace) {
    const ModelSpec spec = SpecNamed(name);
    acorn_options options = {};
    options.chunk_tokens = 4;
    options.flags = ACORN_OPEN_TRACE;
    ModelSession once(BuildModel(spec), options), twice(BuildModel(spec), options);
    size_t calls[2] = {0, 0};
    const auto count = [](void *ctx, uint32_t, const acorn_route *, size_t tokens, size_t) { *static_cast<size_t *>(ctx) += tokens; };
    acorn_session_set_routing_hook(once.session(), count, &calls[0]);
    ASSERT_EQ(acorn_session_prefill(once.session(), kTokens.data(), 8), ACORN_OK);
    ASSERT_EQ(acorn_session_prefill(twice.session(), kTokens.data(), 10), ACORN_OK);
    ASSERT_EQ(acorn_session_rewind(twice.session(), 8), ACORN_OK);
    acorn_session_set_routing_hook(twice.session(), count, &calls[1]);
    calls[0] = 0;
    for (ModelSession *session : {&once, &twice}) {
      acorn_model_trace_reset(session->model());
      ASSERT_EQ(acorn_session_decode(session->session(), nullptr, 17), ACORN_OK);
    }
    EXPECT_EQ(calls[0], calls[1]) << name;
    acorn_trace_row a = {}, b = {};
    a.struct_size = b.struct_size = sizeof a;
    size_t rows = 0;
    for (; acorn_model_trace(once.model(), &a, rows) == ACORN_OK; ++rows) {
      ASSERT_EQ(acorn_model_trace(twice.model(), &b, rows), ACORN_OK);
      EXPECT_EQ(a.digest, b.digest) << name << ", " << a.op << " of layer " << a.layer;
    }
    EXPECT_GT(rows, 10u);
    EXPECT_EQ(LastLogits(once.session(), spec.vocab_size), LastLogits(twice.session(), spec.vocab_size));
  }
}

TEST(Session, ACancelledCatchUpGoesOn) {
  const ModelSpec spec = SpecNamed("state_space_hybrid");
  acorn_options options = {};
  options.chunk_tokens = 2;
  ModelSession session(BuildModel(spec), options);
  const std::vector<int32_t> first = session.Score(kTokens);
  ASSERT_EQ(acorn_session_rewind(session.session(), 9), ACORN_OK);
  acorn_session_cancel(session.session());
  EXPECT_EQ(acorn_session_decode(session.session(), nullptr, kTokens[9]), ACORN_ERR_CANCELLED);
  EXPECT_EQ(acorn_session_position(session.session()), 9u);
  ASSERT_EQ(acorn_session_decode(session.session(), nullptr, kTokens[9]), ACORN_OK);
  const std::vector<int32_t> last(first.end() - spec.vocab_size, first.end());
  EXPECT_EQ(LastLogits(session.session(), spec.vocab_size), last);
}

TEST(Session, StatesAreInThePlanWhateverTheContext) {
  ModelSpec spec = SpecNamed("state_space");
  // Of each layer: 3 rows of 32 + 2 · 2 · 16 columns in 16 bits, and 32 channels of 16 in 32 bits.
  const uint64_t expected = 3 * (3 * 96 * 2 + 32 * 16 * 4);
  spec.max_context = 1 << 20;  // more than rows of a cache
  const AlignedBytes file = BuildModel(spec);
  uint64_t session_bytes = 0;
  for (const uint32_t context : {100u, 1000u, 100000u, 1u << 20}) {
    acorn_options options = {};
    options.context_tokens = context;
    const ModelSession session(file, options);
    ASSERT_EQ(session.status(), ACORN_OK);
    EXPECT_EQ(session.plan().state_bytes, expected);
    const uint64_t rest = session.plan().session_bytes - (context * sizeof(int32_t) + 63) / 64 * 64;  // its tokens' ids
    if (session_bytes != 0) {
      EXPECT_EQ(rest, session_bytes);
    }
    session_bytes = rest;
  }
  spec = SpecNamed("w8_plain");
  EXPECT_EQ(ModelSession(BuildModel(spec)).plan().state_bytes, 0u);
  spec.max_context = 65537;
  EXPECT_EQ(ModelSession(BuildModel(spec)).status(), static_cast<acorn_status>(ACORN_ERR_INVALID));
}

TEST(Session, LayersAreCountedWithTheirStates) {
  for (const char *name : kStateSpace) {
    const ModelSpec spec = SpecNamed(name);
    ModelSession session(BuildModel(spec));
    acorn_model_info info = {};
    info.struct_size = sizeof info;
    ASSERT_EQ(acorn_model_get_info(session.model(), &info), ACORN_OK);
    EXPECT_EQ(info.layers, spec.layers) << name;
  }
}

}  // namespace
}  // namespace acorn::test
