// Operators: what each step of a model needs (Needs, before there is memory) and does (Run). One file for each operator; they
// choose tasks and places and leave the arithmetic to runtime/kernels. The reader has checked the step: nothing here can fail but
// what waits for storage.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"
#include "base/status.h"
#include "kernels/add/kernel.h"
#include "kernels/append/kernel.h"
#include "kernels/attention/kernel.h"
#include "kernels/conv/kernel.h"
#include "kernels/gemm.h"
#include "kernels/glu/kernel.h"
#include "kernels/hadamard/kernel.h"
#include "kernels/kv_cache.h"
#include "kernels/layernorm/kernel.h"
#include "kernels/requantise/kernel.h"
#include "kernels/rmsnorm/kernel.h"
#include "kernels/rotate/kernel.h"
#include "kernels/scan/kernel.h"
#include "model/graph.h"
#include "platform/parallel.h"
#include "platform/stop.h"

namespace acorn {

/// The best kernel of every family for one set of Feature bits.
struct KernelSet {
  uint32_t features;
  const add::Kernel *add;
  const append::Kernel *append;
  const attention::Kernel *attention;
  const conv::Kernel *conv;
  const glu::Kernel *glu;
  const hadamard::Kernel *hadamard;
  const layernorm::Kernel *layernorm;
  const requantise::Kernel *requantise;
  const rmsnorm::Kernel *rmsnorm;
  const rotate::Kernel *rotate;
  const scan::Kernel *scan;
};
KernelSet SelectKernels(uint32_t features);

/// Where the rows of a value lie.
struct Place {
  uint8_t *data;
  uint64_t row_bytes;
};

/// Where one layer's keys and values lie, in the layout of kernels/kv_cache.h.
struct CachePlace {
  uint8_t *k;
  int8_t *v;
};

/// Sines and cosines of a chunk's positions, [chunk, rotary_dims / 2].
struct RopePlace {
  int16_t *cosine;
  int16_t *sine;
};

/// Where the experts of a set are. One visit at a time.
struct ExpertSource {
  void *ctx;
  /// A visit to the experts `wanted` begins: different ones in ascending order, in memory that stays until it ends, with the number
  /// of tokens that chose each, of `tokens` in the chunk. Those that are not there yet are asked for.
  Status (*begin)(void *ctx, uint32_t set, Span<const uint32_t> wanted, Span<const uint32_t> uses, uint32_t tokens);
  /// One that was not handed out in this visit and is there: *index in `wanted`; *record the first of its slices, behind which the
  /// others that the profile uses lie as in the file, all verified; they stay until release.
  /// *index is wanted.size() when all were handed out, or, without `wait`, when none of the others is there yet.
  Status (*next)(void *ctx, bool wait, size_t *index, const uint8_t **record);
  void (*release)(void *ctx, size_t index);
  /// True if an expert needs no read now.
  bool (*is_there)(void *ctx, uint32_t set, uint32_t expert);
  /// Also after a failure; what was handed out is released.
  void (*end)(void *ctx);
};

struct RunContext;
struct Route;  // ops/route.h

/// Whoever guesses what the next set will be asked for; guess null: nobody. Called when the reads of this set are under way.
///   routes  [tokens, top_k] of this set
struct ExpertForecast {
  void *ctx;
  void (*guess)(void *ctx, const RunContext &context, uint32_t set, const Route *routes, size_t top_k);
};

/// What changes answers for the sake of speed; 0: off. docs/STREAMING.md
struct RoutingDials {
  uint32_t drop_q15;   // the chosen experts of least weight go that have together at most this share of a token's weights
  uint32_t bonus_q16;  // experts that are in memory count as if their logits were so much of the token's range higher
};

/// Sees what the routers choose: routes [tokens, top_k], before the experts are visited.  run null: nobody looks
struct RoutingHook {
  void *ctx;
  void (*run)(void *ctx, uint32_t set, const Route *routes, size_t tokens, size_t top_k);
};

/// Everything that a step runs on.
struct RunContext {
  const Graph *graph;
  const KernelSet *kernels;
  Parallel parallel;
  const Place *values;        // [values]
  const CachePlace *caches;   // [caches], of the session
  uint8_t *const *states;     // [states], of the session: what the rows before this chunk left behind, then what it leaves
  const RopePlace *ropes;     // [ropes]
  uint8_t *step_scratch;      // shared by the threads of a step
  uint8_t *thread_scratch;    // [threads, thread_scratch_bytes]
  uint64_t thread_scratch_bytes;
  RoutingHook routing_hook;
  RoutingHook guess_hook;     // sees what a gate foresees of a layer's routes: [1, some of top_k]
  kv_cache::Extent extent;    // of the session's caches
  ExpertSource experts;       // of a model that has some
  ExpertForecast forecast;
  RoutingDials dials;
  Stop *stop;                 // once asked, the step may end with its output unwritten; null: it runs to its end
  // the chunk
  const int32_t *tokens;      // [m]
  size_t m;                   // rows
  uint64_t first_token;       // of the conversation: at position prefix_rows + first_token
};

/// What sizes depend on.
struct PlanContext {
  const KernelSet *kernels;
  uint32_t threads;
  uint64_t rows;        // of the step: chunk tokens, or logit rows in the head
  kv_cache::Extent extent;
};

/// Scratch that a step needs beside its values; both multiples of 64.
struct OpNeeds {
  uint64_t step_bytes;    // shared
  uint64_t thread_bytes;  // for each thread
};

void Run(const EmbeddingOp &op, const RunContext &context);
void Run(const RmsNormOp &op, const RunContext &context);
void Run(const LinearOp &op, const RunContext &context);
void Run(const RotateOp &op, const RunContext &context);
void Run(const AppendOp &op, const RunContext &context);
void Run(const AttentionOp &op, const RunContext &context);
void Run(const GluOp &op, const RunContext &context);
void Run(const HadamardOp &op, const RunContext &context);
void Run(const AddOp &op, const RunContext &context);
void Run(const LayerNormOp &op, const RunContext &context);
void Run(const ConvOp &op, const RunContext &context);
void Run(const ScanOp &op, const RunContext &context);
/// Returns: kOk | as ExpertSource
Status Run(const ExpertsOp &op, const RunContext &context);

/// with_glu: of a linear layer and the Glu behind it together
OpNeeds Needs(const LinearOp &op, bool with_glu, const Weight &weight, DType input, const PlanContext &context);
OpNeeds Needs(const ExpertsOp &op, const ExpertSet &set, const PlanContext &context);
OpNeeds Needs(const AttentionOp &op, const Cache &cache, const PlanContext &context);

/// Returns: kOk | where experts cannot be had: as ExpertSource
Status RunStep(const Step &step, const RunContext &context);

/// Static name of the kernel that does most of a step's work, such as "4x16c4__avx512vnni", and of its family.
struct KernelName {
  const char *family;
  const char *variant;
};
KernelName NameOf(const Step &step, const Graph &graph, const KernelSet &kernels);

// Helpers of the operators.

/// First element of a slice of a value, and the stride from row to row in elements.
template <typename T>
T *Elements(const RunContext &context, const Slice &slice) {
  return reinterpret_cast<T *>(context.values[slice.value].data) + slice.offset;
}
template <typename T>
size_t Stride(const RunContext &context, const Slice &slice) {
  return context.values[slice.value].row_bytes / sizeof(T);
}

inline kv_cache::TokenRows TokenRowsOf(const RunContext &context, const Cache &cache) {
  return kv_cache::TokenRowsOf(context.extent, cache.window);
}

inline uint8_t *ThreadScratch(const RunContext &context, uint32_t thread) {
  return context.thread_scratch + thread * context.thread_scratch_bytes;
}

/// Whether a task is better left undone, since nobody will want the step's output.  thread: as the task's; only 0 looks at the clock
inline bool IsStopped(const RunContext &context, uint32_t thread) {
  if (context.stop == nullptr) return false;
  return thread == 0 ? context.stop->IsDue() : context.stop->IsAsked();
}

/// Work below so many elements stays on the caller's thread: waking the others costs more (a few microseconds) than it takes.
constexpr size_t kInlineElems = 8192;

/// body(task, thread) for each task of work that takes `elems` elements in all; once the step is to stop, for no more of them.
template <typename Body>
void ForTasks(const RunContext &context, size_t tasks, size_t elems, const Body &body) {
  if (elems <= kInlineElems) {
    for (uint32_t task = 0; task < tasks; ++task) body(task, 0u);
    return;
  }
  context.parallel.For(static_cast<uint32_t>(tasks), [&](uint32_t task, uint32_t thread) {
    if (!IsStopped(context, thread)) body(task, thread);
  });
}

/// body(first_row, rows, thread) over blocks of the chunk's rows.
template <typename Body>
void ForRows(const RunContext &context, size_t width, const Body &body) {
  constexpr size_t kBlockRows = 8;
  if (context.m * width <= kInlineElems) {
    body(size_t{0}, context.m, 0u);
    return;
  }
  const size_t blocks = (context.m + kBlockRows - 1) / kBlockRows;
  context.parallel.For(static_cast<uint32_t>(blocks), [&](uint32_t task, uint32_t thread) {
    const size_t first = task * kBlockRows;
    body(first, context.m - first < kBlockRows ? context.m - first : kBlockRows, thread);
  });
}

}  // namespace acorn
