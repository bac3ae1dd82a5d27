#include "session/forecast.h"

#include "experts/streaming.h"

namespace acorn {
namespace {

// The last step before `before` that writes all of `slice`; body.size(): none.
uint32_t WriterOf(const Graph &graph, uint32_t before, const Slice &slice) {
  for (uint32_t i = before; i-- > 0;) {
    const Slice out = OutputOf(graph.body[i]);
    if (out.width != 0 && out.value == slice.value) return out.offset == slice.offset && out.width == slice.width ? i : UINT32_MAX;
  }
  return UINT32_MAX;
}

RouterChain ChainOf(const Graph &graph, uint32_t index) {
  const ExpertsOp &experts = graph.body[index].experts;
  RouterChain chain = {0, 0, index, false};
  chain.router = WriterOf(graph, index, experts.router);
  chain.norm = WriterOf(graph, index, experts.in);
  if (chain.router == UINT32_MAX || chain.norm == UINT32_MAX) return chain;
  const Step &router = graph.body[chain.router], &norm = graph.body[chain.norm];
  const bool same_input = router.kind == OpKind::kLinear && router.linear.in.value == experts.in.value &&
                          router.linear.in.offset == experts.in.offset;
  chain.known = same_input && (norm.kind == OpKind::kRmsNorm || norm.kind == OpKind::kLayerNorm);
  return chain;
}

// Of the experts that a router names a layer early, the first ones come true far more often: of OLMoE's eight 82 % of the first four
// and 31 % of the others (acornc synth), which keep the storage from what is asked for. Both of two come true alike (82 %).
uint32_t LikelyOf(uint32_t top_k) { return top_k <= 2 ? top_k : top_k < 4 ? 2 : top_k / 2; }

void GuessByGate(void *ctx, const RunContext &context, uint32_t set, const Route *, size_t) {
  auto *forecast = static_cast<Forecast *>(ctx);
  if (context.m != 1 || set + 1 >= forecast->chains.size() || !forecast->chains[set + 1].known) return;
  const RouterChain &chain = forecast->chains[set + 1];
  const Step &norm = forecast->body[chain.norm], &router = forecast->body[chain.router];
  const ExpertsOp &experts = forecast->body[chain.experts].experts;
  Place values[kMaxValues];
  __builtin_memcpy(values, context.values, forecast->graph->values.size() * sizeof(Place));
  // The row starts where its column 0 would, so that slices keep their offsets.
  values[experts.in.value].data = reinterpret_cast<uint8_t *>(forecast->normed.data());
  values[experts.router.value].data = reinterpret_cast<uint8_t *>(forecast->logits.data());
  RunContext guess = context;
  guess.values = values;
  if (RunStep(norm, guess) != Status::kOk || RunStep(router, guess) != Status::kOk) return;
  RouteToken(forecast->routes.data(), forecast->logits.data() + experts.router.offset, experts.router.width, experts);
  const uint32_t count = LikelyOf(experts.top_k);
  for (uint32_t i = 0; forecast->streaming != nullptr && i < count; ++i) {
    Prefetch(forecast->streaming, set + 1, forecast->routes[i].expert);
  }
  const RoutingHook &hook = context.guess_hook;
  if (hook.run != nullptr) hook.run(hook.ctx, set + 1, forecast->routes.data(), 1, count);
}

// Paths lead on from the last layer to the next token's first.
void GuessByPath(void *ctx, const RunContext &context, uint32_t set, const Route *routes, size_t top_k) {
  auto *forecast = static_cast<Forecast *>(ctx);
  if (context.m != 1) return;
  size_t used = 0;
  for (size_t i = 0; i < top_k; ++i) {
    if (routes[i].expert != kNoExpert) forecast->likely[used++] = routes[i].expert;
  }
  forecast->paths.Saw(set, forecast->likely.subspan(0, used));
  const uint32_t next = set + 1 == forecast->sets ? 0 : set + 1;
  const uint32_t count = forecast->paths.Likely(next, forecast->likely);
  for (uint32_t i = 0; i < count; ++i) Prefetch(forecast->streaming, next, forecast->likely[i]);
}

}  // namespace

void LayOutForecast(const ForecastShape &shape, Arena *arena, Forecast *forecast) {
  *forecast = {};
  forecast->way = shape.way;
  forecast->sets = shape.sets;
  if (shape.way == ExpertPrefetch::kGate) {
    forecast->chains = arena->Take<RouterChain>(shape.sets);
    forecast->normed = arena->Take<int8_t>(shape.hidden);
    forecast->logits = arena->Take<int32_t>(shape.logits);
    forecast->routes = arena->Take<Route>(shape.top_k);
  } else if (shape.way == ExpertPrefetch::kPath) {
    forecast->paths.Open(arena, shape.sets, shape.experts);
    forecast->likely = arena->Take<uint32_t>(shape.top_k);
  }
}

void OpenForecast(Forecast *forecast, const Graph *graph, StreamingExperts *streaming) {
  forecast->graph = graph;
  forecast->streaming = streaming;
  if (forecast->way != ExpertPrefetch::kGate) return;
  for (RouterChain &chain : forecast->chains) chain = {};
  for (uint32_t i = 0; i < graph->body.size(); ++i) {
    if (graph->body[i].kind == OpKind::kExperts) forecast->chains[graph->body[i].experts.set] = ChainOf(*graph, i);
  }
  // Values wider than the buffers, or another stream than this layer's, are not what the compiler writes.
  for (RouterChain &chain : forecast->chains) {
    if (!chain.known) continue;
    const ExpertsOp &experts = graph->body[chain.experts].experts;
    const Value &in = graph->values[experts.in.value], &router = graph->values[experts.router.value];
    chain.known = in.width <= forecast->normed.size() && router.width <= forecast->logits.size() && in.dtype == DType::kS8;
  }
}

ExpertForecast ForecastOf(Forecast *forecast, Span<Step> body) {
  forecast->body = body;
  return {forecast, forecast->way == ExpertPrefetch::kGate ? GuessByGate : GuessByPath};
}

}  // namespace acorn
