// Conversations without an end: windows of attention in every layer, rings of keys and values that turn many times, ids of the
// newest tokens alone. The reference (tests/reference) keeps all rows and looks at those in the window.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "session/session.h"
#include "tests/reference/reference_model.h"
#include "tests/support/model_builder.h"
#include "tests/support/model_session.h"
#include "tests/support/thread_port.h"

namespace acorn::test {
namespace {

using Ids = std::vector<int32_t>;
using Bytes = std::vector<uint8_t>;
constexpr acorn_status kOk = ACORN_OK;
constexpr acorn_status kRefill = ACORN_ERR_REFILL;

ModelSpec EndlessSpec(std::vector<uint32_t> windows) {
  ModelSpec spec = VariedSpecs().front();
  spec.windows = std::move(windows);
  spec.prefix_rows = 2;
  spec.max_context = 40;
  return spec;
}

Ids SomeTokens(const ModelSpec &spec, size_t count) {
  Random random(11);
  Ids tokens(count);
  for (int32_t &token : tokens) token = static_cast<int32_t>(random.Between(0, spec.vocab_size - 1));
  return tokens;
}

Ids Part(const Ids &ids, size_t begin, size_t end) {
  return {ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.begin() + static_cast<std::ptrdiff_t>(end)};
}

Ids ReferenceLogits(const AlignedBytes &file, const Ids &tokens) {
  return reference::ReferenceModel(std::vector<uint8_t>(file.data(), file.data() + file.size())).Logits(tokens);
}

acorn_options WithChunk(uint32_t chunk) {
  acorn_options options = {};
  options.chunk_tokens = chunk;
  return options;
}

Bytes Saved(acorn_session *session) {
  Bytes bytes(acorn_session_snapshot_bytes(session));
  EXPECT_EQ(acorn_session_save(session, bytes.data(), bytes.size()), kOk);
  return bytes;
}

Session *Inside(ModelSession *session) { return reinterpret_cast<Session *>(session->session()); }

// Windows around the edges of chunks and tiles; every conversation turns each ring several times.
TEST(Endless, EqualsTheReferenceForEveryWindowAndChunk) {
  for (const uint32_t bits : {8u, 4u}) {
    for (const uint32_t window : {1u, 2u, 6u, 7u, 8u, 15u, 16u, 17u, 40u, 100u}) {
      ModelSpec spec = EndlessSpec({window, 33});
      spec.kv_bits = bits;
      const AlignedBytes file = BuildModel(spec);
      const Ids tokens = SomeTokens(spec, 3 * (window + 33)), expected = ReferenceLogits(file, tokens);
      for (const uint32_t chunk : {1u, 7u, 16u, 40u}) {
        ModelSession session(file, WithChunk(chunk));
        ASSERT_EQ(session.status(), kOk) << acorn_status_text(session.status());
        EXPECT_EQ(session.plan().endless, 1u);
        EXPECT_EQ(acorn_session_capacity(session.session()), UINT64_MAX);
        const Ids logits = session.Score(tokens);
        ASSERT_EQ(session.status(), kOk);
        ASSERT_TRUE(logits == expected) << "bits " << bits << " window " << window << " chunk " << chunk;
        EXPECT_EQ(acorn_session_position(session.session()), tokens.size());
        const size_t kept = std::min<size_t>(tokens.size(), spec.max_context);
        const int32_t *ids = acorn_session_tokens(session.session());
        EXPECT_TRUE(std::equal(ids, ids + kept, tokens.end() - static_cast<std::ptrdiff_t>(kept)));
      }
    }
  }
}

// Without RoPE's second query, without sinks, beside experts and states, at rates, on every instruction set, with threads.
TEST(Endless, AllKindsOfModels) {
#if defined(ACORN_EMULATED)  // takes a minute for all of them
  constexpr size_t kStride = 4;
#else
  constexpr size_t kStride = 1;
#endif
  const std::vector<ModelSpec> all = VariedSpecs();
  for (size_t i = 0; i < all.size(); i += kStride) {
    ModelSpec spec = all[i];
    spec.windows = {9, 20};
    if (spec.mixers == std::vector<Mixer>{Mixer::kStateSpace}) continue;
    const AlignedBytes file = BuildModel(spec);
    const Ids tokens = SomeTokens(spec, 80), expected = ReferenceLogits(file, tokens);
    for (const uint32_t features : FeatureLevels()) {
      ThreadPort port(features, 2);
      ModelSession session(file, WithChunk(11), port.get());
      ASSERT_EQ(session.plan().endless, 1u);
      ASSERT_TRUE(session.Score(tokens) == expected) << spec.name << " " << features;
    }
  }
}

TEST(Endless, RatesSwitchInTheMiddleOfATurn) {
  ModelSpec spec;
  for (const ModelSpec &elastic : ElasticSpecs()) {
    if (elastic.name == "elastic_window") spec = elastic;
  }
  const AlignedBytes file = BuildModel(spec);
  const Ids tokens = SomeTokens(spec, 200);
  const auto talk = [&](ModelSession *session, bool switches) {
    Ids all = session->Score(Part(tokens, 0, 77));
    for (size_t i = 0; i < spec.profiles.size(); ++i) {
      if (switches) {
        EXPECT_EQ(acorn_session_set_rate(session->session(), spec.profiles[i].rate), kOk);
      }
      const Ids more = session->Score(Part(tokens, 77 + 50 * i, 127 + 50 * i));
      all.insert(all.end(), more.begin(), more.end());
    }
    return all;
  };
  ModelSession first(file, WithChunk(64)), same(file, WithChunk(64));
  const Ids expected = talk(&first, true);
  EXPECT_NE(expected, talk(&same, false));
  EXPECT_EQ(acorn_session_set_rate(first.session(), 0), kRefill);
  for (const uint32_t features : FeatureLevels()) {
    for (const uint32_t chunk : {1u, 5u, 17u}) {
      ThreadPort port(features, 3);
      ModelSession session(file, WithChunk(chunk), port.get());
      EXPECT_TRUE(talk(&session, true) == expected) << features << " " << chunk;
      EXPECT_EQ(Saved(session.session()), Saved(first.session()));
    }
  }
}

// The plan is what a ring takes, whatever is said of the context.
TEST(Endless, MemoryDoesNotGrow) {
  ModelSpec spec = EndlessSpec({50});
  spec.max_context = 20000;
  const AlignedBytes file = BuildModel(spec);
  const ModelSession endless(file, WithChunk(16));
  ASSERT_EQ(endless.status(), kOk);
  EXPECT_EQ(endless.plan().context_tokens, 20000u);
  uint64_t cache_bytes = 0;  // beside the ids
  for (const uint32_t context : {1000u, 20000u}) {
    acorn_options options = WithChunk(16);
    options.context_tokens = context;
    ModelSession session(file, options);
    EXPECT_EQ(session.plan().endless, 0u);
    EXPECT_EQ(acorn_session_capacity(session.session()), context);
    const uint64_t bytes = session.plan().session_bytes - 4 * context;
    if (cache_bytes != 0) {
      EXPECT_NEAR(static_cast<double>(bytes), static_cast<double>(cache_bytes), 64);  // padding of the ids
    }
    cache_bytes = bytes;
    EXPECT_EQ(session.plan().scratch_bytes, endless.plan().scratch_bytes);
    const Ids too_many(context + 1, 3);
    EXPECT_EQ(acorn_session_prefill(session.session(), too_many.data(), too_many.size()), ACORN_ERR_CONTEXT_FULL);
  }
  // Of a window that reaches beyond the context, no more rows than that has.
  acorn_options options = WithChunk(16);
  options.context_tokens = 20;
  const ModelSession small(file, options);
  EXPECT_LT(small.plan().session_bytes, cache_bytes);
}

TEST(Endless, WindowsInSomeLayersKeepTheEnd) {
  ModelSpec spec = EndlessSpec({0, 12});
  const AlignedBytes file = BuildModel(spec);
  ModelSession session(file, WithChunk(8));
  EXPECT_EQ(session.plan().endless, 0u);
  const Ids tokens = SomeTokens(spec, spec.max_context);
  EXPECT_EQ(session.Score(tokens), ReferenceLogits(file, tokens));
  EXPECT_EQ(acorn_session_decode(session.session(), nullptr, 1), ACORN_ERR_CONTEXT_FULL);
}

// Back by a chunk always, to the start always, farther as long as nothing is gone; never to anything else than what was.
TEST(Endless, RewindsAsFarAsMemoryReaches) {
  const ModelSpec spec = EndlessSpec({20, 9});
  const AlignedBytes file = BuildModel(spec);
  const Ids tokens = SomeTokens(spec, 300);
  const Ids expected = ReferenceLogits(file, tokens);
  size_t refused = 0, allowed = 0;
  for (const uint32_t chunk : {1u, 8u, 24u}) {
    for (const size_t fed : {size_t{10}, size_t{30}, size_t{61}, size_t{170}, size_t{299}}) {
      for (size_t to = 0; to < fed; ++to) {
        ModelSession session(file, WithChunk(chunk));
        session.Score(Part(tokens, 0, fed));
        const Bytes before = Saved(session.session());
        const acorn_status status = acorn_session_rewind(session.session(), to);
        if (status != kOk) {
          ++refused;
          ASSERT_EQ(status, kRefill);
          ASSERT_TRUE(fed - to > chunk && to != 0 && fed > 20) << chunk << " " << fed << " " << to;
          ASSERT_EQ(Saved(session.session()), before);
          to += to + chunk + 2 < fed ? (fed - to) / 3 : 0;  // not all of those far away
          continue;
        }
        ++allowed;
        const size_t end = std::min<size_t>(fed + 30, tokens.size());
        ASSERT_TRUE(session.Score(Part(tokens, to, end)) == Part(expected, to * spec.vocab_size, end * spec.vocab_size))
            << chunk << " " << fed << " " << to;
      }
    }
  }
  EXPECT_GT(refused, 20u);
  EXPECT_GT(allowed, 100u);
}

// One place back and forth, over what was taken back before: the rows of tokens that are gone stay gone.
TEST(Endless, ARewindDoesNotBringBackWhatARewindLost) {
  const ModelSpec spec = EndlessSpec({20});
  const AlignedBytes file = BuildModel(spec);
  const Ids tokens = SomeTokens(spec, 100);
  ModelSession session(file, WithChunk(16));
  session.Score(Part(tokens, 0, 60));
  ASSERT_EQ(acorn_session_rewind(session.session(), 44), kOk);
  EXPECT_EQ(acorn_session_rewind(session.session(), 30), kRefill);
  const Ids expected = ReferenceLogits(file, tokens);
  EXPECT_EQ(session.Score(Part(tokens, 44, 50)), Part(expected, 44 * spec.vocab_size, 50 * spec.vocab_size));
  EXPECT_EQ(acorn_session_rewind(session.session(), 30), kRefill);
  ASSERT_EQ(acorn_session_rewind(session.session(), 0), kOk);
  EXPECT_EQ(session.Score(tokens), expected);
  ASSERT_EQ(acorn_session_rewind(session.session(), 84), kOk);
}

TEST(Endless, StatesSeeAllTokensAgainWhileTheirIdsAreThere) {
  ModelSpec spec = EndlessSpec({11});
  spec.mixers = {Mixer::kStateSpace, Mixer::kAttention};
  const AlignedBytes file = BuildModel(spec);
  const Ids tokens = SomeTokens(spec, 200), expected = ReferenceLogits(file, tokens);
  for (const uint32_t chunk : {1u, 13u}) {
    ModelSession session(file, WithChunk(chunk));
    session.Score(Part(tokens, 0, 40));
    ASSERT_EQ(acorn_session_rewind(session.session(), 3), kOk);
    EXPECT_TRUE(session.Score(Part(tokens, 3, 200)) == Part(expected, 3 * spec.vocab_size, expected.size()));
    EXPECT_EQ(acorn_session_rewind(session.session(), 199), kRefill);
    EXPECT_EQ(acorn_session_position(session.session()), 200u);
    ASSERT_EQ(acorn_session_rewind(session.session(), 0), kOk);
    EXPECT_TRUE(session.Score(tokens) == expected);
  }
}

// Whatever the chunk, in the middle of any turn; and what is loaded goes on with the same bits.
TEST(Endless, SnapshotsHoldTheRingInTheOrderOfItsTokens) {
  const ModelSpec spec = EndlessSpec({20, 9});
  const AlignedBytes file = BuildModel(spec);
  const Ids tokens = SomeTokens(spec, 330), expected = ReferenceLogits(file, tokens);
  ModelSession saved(file, WithChunk(1));
  size_t done = 0;
  for (const size_t length : {3, 19, 20, 21, 47, 120, 121, 255, 300}) {
    saved.Score(Part(tokens, done, length));
    done = length;
    const Bytes snapshot = Saved(saved.session());
    for (const uint32_t chunk : {4u, 24u}) {
      ModelSession whole(file, WithChunk(chunk)), loaded(file, WithChunk(chunk));
      whole.Score(Part(tokens, 0, length));
      EXPECT_EQ(Saved(whole.session()), snapshot) << length << " " << chunk;
      loaded.Score(Part(tokens, 5, 100));
      ASSERT_EQ(acorn_session_load(loaded.session(), snapshot.data(), snapshot.size()), kOk);
      EXPECT_EQ(acorn_session_position(loaded.session()), length);
      EXPECT_EQ(Saved(loaded.session()), snapshot);
      EXPECT_TRUE(loaded.Score(Part(tokens, length, 330)) == Part(expected, length * spec.vocab_size, expected.size()));
      // A bounded session takes what it has room for.
      acorn_options options = WithChunk(chunk);
      options.context_tokens = 30;
      ModelSession bounded(file, options);
      EXPECT_EQ(acorn_session_load(bounded.session(), snapshot.data(), snapshot.size()),
                length <= 30 ? kOk : static_cast<acorn_status>(ACORN_ERR_CONTEXT_FULL));
    }
  }
}

// The penalty sees the newest ids, as many for any chunk and any path to there.
TEST(Endless, SamplingSeesTheSameIds) {
  const ModelSpec spec = EndlessSpec({20});
  const AlignedBytes file = BuildModel(spec);
  const Ids tokens = SomeTokens(spec, 400);
  Ids expected;
  for (const uint32_t chunk : {1u, 7u, 40u}) {
    ModelSession session(file, WithChunk(chunk));
    Ids drawn;
    for (size_t done = 0; done + 10 <= tokens.size(); done += 10) {
      session.Score(Part(tokens, done, done + 10));
      acorn_sampling sampling = {};
      sampling.struct_size = sizeof sampling;
      sampling.temperature_q16 = 1 << 16;
      sampling.repetition_penalty_q16 = 3 << 16;
      sampling.seed = done;
      int32_t token = 0;
      ASSERT_EQ(acorn_session_sample(session.session(), &token, &sampling), kOk);
      drawn.push_back(token);
    }
    if (expected.empty()) expected = drawn;
    EXPECT_EQ(drawn, expected) << chunk;
  }
}

// A counter of 32 bits would turn here.
TEST(Endless, CountsBeyond32Bits) {
  for (const uint64_t start : {(uint64_t{1} << 32) - 70, (uint64_t{1} << 40) + 3, uint64_t{1} << 61}) {
    const ModelSpec with_sinks = EndlessSpec({20, 9});
    const AlignedBytes file = BuildModel(with_sinks);
    const Ids tokens = SomeTokens(with_sinks, 140);
    Ids logits[2];
    for (const uint32_t chunk : {1u, 16u}) {
      ModelSession session(file, WithChunk(chunk));
      // As if so many tokens had been.
      session.Score(Part(tokens, 0, 60));
      Session *inside = Inside(&session);
      inside->position = inside->state_position = inside->written = start;
      inside->first_token = start - 60;
      Ids &all = logits[chunk == 1 ? 0 : 1];
      // The rows in memory are of other positions: two layers' windows later nothing comes from them any more.
      session.Score(Part(tokens, 60, 100));
      all = session.Score(Part(tokens, 100, 140));
      EXPECT_EQ(acorn_session_position(session.session()), start + 80);
      const Bytes snapshot = Saved(session.session());
      ModelSession loaded(file, WithChunk(5));
      ASSERT_EQ(acorn_session_load(loaded.session(), snapshot.data(), snapshot.size()), kOk);
      EXPECT_EQ(acorn_session_position(loaded.session()), start + 80);
      EXPECT_TRUE(loaded.Score(Part(tokens, 0, 50)) == session.Score(Part(tokens, 0, 50)));
    }
    EXPECT_TRUE(logits[0] == logits[1]) << start;
  }
}

}  // namespace
}  // namespace acorn::test
