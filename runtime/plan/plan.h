// The plan: from a verified image and the caller's wishes to exact bytes, with no memory of its own. Chooses where each value
// lies in the scratch: values that are never needed at the same time share it.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "model/graph.h"
#include "model/reader.h"
#include "ops/op.h"

namespace acorn {

constexpr uint64_t kEndless = UINT64_MAX;

/// The caller's options and the port, with every default resolved.
struct Dims {
  uint32_t context;     // real tokens of a session, or, where it has no end, the newest whose ids it keeps
  uint64_t tokens;      // most that a session holds: context, or kEndless
  uint32_t chunk;       // rows of the body
  uint32_t logit_rows;  // rows of the head
  uint32_t sessions;
  uint32_t threads;
  uint32_t features;
  uint32_t trace_steps;  // steps whose digests are kept: all or none
  uint32_t expert_slots;  // at the rate that sessions start with; 0: experts are used where they lie in the image
};

inline kv_cache::Extent ExtentOf(const Dims &dims, size_t prefix_rows) { return {prefix_rows, dims.tokens, dims.chunk}; }

/// Ids that a session has places for. Of one without an end: those that it keeps, as many more that it may go back over, and as many
/// that may come before it moves them (session/session.h).
constexpr uint64_t TokenPlaces(const Dims &dims) {
  return dims.tokens == kEndless ? uint64_t{2} * dims.context + dims.chunk : dims.context;
}

/// Offsets from the start of the scratch.
struct ScratchPlan {
  uint64_t values[kMaxValues];
  uint64_t fused;    // values that a linear layer hands to the Glu behind it without writing them, as bits
  uint64_t ropes;    // sines and cosines of a chunk, one table after the other
  uint64_t step;     // shared scratch of a step
  uint64_t threads;  // thread scratch
  uint64_t thread_bytes;
  uint64_t bytes;
};

/// Places the values and sums the scratch. The value of the logits is left out: it lies in the session.
/// A step that reads a value nobody wrote is a fault of the model: it would read what another conversation left behind.
Status PlanScratch(ModelReader *reader, const Graph &summary, const GraphCounts &counts, const Dims &dims,
                   const KernelSet &kernels, ScratchPlan *plan);

/// What a token costs at one rate, in bytes that the steps' shapes say. Of experts top_k of the largest count, in whole blocks.
struct RatePlan {
  uint32_t rate;
  uint64_t weight_bytes;     // of weights that a token reads: body and head, one row of the embedding, top_k experts of each set
  uint64_t prunable_bytes;   // of weights that any profile narrows, whole
  uint64_t left_out_bytes;   // of these, what this rate does not read
  uint64_t untouched_bytes;  // of the image, what this rate never reads: left_out_bytes, but of all experts there are
  uint64_t cache_row_bytes;  // keys and values of one token, all layers
  uint64_t state_bytes;      // states that a token reads and writes
};
/// Of profile `profile`, below counts.profiles. Weights of several steps count once for each.
Status PlanRate(ModelReader *reader, const GraphCounts &counts, uint32_t profile, RatePlan *plan);

}  // namespace acorn
