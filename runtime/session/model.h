// An opened model and its sessions, inside the caller's block. For session/ and api/; everything that a call needs is found
// here, and nothing is allocated after OpenModel.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/arena.h"
#include "base/span.h"
#include "base/status.h"
#include "experts/resident.h"
#include "experts/streaming.h"
#include "session/forecast.h"
#include "model/graph.h"
#include "model/reader.h"
#include "ops/op.h"
#include "plan/plan.h"
#include "text/detokenizer.h"
#include "text/sampler.h"
#include "text/tokenizer.h"

namespace acorn {

struct Session;

/// Ticks of one kernel, summed over the model's life.
struct ProfileRow {
  char name[64];  // family/variant, zero-terminated
  uint64_t ticks;
  uint64_t calls;
};
constexpr uint32_t kMaxProfileRows = 32;

/// Exact bytes by class.
struct MemoryPlan {
  uint64_t image_bytes, model_bytes, session_bytes, scratch_bytes, expert_slot_bytes, block_bytes;
  uint64_t state_bytes;  // of session_bytes: what state-space layers keep; 0: none
  uint32_t reference_tokens;  // of the file's reference run; 0: it has none
  uint32_t experts, useful_slots;  // of the model, of all layers; 0: none
  uint64_t slot_bytes;  // at the rate that sessions start with
  uint32_t rates;  // that the file holds
};

/// What the caller hands over to open a model.
struct OpenRequest {
  Span<const uint8_t> image;
  uint32_t context, chunk, logit_rows, sessions;  // 0: default
  uint32_t features;
  uint32_t rate;  // of a session that opens, percent
  bool check_weights;
  bool profile;
  bool trace;
  Parallel parallel;
  Clock clock;
  uint64_t expert_cache_bytes;  // 0: experts are used where they lie in the image
  ExpertPolicy expert_policy;
  uint32_t read_timeout_ms;  // 0: none
  ExpertPrefetch prefetch;
  RoutingDials dials;
  acorn_port port;  // all null without one
};

struct Model {
  Graph graph;
  Dims dims;
  MemoryPlan memory;
  KernelSet kernels;
  Parallel parallel;
  Clock clock;
  uint64_t ticks_per_second;
  bool profile;
  uint32_t in_use;  // 1: a call runs (Exclusive); looked at in builds with debug checks only
  Tokenizer tokenizer;  // header is null without one
  ScratchPlan scratch_plan;
  uint8_t *scratch;
  uint64_t file_checksum;  // of the file's header, which has the graph's, which has those of all else: what a snapshot is of
  uint32_t first_profile;  // of a session that opens
  kv_cache::Extent extent;  // of a session's caches
  Place values[kMaxValues];
  Span<RopePlace> ropes;
  Span<uint8_t> profile_of_step;  // [body + head], index of its row
  ProfileRow profile_rows[kMaxProfileRows];
  uint32_t profile_count;
  Span<uint64_t> trace;  // [body + head], digests of what each step wrote since ResetTrace; empty: nobody asked
  Span<ExpertRecord> expert_records;  // of all sets
  ResidentExperts resident;    // whichever of the two the dims ask for
  StreamingExperts streaming;
  Forecast forecast;
  RoutingDials dials;
  // In the scratch: the states of the session that runs, as they were before the chunk; of each step's from when it begins.
  Span<uint8_t *> kept_states;  // [states]
  uint32_t kept_count;          // of them, that the chunk has come to
  Span<Session *> sessions;
  // Views of the scratch for calls that run no step: text in, sampling.
  Span<uint8_t> text_work;
  Span<int32_t> logit_copy;    // [vocab_size]
  Span<uint8_t> sampler_work;
};

/// Resolves the request and computes the plan; nothing is kept.
Status PlanModel(const OpenRequest &request, Dims *dims, MemoryPlan *plan, Fault *fault);

/// One profile's figures beside the plan, which is the same for all. Nothing is kept.
/// Returns: as PlanModel | kArgument (also: no such profile)
Status PlanModelRate(const OpenRequest &request, uint32_t profile, MemoryPlan *plan, RatePlan *rate, Fault *fault);

/// Opens a model in `block`, which is touched only when everything has been checked.
/// Returns: kOk | kMemory (*fault says the need: offset) | as PlanModel
Status OpenModel(const OpenRequest &request, Span<uint8_t> block, Model **model, Fault *fault);

}  // namespace acorn
