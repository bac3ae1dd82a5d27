// Digests and the figures that reports have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "device.h"
#include "json.h"

namespace acorn::program {

/// FNV-1a-64 over little-endian int32 values.
class Fnv {
 public:
  void Add(const int32_t *values, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      for (int shift = 0; shift < 32; shift += 8) {
        hash_ = (hash_ ^ (static_cast<uint32_t>(values[i]) >> shift & 255)) * 0x100000001b3u;
      }
    }
  }
  uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325u;
};

/// `digest` and `ids_digest` of a run.
class Digests {
 public:
  void AddLogits(const int32_t *logits, size_t count) { logits_.Add(logits, count); }
  void AddId(int32_t id) { ids_.Add(&id, 1); }
  uint64_t logits() const { return logits_.value(); }
  uint64_t ids() const { return ids_.value(); }

 private:
  Fnv logits_, ids_;
};

/// Speeds of a session by the library's own clock.
struct Speeds {
  uint64_t prefill_tokens = 0, decode_tokens = 0, drafted_tokens = 0, accepted_tokens = 0;
  double prefill_tokens_per_s = 0, decode_tokens_per_s = 0;
};
Speeds ReadSpeeds(const Device &device);

/// What streaming experts has cost since the model was opened.
struct ExpertFigures {
  uint64_t hits = 0, misses = 0, bytes_read = 0;
  uint64_t prefetches = 0, prefetches_used = 0;
  double stall_ms = 0;
};
ExpertFigures ReadExperts(const Device &device);

/// {"kernel": share of the kernels' time, …}, largest first.
std::string KernelShares(const Device &device);

/// Bytes of the plan, peak RSS, threads, isa, experts, dials.
void WriteMachine(JsonWriter *json, const Device &device);
/// The same for people, in a few words: threads, instruction set, and the rate where the file holds more than one.
std::string DescribeMachine(const Device &device);

/// How many experts are in memory, and what the others have cost; empty where none streams.
std::string DescribeExperts(const Device &device);
/// The dials that are on; empty: none.
std::string DescribeDials(const Device &device);

/// "12.3 MiB" or "45.6 KiB"
std::string HumanBytes(uint64_t bytes);

/// The whole of a file, "-" for the standard input.  Throws Failure.
std::string ReadWholeFile(const std::string &path);

}  // namespace acorn::program
