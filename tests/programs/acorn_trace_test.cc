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

// With --prefetch gate the trace has what the gate foresees, wherever the experts are, and replay can use it.
TEST_F(Trace, GuessesOfTheGate) {
  const Words tokens = {"--random", "60", "--prompt-tokens", "20", "--context", "30", "--threads", "1"};
  const auto with = [&](const Words &more) {
    Words words = tokens;
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  const json plain = Record(tokens);
  EXPECT_FALSE(plain.contains("foreseen"));
  ExpectFailure({"replay", trace_, "--prefetch", "gate"}, 2, {"holds no guesses", "acorn trace MODEL --prefetch gate"});
  const uint64_t slot = plain["slot_bytes"];
  const json recorded = Record(with({"--prefetch", "gate"}));
  EXPECT_EQ(recorded["routing_digest"], plain["routing_digest"]);
  EXPECT_GT(recorded["foreseen"], 0.5) << "by chance 0.25";
  EXPECT_EQ(recorded["foreseen"], recorded["guesses_right"]) << "both of two are guessed";
  const std::string resident = ReadFile(trace_);
  Record(with({"--prefetch", "gate", "--expert-cache", std::to_string(10 * slot)}));
  const size_t chunks = 72 + 4 * kLayers * kExperts;  // behind the header, which has times
  EXPECT_EQ(ReadFile(trace_).substr(chunks), resident.substr(chunks));
  // Read all at once on a device that is always idle: fewer misses, and what was foreseen was not read in vain.
  const Words size = {"--cache", std::to_string(14 * slot), "--policy", "lfru", "--device", "0:1000000:1"};
  const json off = Replay(size)["sizes"][0]["policies"]["lfru"];
  Words gate_words = size;
  gate_words.insert(gate_words.end(), {"--prefetch", "gate"});
  const json gate = Replay(gate_words)["sizes"][0]["policies"]["lfru"];
  EXPECT_GT(gate["prefetches_used"], 0);
  EXPECT_GT(gate["hits"], off["hits"]);
}

// The digest by hand, from the file: it does not depend on chunks, threads or the cache.
TEST_F(Trace, DigestOfTheRouting) {
  const json recorded = Record({"--random", "40", "--prompt-tokens", "40", "--chunk", "40", "--seed", "3"});
  const std::string bytes = ReadFile(trace_);
  const auto choice = [&](size_t layer, size_t token, size_t k) {
    const size_t at = 72 + 4 * kLayers * kExperts + 4 + 4 * ((layer * 40 + token) * kTopK + k);
    return static_cast<uint32_t>(static_cast<unsigned char>(bytes[at]) | static_cast<unsigned char>(bytes[at + 1]) << 8);
  };
  uint64_t hash = 0xcbf29ce484222325u;
  for (uint32_t token = 0; token < 40; ++token) {
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      for (uint32_t k = 0; k < kTopK; ++k) {
        for (const uint32_t value : {layer, token, choice(layer, token, k)}) {
          for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ (value >> shift & 255)) * 0x100000001b3u;
        }
      }
    }
  }
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  EXPECT_EQ(recorded["routing_digest"], text);
  const uint64_t slot = recorded["slot_bytes"];
  const Words tokens = {"--random", "40", "--seed", "3"};
  for (const Words &more : std::vector<Words>{{"--prompt-tokens", "0"}, {"--prompt-tokens", "33", "--chunk", "7", "--threads", "2"},
                                              {"--prompt-tokens", "10", "--expert-cache", std::to_string(9 * slot)}}) {
    Words words = tokens;
    words.insert(words.end(), more.begin(), more.end());
    EXPECT_EQ(Record(words)["routing_digest"], text);
  }
  EXPECT_NE(Record({"--random", "40", "--seed", "4"})["routing_digest"], text);
  const Outcome told = Acorn({"trace", sparse_, "-o", trace_, "--random", "40", "--seed", "3"});
  EXPECT_NE(told.out.find(std::string("digest     ") + text), std::string::npos) << told.out;
}

// What a run says of its experts and its dials, for people and for programs.
TEST_F(Trace, ExpertsAndDialsAreReported) {
  const uint64_t slot = Record({"--random", "4"})["slot_bytes"];
  const Words streams = {"--expert-cache", std::to_string(9 * slot)};
  const auto run = [&](Words words, const Words &more) {
    words.insert(words.end(), streams.begin(), streams.end());
    words.insert(words.end(), more.begin(), more.end());
    const Outcome outcome = Acorn(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.out + outcome.err;
  };
  const Words spoken = {"run", sparse_, "-p", "the lamp", "-n", "4", "--stats"};
  const Words bench = {"bench", sparse_, "--prompt-tokens", "4", "--gen-tokens", "4", "--repetitions", "1"};
  const Words trace = {"trace", sparse_, "--random", "8", "-o", trace_};
  for (const Words &words : {spoken, bench, trace}) {
    const std::string plain = run(words, {});
    EXPECT_NE(plain.find("9 of 32 in memory; "), std::string::npos) << plain;
    EXPECT_EQ(plain.find("guesses read"), std::string::npos) << plain;
    EXPECT_EQ(plain.find("dials"), std::string::npos) << plain;
    const std::string dialled = run(words, {"--prefetch", "gate", "--drop-experts", "0.25", "--cache-aware-routing", "0.5"});
    EXPECT_NE(dialled.find(" guesses read, "), std::string::npos) << dialled;
    EXPECT_NE(dialled.find("--drop-experts 0.25, --cache-aware-routing 0.5: another answer"), std::string::npos) << dialled;
  }
  Words words = {"--random", "8", "--expert-policy", "lru", "--prefetch", "path"};
  words.insert(words.end(), streams.begin(), streams.end());
  const json experts = Record(words)["experts"];
  EXPECT_EQ(experts["policy"], "lru");
  EXPECT_EQ(experts["prefetch"], "path");
  EXPECT_LE(experts["prefetches_used"], experts["prefetches"]);
  EXPECT_FALSE(Record({"--random", "8"})["experts"].contains("policy"));
}

TEST_F(Trace, ACacheOfNoUse) {
  const uint64_t slot = Record({"--random", "4"})["slot_bytes"];
  const std::string small = std::to_string(5 * slot);
  for (const auto &[policy, text] : {std::pair<const char *, const char *>{"lfru", "all but the most popular experts are read anew"},
                                     {"lru", "every expert is read anew"}}) {
    const Outcome plan = Acorn({"plan", sparse_, "--expert-cache", small, "--expert-policy", policy});
    EXPECT_NE(plan.out.find(std::string("warning: room for 5: ") + text), std::string::npos) << plan.out;
    EXPECT_NE(plan.out.find("--expert-cache " + std::to_string(8 * slot)), std::string::npos) << plan.out;
  }
  const Outcome dense = Acorn({"bench", "MODEL", "--prompt-tokens", "4", "--gen-tokens", "0", "--expert-cache", "1M"});
  EXPECT_EQ(dense.code, 0);
  EXPECT_EQ(dense.err, "acorn: warning: " + model_ + " has no experts: --expert-cache is without effect\n");
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
