// Guessed tokens: what LookUp finds, and that a generation with guesses is the one without, in every logit.
#include "session/lookup.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/support/model_builder.h"
#include "tests/support/model_session.h"
#include "tests/support/thread_port.h"

namespace acorn::test {
namespace {

using Ids = std::vector<int32_t>;

Ids Found(Ids tokens, size_t most) {
  const size_t count = tokens.size();
  tokens.resize(count + most, -1);
  const size_t found = LookUp(Span<int32_t>(tokens.data(), tokens.size()), count, nullptr);
  EXPECT_LE(found, most);
  for (size_t i = count + found; i < tokens.size(); ++i) EXPECT_EQ(tokens[i], -1);
  return {tokens.begin() + static_cast<int64_t>(count), tokens.begin() + static_cast<int64_t>(count + found)};
}

TEST(LookUp, WhatFollowedWhereMoreWasEqual) {
  EXPECT_EQ(Found({1, 2, 3, 4, 9, 3, 5, 8, 1, 2, 3}, 2), (Ids{4, 9}));  // 8 votes of 12, of that 16 of 18
  EXPECT_EQ(Found({2, 3, 4, 9, 3, 5, 8, 2, 3}, 2), (Ids{4, 9}));        // 4 of 8, of that 8 of 10: just 0.4
  EXPECT_EQ(Found({2, 3, 4, 9, 3, 5, 6, 3, 7, 8, 2, 3}, 2), (Ids{4}));  // 4 of 10, of that 8 of 10
}

TEST(LookUp, WhatFollowedMoreOften) {
  EXPECT_EQ(Found({2, 3, 4, 9, 2, 3, 5, 8, 2, 3, 4, 7, 2, 3}, 1), (Ids{4}));
  EXPECT_EQ(Found({0, 1, 2, 7, 8, 1, 2, 8, 9, 1, 2}, 1), (Ids{8}));                     // one against one: the latest
  EXPECT_EQ(Found({0, 1, 2, 7, 8, 1, 2, 8, 5, 1, 2, 6, 9, 1, 2}, 1), Ids());            // each 4 votes of 14
}

TEST(LookUp, NothingOnceItIsStopped) {
  Ids tokens = {1, 2, 3, 4, 1, 2, 3, -1};
  Stop stop;
  EXPECT_EQ(LookUp(Span<int32_t>(tokens.data(), tokens.size()), 7, &stop), 1u);
  EXPECT_EQ(tokens.back(), 4);
  stop.Ask(Stop::kCancel);
  EXPECT_EQ(LookUp(Span<int32_t>(tokens.data(), tokens.size()), 7, &stop), 0u);
  EXPECT_TRUE(stop.IsAsked());  // for the call that it ends
}

TEST(LookUp, NothingWithoutALikelyPlace) {
  EXPECT_EQ(Found({}, 3), Ids());
  EXPECT_EQ(Found({1}, 3), Ids());
  EXPECT_EQ(Found({1, 2, 3}, 3), Ids());
  EXPECT_EQ(Found({1, 2, 1, 2}, 0), Ids());
  EXPECT_EQ(Found({1, 2, 1, 3, 1, 4, 1}, 3), Ids());
}

TEST(LookUp, GoesRoundWhereWhatFollowedReachesUpToNow) {
  EXPECT_EQ(Found({5, 5, 5, 5, 5}, 4), (Ids{5, 5, 5, 5}));
  EXPECT_EQ(Found({1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2}, 5), (Ids{3, 1, 2, 3, 1}));
}

TEST(LookUp, MoreThanItCountsIsNoFollower) {
  Ids tokens;
  for (int32_t i = 0; i < 40; ++i) tokens.insert(tokens.end(), {1, 2, 100 + i});
  tokens.insert(tokens.end(), {1, 2});
  EXPECT_EQ(Found(tokens, 4), Ids());
}

TEST(LookUp, CountsNoFurtherThanTheLongestMatch) {
  Ids tokens;
  for (const int32_t follower : {100, 101, 101}) {
    for (int32_t i = 0; i < 12; ++i) tokens.push_back(follower == 100 || i > 2 ? i : 50 + i);  // 100 stands behind twelve, 101 behind nine
    tokens.push_back(follower);
  }
  for (int32_t i = 0; i < 12; ++i) tokens.push_back(i);
  EXPECT_EQ(Found(tokens, 1), (Ids{101}));
}

struct Answer {
  Ids ids, logits;  // of every token
  uint32_t reason = 0;
  size_t count = 0;
  acorn_timings timings = {};
};

Answer Generated(ModelSession *session, const Ids &prompt, acorn_generation generation) {
  Answer answer;
  struct Context {
    acorn_session *session;
    size_t vocab, kept;
    Answer *answer;
  } context = {session->session(), 0, 0, &answer};
  acorn_model_info info = {};
  info.struct_size = sizeof info;
  EXPECT_EQ(acorn_model_get_info(session->model(), &info), ACORN_OK);
  context.vocab = info.vocab_size;
  context.kept = info.max_context;
  if (session->plan().endless != 0 && generation.max_tokens == 0) generation.max_tokens = 4 * info.max_context;
  generation.struct_size = sizeof generation;
  generation.sampling.struct_size = sizeof generation.sampling;
  generation.ctx = &context;
  generation.callback = [](void *ctx, int32_t token, const char *, size_t) {
    const Context &to = *static_cast<Context *>(ctx);
    to.answer->ids.push_back(token);
    const int32_t *logits = nullptr;
    EXPECT_EQ(acorn_session_logits(to.session, &logits), ACORN_OK);
    to.answer->logits.insert(to.answer->logits.end(), logits, logits + to.vocab);
    EXPECT_EQ(acorn_session_tokens(to.session)[std::min<size_t>(acorn_session_position(to.session), to.kept) - 1], token);
    return 0;
  };
  EXPECT_EQ(acorn_session_prefill(session->session(), prompt.data(), prompt.size()), ACORN_OK);
  EXPECT_EQ(acorn_session_generate(session->session(), &answer.reason, &answer.count, &generation), ACORN_OK);
  answer.timings.struct_size = sizeof answer.timings;
  EXPECT_EQ(acorn_session_timings(session->session(), &answer.timings), ACORN_OK);
  return answer;
}

class Drafts : public testing::TestWithParam<ModelSpec> {};

// Text that repeats: a model of random weights then does too, or is wrong about it.
Ids RepeatingPrompt() {
  Ids prompt;
  for (int32_t i = 0; i < 18; ++i) prompt.push_back(3 + i % 6);
  return prompt;
}

struct Case {
  uint32_t temperature, penalty, max_tokens, drafts, threads;
};

TEST_P(Drafts, ChangeNoAnswer) {
  const AlignedBytes file = BuildModel(GetParam());
  const Ids prompt = RepeatingPrompt();
  for (const Case &one : {Case{0, 65536, 0, 3, 1}, Case{65536, 72090, 11, 7, 3}}) {
    acorn_generation generation = {};
    generation.max_tokens = one.max_tokens;
    generation.sampling.temperature_q16 = one.temperature;
    generation.sampling.repetition_penalty_q16 = one.penalty;
    generation.sampling.seed = 5;
    ModelSession plain(file);
    ASSERT_EQ(plain.status(), ACORN_OK);
    const Answer expected = Generated(&plain, prompt, generation);
    EXPECT_EQ(expected.timings.drafted_tokens, 0u);
    acorn_options options = {};
    options.logit_rows = one.drafts + 1;
    options.chunk_tokens = 8;
    ThreadPort port(0, one.threads);
    ModelSession session(file, options, port.get());
    ASSERT_EQ(session.status(), ACORN_OK);
    generation.draft_tokens = one.drafts;
    const Answer answer = Generated(&session, prompt, generation);
    EXPECT_EQ(answer.ids, expected.ids);
    EXPECT_EQ(answer.logits, expected.logits);
    EXPECT_EQ(answer.reason, expected.reason);
    EXPECT_EQ(answer.count, expected.count);
    EXPECT_EQ(answer.timings.decode_tokens, expected.timings.decode_tokens);
    EXPECT_LE(answer.timings.accepted_tokens, answer.timings.drafted_tokens);
    if (session.plan().state_bytes != 0) {
      EXPECT_EQ(answer.timings.drafted_tokens, 0u);
    }
    // The conversation is the same too: rewound, as far as windows and states reach, it goes on as the other one does.
    for (ModelSession *rewound : {&plain, &session}) {
      const size_t end = acorn_session_position(rewound->session()), back = session.plan().state_bytes == 0 ? end - 2 : end;
      const size_t to = GetParam().windows.empty() ? prompt.size() + 2 : back;
      ASSERT_EQ(acorn_session_rewind(rewound->session(), to), ACORN_OK);
    }
    EXPECT_EQ(session.Score({9, 4, 9, 4}), plain.Score({9, 4, 9, 4}));
  }
}

INSTANTIATE_TEST_SUITE_P(Specs, Drafts, testing::ValuesIn(VariedSpecs()),
                         [](const testing::TestParamInfo<ModelSpec> &spec) { return spec.param.name; });

TEST(DraftsCount, AndAreRightWhereTextRepeats) {
  acorn_options options = {};
  options.logit_rows = 8;
  acorn_generation generation = {};
  generation.sampling.repetition_penalty_q16 = 65536;
  generation.draft_tokens = 7;
  uint64_t drafted = 0, accepted = 0;
  for (const ModelSpec &spec : VariedSpecs()) {
    ModelSession session(BuildModel(spec), options);
    ASSERT_EQ(session.status(), ACORN_OK);
    const Answer answer = Generated(&session, RepeatingPrompt(), generation);
    drafted += answer.timings.drafted_tokens;
    accepted += answer.timings.accepted_tokens;
  }
  EXPECT_GT(accepted, 100u);
  EXPECT_LT(accepted, drafted);
}

TEST(DraftsFit, IntoTheChunkAndTheRowsOfLogits) {
  const AlignedBytes file = BuildModel(ModelSpec());
  for (const bool rows : {true, false}) {
    acorn_options options = {};
    options.logit_rows = rows ? 4 : 8;
    options.chunk_tokens = rows ? 8 : 4;
    ModelSession session(file, options);
    ASSERT_EQ(session.status(), ACORN_OK);
    const Ids prompt = {1, 2, 1, 2};
    ASSERT_EQ(acorn_session_prefill(session.session(), prompt.data(), prompt.size()), ACORN_OK);
    acorn_generation generation = {};
    generation.struct_size = sizeof generation;
    generation.sampling.struct_size = sizeof generation.sampling;
    generation.max_tokens = 4;
    generation.draft_tokens = 4;
    EXPECT_EQ(acorn_session_generate(session.session(), nullptr, nullptr, &generation), ACORN_ERR_ARGUMENT);
    EXPECT_EQ(acorn_session_position(session.session()), prompt.size());
    generation.draft_tokens = 3;
    EXPECT_EQ(acorn_session_generate(session.session(), nullptr, nullptr, &generation), ACORN_OK);
  }
}

}  // namespace
}  // namespace acorn::test
