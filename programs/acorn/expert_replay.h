// Plays a routing trace through an expert cache: the runtime's own (experts/pool.h), event by event, or the best that anybody
// could do who knew the future. Reads land as a storage model says; computing takes what the trace says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "experts/pool.h"
#include "routing_trace.h"
#include "storage_model.h"

namespace acorn::program {

enum class ReplayPolicy : uint8_t { kLfru, kLru, kEdgeMoe, kBelady };

struct ReplayPolicyName {
  const char *name;
  ReplayPolicy policy;
};
constexpr ReplayPolicyName kReplayPolicies[] = {{"lfru", ReplayPolicy::kLfru},
                                                {"lru", ReplayPolicy::kLru},
                                                {"edgemoe", ReplayPolicy::kEdgeMoe},
                                                {"belady", ReplayPolicy::kBelady}};

/// A trace as caches see it: for each chunk and layer the distinct experts, ascending.
struct ReplayEvents {
  static constexpr uint64_t kNever = ~uint64_t{0};

  struct Event {
    uint32_t layer, tokens;
    size_t begin, end;              // in the three tables
    size_t guess_begin, guess_end;  // in `guesses`
  };
  std::vector<Event> events;
  std::vector<uint32_t> experts;   // of the layer
  std::vector<uint32_t> uses;      // tokens of the chunk that chose it
  std::vector<uint32_t> ranked;    // the same experts for an event of one token, the router's best first
  std::vector<uint64_t> next_use;  // the next event that has the same expert, or kNever
  std::vector<uint32_t> guesses;   // experts predicted for the event's layer, the most expected first

  explicit ReplayEvents(const RoutingTrace &trace);
  /// The most experts that one event has.
  uint32_t Largest() const;
};

struct ReplaySettings {
  ReplayPolicy policy = ReplayPolicy::kLfru;
  uint32_t slots = 1;  // 1 to layers * experts
  StorageModel storage;
  // What is read while the storage is idle: what the trace's predictions name, or experts/paths.h. Belady's has no use for it.
  ExpertPrefetch prefetch = ExpertPrefetch::kOff;
};

/// Of all chunks of one token, or of all larger ones.
struct ReplayPhase {
  uint64_t tokens = 0;
  uint64_t hits = 0, misses = 0;
  uint64_t bytes_read = 0;
  double elapsed_us = 0, stall_us = 0;

  double TokensPerSecond() const { return elapsed_us > 0 ? static_cast<double>(tokens) * 1e6 / elapsed_us : 0; }
};

struct ReplayResult {
  ReplayPhase decode, prefill;
  uint64_t prefetches = 0, prefetches_used = 0;

  uint64_t hits() const { return decode.hits + prefill.hits; }
  uint64_t misses() const { return decode.misses + prefill.misses; }
  uint64_t bytes_read() const { return decode.bytes_read + prefill.bytes_read; }
  uint64_t tokens() const { return decode.tokens + prefill.tokens; }
  double stall_us() const { return decode.stall_us + prefill.stall_us; }
  double HitRate() const;
};

/// The cache starts empty.
ReplayResult Replay(const TraceFacts &facts, const ReplayEvents &events, const ReplaySettings &settings);

}  // namespace acorn::program
