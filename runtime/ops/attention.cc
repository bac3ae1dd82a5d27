#include "ops/op.h"

namespace acorn {

namespace {

constexpr uint64_t kTileRows = kv_cache::kTileRows;

// Scores that a task needs room for.
uint64_t ScoreRows(const Cache &cache, const kv_cache::Extent &extent) {
  if (cache.window == 0) return extent.prefix_rows + extent.tokens;
  // What its first row sees begins inside of a tile; its last row sees as many keys more as it has rows before.
  const uint64_t most = cache.window + attention::kTaskRows - 1 + kTileRows - 1;
  return attention::KeyRows(extent.prefix_rows, most < extent.tokens ? most : extent.tokens);
}

// The keys that the rows from `first` on see.
void FindKeys(const RunContext &context, const Cache &cache, size_t first, attention::Args *args) {
  const uint64_t token = context.first_token + first;
  const kv_cache::TokenRows rows = TokenRowsOf(context, cache);
  if (cache.window == 0) {
    args->ring_rows = kv_cache::PaddedRows(rows.all());
    args->first_key = rows.RowOf(token);
    args->window = attention::kNoWindow;
    return;
  }
  const uint64_t oldest = token < cache.window ? 0 : token - cache.window + 1, begin = oldest - oldest % kTileRows;
  args->sinks = context.extent.prefix_rows;
  args->ring_rows = rows.count;
  args->first_slot = begin % rows.count;
  args->first_key = token - begin;
  args->window = cache.window;
}

}  // namespace

OpNeeds Needs(const AttentionOp &, const Cache &cache, const PlanContext &context) {
  return {0, AlignUp(attention::ScratchBytes(ScoreRows(cache, context.extent), cache.head_dim), 64)};
}

void Run(const AttentionOp &op, const RunContext &context) {
  const Cache &cache = context.graph->caches[op.cache];
  const size_t head_dim = cache.head_dim;
  const size_t group = op.heads / cache.kv_heads;
  const size_t width = op.heads * op.v_dim, rest = op.out.width - width;
  const size_t row_blocks = (context.m + attention::kTaskRows - 1) / attention::kTaskRows;
  // Query heads that share a KV head share the reading of its keys (1.0 against 1.7 ns a pair and key), unless that leaves
  // threads without work.
  const bool split = cache.kv_heads * row_blocks < context.parallel.threads;
  const size_t heads_per_task = split ? 1 : group;
  const size_t head_tasks = op.heads / heads_per_task;
  const uint64_t head_bytes = kv_cache::HeadBytes(TokenRowsOf(context, cache).all(), head_dim, cache.bits);
  context.parallel.For(static_cast<uint32_t>(head_tasks * row_blocks), [&](uint32_t task, uint32_t thread) {
    if (IsStopped(context, thread)) return;
    const size_t head = task % head_tasks * heads_per_task;
    // The last rows see the most keys: first, so that no thread is left with a long task at the end.
    const size_t first = (row_blocks - 1 - task / head_tasks) * attention::kTaskRows;
    attention::Args args = {};
    args.y_stride = Stride<int8_t>(context, op.out);
    int8_t *const y = Elements<int8_t>(context, op.out) + first * args.y_stride;
    args.y = y + head * op.run;
    args.q_stride = Stride<int8_t>(context, op.q);
    args.q = Elements<int8_t>(context, op.q) + first * args.q_stride + head * op.k_dim;
    args.m = context.m - first < attention::kTaskRows ? context.m - first : attention::kTaskRows;
    args.heads = heads_per_task;
    args.head_dim = head_dim;
    args.k_dim = op.k_dim;
    args.v_dim = op.v_dim;
    args.run = op.run;
    args.run_step = op.heads * op.run;
    args.bits = cache.bits;
    FindKeys(context, cache, first, &args);
    if (op.sink_q.width != 0) {
      args.sink_q_stride = Stride<int8_t>(context, op.sink_q);
      args.sink_q = Elements<int8_t>(context, op.sink_q) + first * args.sink_q_stride + head * op.k_dim;
    }
    args.k = context.caches[op.cache].k + head / group * head_bytes;
    args.v = context.caches[op.cache].v + head / group * head_bytes;
    args.exp_multiplier = op.exp_multipliers + head;
    args.out_multiplier = op.out_multipliers + head;
    args.exp_shift = op.exp_shift;
    args.out_shift = op.out_shift;
    args.zero_point = op.zero_point;
    args.scratch = ThreadScratch(context, thread);
    context.kernels->attention->run(args);
    if (head != 0 || rest == 0) return;
    for (size_t row = 0; row < args.m; ++row) __builtin_memset(y + row * args.y_stride + width, op.zero_point, rest);
  });
}

}  // namespace acorn
