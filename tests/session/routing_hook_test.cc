// What a caller learns of experts: the routing hook, and where each one lies.
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "acorn_schema/file.h"
#include "tests/support/model_session.h"

namespace acorn::test {
namespace {

constexpr uint32_t kExperts = 7, kTopK = 2;

ModelSpec SparseSpec() {
  ModelSpec spec;
  spec.layers = 3;
  spec.linear = {WeightFormat::kW4G32, Layout::kC4};
  spec.experts = kExperts;
  spec.top_k = kTopK;
  spec.expert_weights = {{WeightFormat::kW4G32, Layout::kC4}, {WeightFormat::kW8, Layout::kX16C8}};
  return spec;
}

struct Call {
  uint32_t layer;
  size_t tokens;
  std::vector<acorn_route> routes;
};

void Collect(void *ctx, uint32_t layer, const acorn_route *routes, size_t tokens, size_t top_k) {
  EXPECT_EQ(top_k, kTopK);
  static_cast<std::vector<Call> *>(ctx)->push_back({layer, tokens, {routes, routes + tokens * top_k}});
}

const std::vector<int32_t> kTokens = {5, 9, 1, 33, 2, 7, 7, 12, 40, 3};

TEST(RoutingHook, IsToldOfEachLayerAndChunk) {
  acorn_options options = {};
  options.chunk_tokens = 4;
  ModelSession session(BuildModel(SparseSpec()), options);
  std::vector<Call> calls;
  acorn_session_set_routing_hook(session.session(), Collect, &calls);
  ASSERT_EQ(acorn_session_prefill(session.session(), kTokens.data(), kTokens.size()), ACORN_OK);
  ASSERT_EQ(acorn_session_decode(session.session(), nullptr, 11), ACORN_OK);
  const std::vector<size_t> chunks = {4, 4, 2, 1};
  ASSERT_EQ(calls.size(), 3 * chunks.size());
  for (size_t i = 0; i < calls.size(); ++i) {
    EXPECT_EQ(calls[i].layer, i % 3);
    EXPECT_EQ(calls[i].tokens, chunks[i / 3]);
    for (size_t token = 0; token < calls[i].tokens; ++token) {
      const acorn_route *routes = &calls[i].routes[token * kTopK];
      EXPECT_LT(routes[0].expert, kExperts);
      EXPECT_LT(routes[1].expert, kExperts);
      EXPECT_NE(routes[0].expert, routes[1].expert);
      EXPECT_GE(routes[0].weight_q15, routes[1].weight_q15);
      EXPECT_NEAR(routes[0].weight_q15 + routes[1].weight_q15, 32768, 1);
    }
  }
}

TEST(RoutingHook, ChangesNothingAndEndsWhenItIsTaken) {
  const AlignedBytes file = BuildModel(SparseSpec());
  ModelSession plain(file), watched(file);
  std::vector<Call> calls;
  acorn_session_set_routing_hook(watched.session(), Collect, &calls);
  const std::vector<int32_t> logits = plain.Score(kTokens);
  EXPECT_EQ(watched.Score(kTokens), logits);
  EXPECT_FALSE(calls.empty());
  calls.clear();
  acorn_session_reset(watched.session());
  acorn_session_set_routing_hook(watched.session(), nullptr, nullptr);
  EXPECT_EQ(watched.Score(kTokens), logits);
  acorn_session_set_routing_hook(nullptr, Collect, &calls);
  EXPECT_TRUE(calls.empty());
}

struct Heard {
  std::vector<Call> routes, guesses;
};

// The same wherever the experts are; each before its layer's router speaks, and far more often right than by chance (2 of 7).
TEST(GuessHook, IsToldWhatTheGateForesees) {
  const AlignedBytes file = BuildModel(SparseSpec());
  const auto hear = [&](const acorn_options &options) {
    ModelSession session(file, options);
    Heard heard;
    acorn_session_set_routing_hook(
        session.session(), [](void *ctx, uint32_t layer, const acorn_route *routes, size_t tokens, size_t top_k) {
          Collect(&static_cast<Heard *>(ctx)->routes, layer, routes, tokens, top_k);
        }, &heard);
    acorn_session_set_guess_hook(
        session.session(), [](void *ctx, uint32_t layer, const acorn_route *routes, size_t tokens, size_t count) {
          auto *all = static_cast<Heard *>(ctx);
          EXPECT_EQ(all->routes.back().layer + 1, layer);
          EXPECT_EQ(all->routes.back().tokens, 1u);
          Collect(&all->guesses, layer, routes, tokens, count);
        }, &heard);
    EXPECT_EQ(acorn_session_prefill(session.session(), kTokens.data(), 5), ACORN_OK);
    EXPECT_TRUE(heard.guesses.empty());
    for (int32_t token = 0; token < 30; ++token) EXPECT_EQ(acorn_session_decode(session.session(), nullptr, token), ACORN_OK);
    return heard;
  };
  acorn_options options = {};
  EXPECT_TRUE(hear(options).guesses.empty());
  options.expert_prefetch = ACORN_PREFETCH_PATH;
  EXPECT_TRUE(hear(options).guesses.empty());
  options.expert_prefetch = ACORN_PREFETCH_GATE;
  const Heard heard = hear(options);
  ASSERT_EQ(heard.guesses.size(), 2u * 30);
  size_t right = 0;
  for (size_t i = 0; i < heard.guesses.size(); ++i) {
    const Call &guess = heard.guesses[i], &routes = heard.routes[3 + i / 2 * 3 + 1 + i % 2];
    EXPECT_EQ(guess.tokens, 1u);
    ASSERT_EQ(guess.layer, routes.layer);
    EXPECT_NE(guess.routes[0].expert, guess.routes[1].expert);
    for (const acorn_route &guessed : guess.routes) {
      for (const acorn_route &route : routes.routes) right += guessed.expert == route.expert;
    }
  }
  EXPECT_GT(right, heard.guesses.size()) << "of " << 2 * heard.guesses.size();
}

TEST(ExpertInfo, SaysWhereEachOneLies) {
  const AlignedBytes file = BuildModel(SparseSpec());
  ModelSession session(file);
  std::set<uint64_t> offsets;
  acorn_expert_info info = {};
  for (uint32_t layer = 0; layer < 3; ++layer) {
    for (uint32_t expert = 0; expert < kExperts; ++expert) {
      ASSERT_EQ(acorn_model_get_expert(session.model(), &info, layer, expert), ACORN_OK);
      EXPECT_EQ(info.top_k, kTopK);
      EXPECT_EQ(info.offset % kSegmentAlignment, 0u);
      EXPECT_EQ(info.bytes % kSegmentAlignment, 0u);
      EXPECT_GT(info.bytes, 0u);
      EXPECT_LE(info.offset + info.bytes, file.size());
      EXPECT_TRUE(offsets.insert(info.offset).second);
    }
    EXPECT_EQ(acorn_model_get_expert(session.model(), &info, layer, kExperts), ACORN_ERR_ARGUMENT);
  }
  EXPECT_EQ(acorn_model_get_expert(session.model(), &info, 3, 0), ACORN_ERR_ARGUMENT);
  EXPECT_EQ(acorn_model_get_expert(session.model(), nullptr, 0, 0), ACORN_ERR_ARGUMENT);
  ModelSession dense(BuildModel(VariedSpecs().front()));
  EXPECT_EQ(acorn_model_get_expert(dense.model(), &info, 0, 0), ACORN_ERR_ARGUMENT);
}

}  // namespace
}  // namespace acorn::test
