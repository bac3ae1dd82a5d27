// Routing that no model chose, with the locality of what models choose: a few experts of each layer are popular, a topic that
// drifts prefers some, and part of a token's experts are the previous token's.
#pragma once

#include <cstdint>
#include <string>

#include "routing_trace.h"

namespace acorn::program {

struct SyntheticSpec {
  uint32_t layers = 0, experts = 0, top_k = 0;
  uint32_t prompt_tokens = 0;  // one chunk, before the others
  uint32_t tokens = 0;         // one chunk each
  uint32_t expert_bytes = 0;
  uint64_t seed = 1;
};

/// Layers, experts and top_k from a text such as 16x64x8.  Throws Failure that names the limits.
void ParseSyntheticShape(const std::string &text, SyntheticSpec *spec);

/// The same trace for the same spec on every machine. Computing is timed as on a device whose memory gives 10 GB/s, the
/// bottleneck of decoding. Four of five guesses are right.
RoutingTrace MakeSyntheticTrace(const SyntheticSpec &spec);

}  // namespace acorn::program
