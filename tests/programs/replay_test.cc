// Routing traces, the storage model, and what plays one against the other: by hand, against the best there is, and hostile.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "programs/acorn/error.h"
#include "programs/acorn/expert_replay.h"
#include "programs/acorn/routing_trace.h"
#include "programs/acorn/storage_model.h"
#include "programs/acorn/synthetic_trace.h"
#include "tests/support/temp_folder.h"

namespace acorn::program {
namespace {

using test::ReadFile;
using test::TempFolder;

constexpr size_t kHeader = 72;

/// A trace of one-token chunks: [tokens][layers][top_k] experts.
RoutingTrace TraceOf(uint32_t layers, uint32_t experts, uint32_t top_k, const std::vector<std::vector<std::vector<uint16_t>>> &tokens) {
  RoutingTrace trace;
  trace.facts.layers = layers;
  trace.facts.experts = experts;
  trace.facts.top_k = top_k;
  trace.facts.expert_bytes.assign(size_t{layers} * experts, 1000);
  for (const auto &token : tokens) {
    RoutingChunk chunk;
    chunk.tokens = 1;
    for (const std::vector<uint16_t> &layer : token) {
      for (const uint16_t expert : layer) chunk.choices.push_back({expert, 16384});
    }
    trace.chunks.push_back(chunk);
  }
  return trace;
}

/// Any routing: chunks of up to three tokens, some choices not used.
RoutingTrace RandomTrace(uint32_t seed, uint32_t layers, uint32_t experts, uint32_t top_k, uint32_t chunks) {
  std::mt19937 random(seed);
  RoutingTrace trace = TraceOf(layers, experts, top_k, {});
  for (uint32_t i = 0; i < chunks; ++i) {
    RoutingChunk chunk;
    chunk.tokens = static_cast<uint32_t>(random() % 4 == 0 ? 1 + random() % 3 : 1);
    for (uint32_t row = 0; row < layers * chunk.tokens; ++row) {
      std::vector<uint16_t> all(experts);
      for (uint32_t e = 0; e < experts; ++e) all[e] = static_cast<uint16_t>(e);
      std::shuffle(all.begin(), all.end(), random);
      for (uint32_t k = 0; k < top_k; ++k) chunk.choices.push_back({random() % 9 == 0 ? kNoExpert : all[k], 100});
    }
    trace.chunks.push_back(chunk);
  }
  return trace;
}

ReplayResult Played(const RoutingTrace &trace, ReplayPolicy policy, uint32_t slots, const char *device = "100:1:4") {
  ReplaySettings settings;
  settings.policy = policy;
  settings.slots = slots;
  settings.storage = FindStorage(device);
  return Replay(trace.facts, ReplayEvents(trace), settings);
}

/// The fewest misses, by trying everything: sets of experts as bits, the least misses with which each can be had.
uint64_t FewestMisses(const RoutingTrace &trace, uint32_t slots) {
  const ReplayEvents events(trace);
  std::map<uint32_t, uint64_t> reached = {{0, 0}};
  for (const ReplayEvents::Event &event : events.events) {
    uint32_t wanted = 0;
    for (size_t i = event.begin; i < event.end; ++i) wanted |= 1u << (event.layer * trace.facts.experts + events.experts[i]);
    const bool fits = static_cast<uint32_t>(__builtin_popcount(wanted)) <= slots;
    std::map<uint32_t, uint64_t> next;
    for (const auto &[have, misses] : reached) {
      const uint32_t both = have | wanted;
      const uint64_t total = misses + static_cast<uint32_t>(__builtin_popcount(wanted & ~have));
      for (uint32_t keep = both;; keep = (keep - 1) & both) {
        if (static_cast<uint32_t>(__builtin_popcount(keep)) <= slots && (!fits || (keep & wanted) == wanted)) {
          const auto at = next.emplace(keep, total).first;
          at->second = std::min(at->second, total);
        }
        if (keep == 0) break;
      }
    }
    reached = next;
  }
  uint64_t best = ~uint64_t{0};
  for (const auto &[have, misses] : reached) best = std::min(best, misses);
  return best;
}

TEST(Replay, EventsAreDistinctExpertsWithTheirUses) {
  RoutingTrace trace = TraceOf(2, 4, 2, {{{3, 1}, {0, 2}}});
  trace.chunks.push_back({2, {{1, 9}, {0, 9}, {kNoExpert, 0}, {1, 9}, {2, 1}, {3, 1}, {3, 1}, {2, 1}}, {}});
  const ReplayEvents events(trace);
  ASSERT_EQ(events.events.size(), 4u);
  EXPECT_EQ(events.experts, (std::vector<uint32_t>{1, 3, 0, 2, 0, 1, 2, 3}));
  EXPECT_EQ(events.uses, (std::vector<uint32_t>{1, 1, 1, 1, 1, 2, 2, 2}));
  const uint64_t never = ReplayEvents::kNever;
  EXPECT_EQ(events.next_use, (std::vector<uint64_t>{2, never, never, 3, never, never, never, never}));
  EXPECT_EQ(events.Largest(), 2u);
  EXPECT_EQ(trace.Tokens(), 3u);
}

TEST(Replay, BeladyIsTheFewestThereIs) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    const uint32_t layers = 1 + seed % 2, experts = layers == 1 ? 7 : 4, top_k = 1 + seed % 3;
    const RoutingTrace trace = RandomTrace(seed, layers, experts, top_k, 9);
    for (uint32_t slots = 1; slots <= 6; ++slots) {
      const uint64_t best = FewestMisses(trace, slots);
      EXPECT_EQ(Played(trace, ReplayPolicy::kBelady, slots).misses(), best) << "seed " << seed << ", slots " << slots;
      for (const ReplayPolicyName &row : kReplayPolicies) {
        EXPECT_GE(Played(trace, row.policy, slots).misses(), best) << row.name << ", seed " << seed << ", slots " << slots;
      }
    }
  }
}

/// By hand, one layer and two slots: 0 1 | 2 is wanted, 1 comes back next, so 0 leaves.
TEST(Replay, BeladyByHand) {
  const RoutingTrace trace = TraceOf(1, 4, 1, {{{0}}, {{1}}, {{2}}, {{1}}, {{0}}, {{1}}});
  EXPECT_EQ(Played(trace, ReplayPolicy::kBelady, 2).misses(), 4u);
  EXPECT_EQ(Played(trace, ReplayPolicy::kLru, 2).misses(), 4u);
  const RoutingTrace loop = TraceOf(1, 4, 1, {{{0}}, {{1}}, {{2}}, {{0}}, {{1}}, {{2}}});
  EXPECT_EQ(Played(loop, ReplayPolicy::kBelady, 2).misses(), 4u);
  EXPECT_EQ(Played(loop, ReplayPolicy::kLru, 2).misses(), 6u);
}

TEST(Replay, CountsAddUpAndNobodyBeatsBelady) {
  SyntheticSpec spec;
  spec.layers = 6;
  spec.experts = 16;
  spec.top_k = 3;
  spec.prompt_tokens = 20;
  spec.tokens = 150;
  spec.expert_bytes = 500;
  const RoutingTrace trace = MakeSyntheticTrace(spec);
  const ReplayEvents events(trace);
  std::vector<uint32_t> distinct;
  for (const ReplayEvents::Event &event : events.events) {
    for (size_t i = event.begin; i < event.end; ++i) distinct.push_back(event.layer * 16 + events.experts[i]);
  }
  const size_t lookups = distinct.size();
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  for (const uint32_t slots : {1u, 2u, 3u, 10u, 18u, 30u, 60u, 96u}) {
    const uint64_t best = Played(trace, ReplayPolicy::kBelady, slots).misses();
    for (const ReplayPolicyName &row : kReplayPolicies) {
      const ReplayResult result = Played(trace, row.policy, slots);
      EXPECT_EQ(result.hits() + result.misses(), lookups) << row.name << slots;
      EXPECT_EQ(result.bytes_read(), 500 * result.misses()) << row.name << slots;
      EXPECT_EQ(result.decode.tokens, 150u);
      EXPECT_EQ(result.prefill.tokens, 20u);
      EXPECT_GE(result.misses(), best) << row.name << slots;
      if (slots == 96) {
        EXPECT_EQ(result.misses(), distinct.size());
      }
    }
  }
}

TEST(Replay, BytesAreThoseOfEachExpert) {
  RoutingTrace trace = TraceOf(1, 4, 2, {{{0, 1}}, {{0, 3}}});
  trace.facts.expert_bytes = {10, 200, 3000, 40000};
  EXPECT_EQ(trace.facts.SlotBytes(), 40000u);
  EXPECT_EQ(Played(trace, ReplayPolicy::kLfru, 3).bytes_read(), 10u + 200 + 40000);
}

// 100 us until the first byte, 1 byte a microsecond, two latencies at a time.
TEST(Replay, StorageByHand) {
  Storage storage(FindStorage("100:1:2"));
  EXPECT_EQ(storage.idle_us(), 0);
  EXPECT_EQ(storage.Read(0, 50), 150);    // waits 100, then 50
  EXPECT_EQ(storage.Read(0, 50), 200);    // its latency has passed meanwhile
  EXPECT_EQ(storage.Read(0, 10), 260);    // begins to wait at 150
  EXPECT_EQ(storage.Read(1000, 5), 1105);
  EXPECT_EQ(storage.idle_us(), 1105);
}

/// One layer, 10 us of it and 70 us an expert; reads take 100 and then 50 us each.
TEST(Replay, ComputingRunsWhileReadsLand) {
  RoutingTrace trace = TraceOf(1, 4, 2, {{{0, 1}}, {{0, 1}}, {{0, 2}}});
  trace.facts.expert_bytes.assign(4, 50);
  trace.facts.layer_ns = 10000;
  trace.facts.expert_ns = 70000;
  trace.facts.head_ns = 5000;
  const ReplayResult result = Played(trace, ReplayPolicy::kLru, 3, "100:1:4");
  // 1: 15, lands at 165, computed at 235; the other landed at 215, computed at 305.  2: 15 + 140.
  // 3: at 475 the read is issued, expert 0 runs until 545, 2 lands at 625 and runs until 695.
  EXPECT_DOUBLE_EQ(result.decode.elapsed_us, 695);
  EXPECT_DOUBLE_EQ(result.decode.stall_us, 150 + 80);
  EXPECT_DOUBLE_EQ(result.decode.TokensPerSecond(), 3e6 / 695);
  trace.facts.check_ns = 1000;  // of three reads, none of them beside a wait
  const ReplayResult checked = Played(trace, ReplayPolicy::kLru, 3, "100:1:4");
  EXPECT_DOUBLE_EQ(checked.decode.elapsed_us, 698);
  EXPECT_DOUBLE_EQ(checked.decode.stall_us, 150 + 80);
}

TEST(Replay, RowsOfAChunkCostLess) {
  RoutingTrace trace = TraceOf(1, 2, 1, {});
  trace.chunks.push_back({3, {{0, 1}, {0, 1}, {1, 1}}, {}});
  trace.facts.expert_bytes.assign(2, 1);
  trace.facts.layer_ns = 1000;
  trace.facts.layer_more_ns = 100;
  trace.facts.expert_ns = 2000;
  trace.facts.expert_more_ns = 500;
  const ReplayResult result = Played(trace, ReplayPolicy::kLru, 2, "0:1000:4");
  EXPECT_NEAR(result.prefill.elapsed_us, 1.2 + 0.001 + 2.5 + 2, 1e-9);
  EXPECT_EQ(result.prefill.tokens, 3u);
  EXPECT_EQ(result.decode.tokens, 0u);
  EXPECT_EQ(result.decode.TokensPerSecond(), 0);
}

/// Guesses that are right hide reads behind computing. A slow device gets to one of them in each layer at most: the next demand
/// waits for no more than that.
TEST(Replay, GuessesAreReadWhileTheDeviceIsIdle) {
  SyntheticSpec spec;
  spec.layers = 8;
  spec.experts = 16;
  spec.top_k = 2;
  spec.tokens = 200;
  spec.expert_bytes = 1000000;
  RoutingTrace trace = MakeSyntheticTrace(spec);
  for (RoutingChunk &chunk : trace.chunks) {
    for (size_t i = 0; i < chunk.guesses.size(); ++i) chunk.guesses[i] = chunk.choices[i].expert;
  }
  const ReplayEvents events(trace);
  ReplaySettings settings;
  settings.slots = 48;
  settings.storage = FindStorage("10:20000:8");
  const ReplayResult off = Replay(trace.facts, events, settings);
  settings.prefetch = ExpertPrefetch::kGate;
  const ReplayResult gate = Replay(trace.facts, events, settings);
  EXPECT_GT(gate.prefetches_used, gate.prefetches * 9 / 10);
  EXPECT_LT(gate.misses(), off.misses() * 3 / 4);
  EXPECT_LT(gate.stall_us(), off.stall_us());
  EXPECT_EQ(gate.hits() + gate.misses(), off.hits() + off.misses());
  EXPECT_EQ(gate.bytes_read(), 1000000 * (gate.misses() + gate.prefetches));
  settings.storage = FindStorage("10:1:8");
  const ReplayResult slow = Replay(trace.facts, events, settings);
  EXPECT_LE(slow.prefetches, events.events.size());
}

/// Four paths in turn: after a round of each, what follows is known, and that without guesses in the trace.
TEST(Replay, PathsAreLearnedWhileTheyAreWalked) {
  RoutingTrace trace = TraceOf(4, 16, 1, {});
  for (uint16_t token = 0; token < 200; ++token) {
    RoutingChunk chunk = {1, {}, {}};
    for (uint16_t layer = 0; layer < 4; ++layer) chunk.choices.push_back({static_cast<uint16_t>((5 * (token % 4) + 3 * layer) % 16), 1});
    trace.chunks.push_back(chunk);
  }
  trace.facts.layer_ns = 1000000;
  const ReplayEvents events(trace);
  ReplaySettings settings;
  settings.slots = 12;
  settings.policy = ReplayPolicy::kLru;
  settings.storage = FindStorage("10:20000:8");
  const ReplayResult off = Replay(trace.facts, events, settings);
  settings.prefetch = ExpertPrefetch::kPath;
  const ReplayResult path = Replay(trace.facts, events, settings);
  EXPECT_GT(off.misses(), 700u) << "sixteen experts in turn are too many for twelve slots";
  EXPECT_LT(path.misses(), off.misses() / 8);
  EXPECT_LT(path.stall_us(), off.stall_us() / 8);
}

/// Guesses may fill all slots while a demand waits.
TEST(Replay, GuessesDoNotStarveASmallCache) {
  RoutingTrace trace = TraceOf(2, 4, 1, {{{0}, {1}}, {{2}, {3}}, {{1}, {0}}});
  trace.facts.guesses = true;
  trace.facts.layer_ns = 1000000;
  for (RoutingChunk &chunk : trace.chunks) chunk.guesses = {3, 2};
  const ReplayEvents events(trace);
  ReplaySettings settings;
  settings.storage = FindStorage("5000:1:4");
  settings.prefetch = ExpertPrefetch::kGate;
  for (uint32_t slots = 1; slots <= 8; ++slots) {
    settings.slots = slots;
    const ReplayResult result = Replay(trace.facts, events, settings);
    EXPECT_EQ(result.hits() + result.misses(), 6u) << slots;
    EXPECT_GT(result.prefetches, 0u) << slots;
  }
}

/// What a model chose (tests/golden/make_routing_trace.py), to the miss: the same on every machine.
TEST(Replay, RecordedRouting) {
  const RoutingTrace trace = ReadRoutingTrace(ACORN_SOURCE_DIR "/tests/data/routing/home_moe.trace");
  ASSERT_EQ(trace.Tokens(), 1024u);
  const struct {
    uint32_t slots;
    uint64_t misses[4];  // lfru, lru, edgemoe, belady
  } rows[] = {{10, {6665, 12288, 6622, 5187}}, {24, {2861, 3691, 2681, 1830}}, {48, {733, 902, 679, 371}}};
  for (const auto &row : rows) {
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(Played(trace, kReplayPolicies[i].policy, row.slots).misses(), row.misses[i]) << kReplayPolicies[i].name << row.slots;
    }
  }
}

TEST(Replay, DevicesByNameAndByFigures) {
  for (const char *name : {"sd", "emmc51", "ufs22", "ufs31", "ufs40", "nvme"}) EXPECT_EQ(FindStorage(name).name, name);
  const StorageModel own = FindStorage("85.5:2100:16");
  EXPECT_EQ(own.latency_us, 85.5);
  EXPECT_EQ(own.mb_per_s, 2100);
  EXPECT_EQ(own.depth, 16u);
  for (const char *bad : {"", "floppy", "1:2", "1:2:3:4", "1:0:3", "1:2:0", "-1:2:3", "1:2:3x", "nan:1:1", "1:inf:1", "1:2:5000"}) {
    try {
      FindStorage(bad);
      FAIL() << bad;
    } catch (const Failure &failure) {
      EXPECT_EQ(failure.code, ExitCode::kUsage) << bad;
      EXPECT_NE(failure.message.find("ufs31"), std::string::npos) << failure.message;
    }
  }
}

TEST(Synthetic, TheSameForTheSameSeed) {
  SyntheticSpec spec;
  ParseSyntheticShape("3x8x2", &spec);
  spec.tokens = 50;
  spec.prompt_tokens = 7;
  spec.expert_bytes = 100;
  const RoutingTrace one = MakeSyntheticTrace(spec), same = MakeSyntheticTrace(spec);
  spec.seed = 2;
  const RoutingTrace other = MakeSyntheticTrace(spec);
  EXPECT_EQ(one.chunks.size(), 51u);
  EXPECT_EQ(one.Tokens(), 57u);
  size_t different = 0;
  for (size_t i = 0; i < one.chunks.size(); ++i) {
    for (size_t j = 0; j < one.chunks[i].choices.size(); ++j) {
      ASSERT_EQ(one.chunks[i].choices[j].expert, same.chunks[i].choices[j].expert);
      different += one.chunks[i].choices[j].expert != other.chunks[i].choices[j].expert;
    }
  }
  EXPECT_GT(different, 50u);
}

/// As published of Mixtral: LRU finds about two in five with 2 of 8 experts at hand and three in five with 4 of 8.
TEST(Synthetic, HasTheLocalityOfModels) {
  SyntheticSpec spec;
  ParseSyntheticShape("32x8x2", &spec);
  spec.tokens = 400;
  spec.expert_bytes = 100;
  const RoutingTrace trace = MakeSyntheticTrace(spec);
  const double quarter = Played(trace, ReplayPolicy::kLru, 64).HitRate(), half = Played(trace, ReplayPolicy::kLru, 128).HitRate();
  EXPECT_GT(quarter, 0.35);
  EXPECT_LT(quarter, 0.5);
  EXPECT_GT(half, 0.55);
  EXPECT_LT(half, 0.7);
}

// ---- files ----

class TraceFileTest : public testing::Test {
 protected:
  RoutingTrace Sample(bool guesses) {
    RoutingTrace trace = RandomTrace(5, 2, 5, 2, 6);
    trace.facts.guesses = guesses;
    trace.facts.expert_bytes = {1, 2, 3, 4, 5, 6, 7, 8, 9, UINT32_MAX};
    trace.facts.layer_ns = 1;
    trace.facts.layer_more_ns = 2;
    trace.facts.expert_ns = 3;
    trace.facts.expert_more_ns = 4;
    trace.facts.head_ns = kMaxTraceNs;
    trace.facts.check_ns = UINT32_MAX;
    for (RoutingChunk &chunk : trace.chunks) {
      for (size_t i = 0; guesses && i < chunk.choices.size(); ++i) chunk.guesses.push_back(i % 2 == 0 ? kNoExpert : 4);
    }
    return trace;
  }
  std::string Bytes(const RoutingTrace &trace) {
    const std::string path = folder_.File("written");
    RoutingTraceWriter writer(path, trace.facts);
    for (const RoutingChunk &chunk : trace.chunks) writer.Append(chunk);
    writer.Finish();
    return ReadFile(path);
  }
  RoutingTrace Read(const std::string &bytes) { return ReadRoutingTrace(folder_.Write("read", bytes)); }
  void ExpectRefused(const std::string &bytes, const std::string &why, size_t offset) {
    try {
      Read(bytes);
      ADD_FAILURE() << why;
    } catch (const Failure &failure) {
      EXPECT_EQ(failure.code, ExitCode::kModel);
      EXPECT_NE(failure.message.find("/read: "), std::string::npos) << failure.message;
      EXPECT_NE(failure.message.find(why), std::string::npos) << failure.message;
      EXPECT_NE(failure.message.find("(offset " + std::to_string(offset) + ")"), std::string::npos) << failure.message;
    }
  }
  static std::string With(std::string bytes, size_t offset, uint64_t value, size_t width) {
    std::string number;
    for (size_t i = 0; i < width; ++i) number += static_cast<char>(value >> 8 * i & 255);
    return bytes.replace(offset, width, number);
  }

  TempFolder folder_;
};

TEST_F(TraceFileTest, ComesBackAsItWas) {
  for (const bool guesses : {false, true}) {
    const RoutingTrace trace = Sample(guesses);
    const std::string bytes = Bytes(trace);
    const RoutingTrace back = Read(bytes);
    EXPECT_EQ(Bytes(back), bytes);
    EXPECT_EQ(back.facts.expert_bytes, trace.facts.expert_bytes);
    EXPECT_EQ(back.facts.head_ns, kMaxTraceNs);
    EXPECT_EQ(back.facts.check_ns, UINT32_MAX);
    EXPECT_EQ(back.Tokens(), trace.Tokens());
    ASSERT_EQ(back.chunks.size(), trace.chunks.size());
    EXPECT_EQ(back.chunks[3].choices[1].expert, trace.chunks[3].choices[1].expert);
    EXPECT_EQ(back.chunks[3].guesses, trace.chunks[3].guesses);
  }
}

/// Cut anywhere it is refused, except between two chunks, where it is a shorter trace.
TEST_F(TraceFileTest, CutsAreSeen) {
  const RoutingTrace trace = Sample(true);
  const std::string bytes = Bytes(trace);
  std::vector<size_t> legal;
  size_t end = kHeader + 4 * trace.facts.expert_bytes.size();
  for (const RoutingChunk &chunk : trace.chunks) legal.push_back(end += 4 + 6 * chunk.choices.size());
  ASSERT_EQ(end, bytes.size());
  for (size_t size = 0; size < bytes.size(); ++size) {
    const bool whole = std::find(legal.begin(), legal.end(), size) != legal.end();
    try {
      Read(bytes.substr(0, size));
      EXPECT_TRUE(whole) << size;
    } catch (const Failure &failure) {
      EXPECT_FALSE(whole) << size << failure.message;
      EXPECT_EQ(failure.code, ExitCode::kModel);
    }
  }
}

TEST_F(TraceFileTest, EveryRuleIsChecked) {
  const RoutingTrace trace = Sample(true);
  const std::string bytes = Bytes(trace);
  const size_t table = kHeader, chunk = table + 4 * 10, choice = chunk + 4;
  ExpectRefused("some text that is no trace", "acorntrc", 0);
  ExpectRefused("", "acorntrc", 0);
  ExpectRefused(With(bytes, 8, 2, 4), "version 2", 8);
  ExpectRefused(With(bytes, 12, 3, 4), "unknown flags", 12);
  ExpectRefused(With(bytes, 16, 0, 4), "layers 0", 16);
  ExpectRefused(With(bytes, 16, UINT32_MAX, 4), "layers 4294967295", 16);
  ExpectRefused(With(bytes, 20, 0, 4), "experts 0", 20);
  ExpectRefused(With(bytes, 20, 65535, 4), "experts 65535, 1 to 65534", 20);
  ExpectRefused(With(With(bytes, 16, 1u << 20, 4), 20, 17, 4), "experts 17, 1 to 16", 20);
  ExpectRefused(With(bytes, 24, 6, 4), "experts of a token 6, 1 to 5", 24);
  for (const size_t at : {32u, 40u, 48u, 56u, 64u}) ExpectRefused(With(bytes, at, kMaxTraceNs + 1, 8), "time of", at);
  ExpectRefused(With(bytes, table + 12, 0, 4), "bytes of an expert 0", table + 12);
  ExpectRefused(With(bytes, chunk, 0, 4), "tokens of a chunk 0", chunk);
  ExpectRefused(With(bytes, chunk, 65537, 4), "tokens of a chunk 65537", chunk);
  ExpectRefused(With(bytes, chunk, 65536, 4), "ends in the middle", bytes.size());
  ExpectRefused(With(bytes, choice, 5, 2), "expert 5 of 5", choice);
  ExpectRefused(With(With(bytes, choice, 3, 2), choice + 4, 3, 2), "expert 3 twice", choice + 4);
  ExpectRefused(With(bytes, choice + 2, 32769, 2), "weight 32769", choice + 2);
  const size_t guess = choice + 4 * trace.chunks[0].choices.size();
  ExpectRefused(With(bytes, guess, 9, 2), "expert 9 of 5", guess);
  ExpectRefused(bytes.substr(0, chunk), "no tokens", chunk);
  ExpectRefused(bytes.substr(0, choice), "no choices", choice);
  // A header that promises more than any file holds must not ask for that memory.
  ExpectRefused(With(With(bytes, 16, 1u << 24, 4), 20, 1, 4).substr(0, 80), "experts of a token 2, 1 to 1", 24);
}

/// Any byte changed: read or refused, nothing else (the sanitizers watch).
TEST_F(TraceFileTest, DamageIsHarmless) {
  const std::string bytes = Bytes(Sample(true));
  std::mt19937 random(3);
  for (int i = 0; i < 600; ++i) {
    std::string damaged = bytes;
    for (int n = 0; n <= i % 3; ++n) damaged[random() % damaged.size()] = static_cast<char>(random());
    try {
      const RoutingTrace trace = Read(damaged);
      Played(trace, ReplayPolicy::kLfru, 3);
    } catch (const Failure &failure) {
      EXPECT_EQ(failure.code, ExitCode::kModel);
    }
  }
}

TEST_F(TraceFileTest, WhatIsNotFinishedIsRemoved) {
  const std::string path = folder_.File("half");
  {
    RoutingTraceWriter writer(path, Sample(false).facts);
    writer.Append(Sample(false).chunks[0]);
  }
  EXPECT_EQ(ReadFile(path), "");
  EXPECT_THROW(RoutingTraceWriter(folder_.File("none/x"), Sample(false).facts), Failure);
  try {
    ReadRoutingTrace(folder_.File("none"));
    FAIL();
  } catch (const Failure &failure) {
    EXPECT_EQ(failure.code, ExitCode::kIo);
  }
}

}  // namespace
}  // namespace acorn::program
