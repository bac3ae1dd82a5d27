// Experts that lie in the image: all are there at any time. A record is verified when it is first visited.
#pragma once

#include "base/span.h"
#include "model/graph.h"
#include "ops/op.h"

namespace acorn {

struct ResidentExperts {
  const Graph *graph;
  Span<const uint8_t> image;
  Span<uint8_t> verified;  // [records of all sets]
  // the visit
  uint32_t set;
  Span<const uint32_t> wanted;
  size_t handed_out;
};

/// experts->verified: set before, as many as there are records.
void OpenResidentExperts(ResidentExperts *experts, const Graph *graph, Span<const uint8_t> image);

ExpertSource SourceOf(ResidentExperts *experts);

}  // namespace acorn
