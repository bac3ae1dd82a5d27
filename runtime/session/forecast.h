// Guesses which experts the next layer will want while this one's are computed, in one of two ways: that layer's own norm and
// router, run on the residual stream as it is now (as Fate does, Fang et al. 2025, arXiv 2502.12224: consecutive layers' inputs are
// alike), or what has followed on the last two layers' experts before (experts/paths.h). A guess changes no result; it is read when
// the storage has nothing else to do.
#pragma once

#include "base/arena.h"
#include "base/span.h"
#include "experts/paths.h"
#include "experts/pool.h"
#include "model/graph.h"
#include "ops/op.h"
#include "ops/route.h"

namespace acorn {

struct StreamingExperts;

/// Steps of the body that lead to a set's router.
struct RouterChain {
  uint32_t norm, router, experts;
  bool known;  // false: the layer is built in another way, and nobody guesses
};

struct Forecast {
  ExpertPrefetch way;  // kOff: nobody guesses
  const Graph *graph;
  Span<Step> body;  // of the profile in use
  StreamingExperts *streaming;  // null: experts lie in the image, and nothing is read
  // kGate
  Span<RouterChain> chains;  // [sets]
  Span<int8_t> normed;       // one row
  Span<int32_t> logits;
  Span<Route> routes;
  // kPath
  ExpertPaths paths;
  uint32_t sets;
  Span<uint32_t> likely;  // [top_k]
};

/// What the buffers must hold, over all sets. hidden, logits: widths of the values that experts and their routers' logits stand in
struct ForecastShape {
  ExpertPrefetch way;
  uint32_t sets, hidden, logits, experts, top_k;
};

/// Lays the buffers out, or counts them.
void LayOutForecast(const ForecastShape &shape, Arena *arena, Forecast *forecast);

/// Finds the chains, once the graph is read.  streaming: null where no expert streams
void OpenForecast(Forecast *forecast, const Graph *graph, StreamingExperts *streaming);

/// For RunContext: called by the step of a set's experts.  body: what runs
ExpertForecast ForecastOf(Forecast *forecast, Span<Step> body);

}  // namespace acorn
