// Experts that lie in the image: all are there at any time. A slice is verified when it is first visited.
#pragma once

#include "base/span.h"
#include "model/graph.h"
#include "ops/op.h"

namespace acorn {

struct ExpertFault;

struct ResidentExperts {
  const Graph *graph;
  Span<const uint8_t> image;
  Span<uint8_t> verified;  // [slices of all sets]
  ExpertFault *fault;      // of the model
  uint32_t profile;        // of the session that runs
  // the visit
  uint32_t set;
  Span<const uint32_t> wanted;
  size_t handed_out;
};

/// experts->verified: set before, as many as there are slices.
void OpenResidentExperts(ResidentExperts *experts, const Graph *graph, Span<const uint8_t> image, ExpertFault *fault);

/// For sessions at that profile.
ExpertSource SourceOf(ResidentExperts *experts, uint32_t profile);

}  // namespace acorn
