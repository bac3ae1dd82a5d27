// acorn trace: what it records is what a real cache met, to the hit and the miss.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/programs/program_test.h"

namespace acorn::test {
namespace {

using nlohmann::json;
using Words = std::vector<std::string>;

constexpr uint32_t kLayers = 4, kExperts = 8, kTopK = 2;

class Trace : public ProgramTest {
 protected:
  Trace() : trace_(folder_.File("trace")), sparse_(folder_.File("sparse.acorn")) {
    ModelSpec spec = TalkingSpec();
    spec.layers = kLayers;
    spec.experts = kExperts;
    spec.top_k = kTopK;
    spec.expert_weights = {{WeightFormat::kW4G32, Layout::kC4}};
    EXPECT_TRUE(WriteModel(BuildModel(spec), sparse_));
  }

  json Record(const Words &options) const {
    Words words = {"trace", sparse_, "-o", trace_, "--json"};
    words.insert(words.end(), options.begin(), options.end());
    const Outcome outcome = Acorn(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return json::parse(outcome.out, nullptr, false);
  }
  json Replay(const Words &options) const {
    Words words = {"replay", trace_, "--json"};
    words.insert(words.end(), options.begin(), options.end());
    const Outcome outcome = Acorn(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return json::parse(outcome.out, nullptr, false);
  }
  void ExpectFailure(const Words &words, int code, const Words &texts) const {
    const Outcome outcome = Acorn(words);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    for (const std::string &text : texts) EXPECT_NE(outcome.err.find(text), std::string::npos) << outcome.err;
  }

  std::string trace_, sparse_;
};

// Below the working set of 8 slots, at it, above it, and all of them; a prompt's chunk needs up to 8 experts of a layer at once.
TEST_F(Trace, ReplayMeetsTheHitsAndMissesOfTheRun) {
  const uint64_t slot = Record({"--random", "4"})["slot_bytes"];
  for (const char *policy : {"lfru", "lru", "edgemoe"}) {
    for (const uint64_t slots : {3u, 8u, 13u, 24u, 32u}) {
      SCOPED_TRACE(std::string(policy) + ", slots " + std::to_string(slots));
      const std::string cache = std::to_string(slots * slot);
      const std::string prompt = slots < kExperts ? "0" : "40";
      const json run = Record({"--random", "150", "--prompt-tokens", prompt, "--chunk", "16", "--seed", "7", "--threads", "1", "--expert-cache", cache,
                               "--expert-policy", policy});
      EXPECT_EQ(run["expert_slots"], slots);
      const json played = Replay({"--cache", cache, "--policy", policy})["sizes"][0];
      EXPECT_EQ(played["slots"], slots);
      EXPECT_EQ(played["policies"][policy]["hits"], run["experts"]["hits"]);
      EXPECT_EQ(played["policies"][policy]["misses"], run["experts"]["misses"]);
      EXPECT_EQ(played["policies"][policy]["bytes_read"], run["experts"]["bytes_read"]);
    }
  }
}

TEST_F(Trace, WhatIsChosenDoesNotDependOnTheCache) {
  Record({"--random", "50", "--prompt-tokens", "20"});
  const std::string resident = ReadFile(trace_);
  const uint64_t slot = Replay({})["slot_bytes"];
  Record({"--random", "50", "--prompt-tokens", "20", "--expert-cache", std::to_string(5 * slot)});
  const size_t choices = 72 + 4 * kLayers * kExperts;  // behind the header, which has times
  EXPECT_EQ(ReadFile(trace_).substr(choices), resident.substr(choices));
}

TEST_F(Trace, TokensAreThoseOfTheRun) {
  json report = Record({"-p", "the lamp in the kitchen", "-n", "5", "--chunk", "4"});
  const size_t prompt = json::parse(Acorn({"tokenize", sparse_, "--bos", "--json"}, "the lamp in the kitchen").out)["ids"].size();
  const size_t decoded = report["decoded_tokens"].get<size_t>() - (prompt % 4 == 1 ? 1 : 0);
  EXPECT_EQ(report["tokens"], prompt + decoded);
  EXPECT_TRUE(decoded == 5 || decoded < 5) << "the model may end earlier";
  EXPECT_EQ(report["layers"], kLayers);
  EXPECT_EQ(report["experts_of_a_layer"], kExperts);
  EXPECT_EQ(report["top_k"], kTopK);
  EXPECT_DOUBLE_EQ(report["repeated_by_chance"], 0.25);
  EXPECT_GT(report["expert_ns"], 0);
  EXPECT_GT(report["layer_ns"], 0);
  EXPECT_EQ(Replay({})["tokens"], report["tokens"]);

  // A text longer than the context goes on in a new conversation.
  const std::string text = folder_.Write("text", "turn on the lamp in the kitchen, please, and the other one too, before it gets dark");
  report = Record({"--text", text, "--context", "16", "--prompt-tokens", "6"});
  const uint64_t tokens = report["tokens"], windows = (tokens + 15) / 16;
  ASSERT_GT(windows, 1u);
  EXPECT_GE(report["decoded_tokens"], tokens - 6 * windows);
}

TEST_F(Trace, FailuresAreNamed) {
  ExpectFailure({"trace", sparse_, "-o", trace_}, 2, {"-p TEXT"});
  ExpectFailure({"trace", sparse_, "-o", trace_, "--random", "4", "-p", "x"}, 2, {"--random"});
  ExpectFailure({"trace", sparse_, "--random", "4"}, 2, {"-o TRACE"});
  ExpectFailure({"trace", sparse_, "-o", trace_, "-p", "x", "--prompt-tokens", "3"}, 2, {"--prompt-tokens"});
  ExpectFailure({"trace", sparse_, "-o", trace_, "--random", "4", "--chat"}, 2, {"--chat"});
  ExpectFailure({"trace", sparse_, "-o", folder_.File("absent/trace"), "--random", "4"}, 5, {"absent/trace"});
  ExpectFailure({"trace", "MODEL", "-o", trace_, "--random", "4"}, 3, {"model.acorn", "no experts"});
  ExpectFailure({"trace", Mute(), "-o", trace_, "-p", "x"}, 3, {"no experts"});
}

}  // namespace
}  // namespace acorn::test
