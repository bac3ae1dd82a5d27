// A routing trace: which experts a model chose, token by token, and what is needed to say how long another cache or another
// device would have taken. `acorn trace` records it, `acorn replay` reads it; docs/STREAMING.md states every byte.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace acorn::program {

constexpr uint16_t kNoExpert = 0xffff;
constexpr uint32_t kMaxTraceTokens = 65536;             // of a chunk
constexpr uint64_t kMaxTraceNs = 1000000000000;         // of one computation
constexpr uint64_t kMaxTraceExperts = uint64_t{1} << 24;  // layers * experts

/// What does not change in the course of a trace. Layers are those that have experts, counted from 0.
struct TraceFacts {
  uint32_t layers = 0;
  uint32_t experts = 0;  // of each layer, below 65535
  uint32_t top_k = 0;    // of a token, at most `experts`
  bool guesses = false;  // chunks hold predictions
  // Computing, in nanoseconds, by the first token of a chunk and by each one more (whose weights are at hand already).
  uint64_t layer_ns = 0, layer_more_ns = 0;    // all of a layer but its experts, with the dense layers before it
  uint64_t expert_ns = 0, expert_more_ns = 0;  // one expert
  uint64_t head_ns = 0;                        // once a chunk, beside the layers
  uint32_t check_ns = 0;                       // of a record whose last read has just landed
  std::vector<uint32_t> expert_bytes;          // [layers * experts] bytes read for each

  uint32_t SlotBytes() const;  // of the largest
};

struct RoutingChoice {
  uint16_t expert;      // kNoExpert: fewer than top_k were used
  uint16_t weight_q15;  // the router's, at most 32768
};

/// Tokens that pass through the layers together: one, or a chunk of a prompt.
struct RoutingChunk {
  uint32_t tokens = 0;
  std::vector<RoutingChoice> choices;  // [layers, tokens, top_k], the experts of a token distinct
  std::vector<uint16_t> guesses;       // [layers, tokens, top_k] predicted for that layer while the one before ran, or kNoExpert
};

struct RoutingTrace {
  TraceFacts facts;
  std::vector<RoutingChunk> chunks;

  uint64_t Tokens() const;
};

/// Writes a trace chunk by chunk.  Throws Failure; a trace that was not finished is removed.
class RoutingTraceWriter {
 public:
  RoutingTraceWriter(const std::string &path, const TraceFacts &facts);
  ~RoutingTraceWriter();
  RoutingTraceWriter(const RoutingTraceWriter &) = delete;
  RoutingTraceWriter &operator=(const RoutingTraceWriter &) = delete;

  void Append(const RoutingChunk &chunk);
  void Finish();

 private:
  void Write();

  const std::string path_;
  const TraceFacts facts_;
  std::FILE *file_;
  std::string bytes_;  // of one chunk
};

/// Reads a whole trace and believes nothing of it.  Throws Failure that names the file, the offset and the rule.
RoutingTrace ReadRoutingTrace(const std::string &path);

}  // namespace acorn::program
