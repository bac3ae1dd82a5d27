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

// What a call on query rows from `first` on, of heads from `head` on, needs to know beside its scratch.
attention::Args ArgsOf(const AttentionOp &op, const RunContext &context, size_t first, size_t rows, size_t head, size_t heads) {
  const Cache &cache = context.graph->caches[op.cache];
  const size_t head_dim = cache.head_dim;
  const uint64_t head_bytes = kv_cache::HeadBytes(TokenRowsOf(context, cache).all(), head_dim, cache.bits);
  const size_t kv_head = head / (op.heads / cache.kv_heads);
  attention::Args args = {};
  args.y_stride = Stride<int8_t>(context, op.out);
  args.y = Elements<int8_t>(context, op.out) + first * args.y_stride + head * op.run;
  args.q_stride = Stride<int8_t>(context, op.q);
  args.q = Elements<int8_t>(context, op.q) + first * args.q_stride + head * op.k_dim;
  args.m = rows;
  args.heads = heads;
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
  args.k = context.caches[op.cache].k + kv_head * head_bytes;
  args.v = context.caches[op.cache].v + kv_head * head_bytes;
  args.exp_multiplier = op.exp_multipliers + head;
  args.out_multiplier = op.out_multipliers + head;
  args.exp_shift = op.exp_shift;
  args.out_shift = op.out_shift;
  args.zero_point = op.zero_point;
  return args;
}

// The columns behind those of the heads.
void FillRest(const AttentionOp &op, const RunContext &context, size_t first, size_t rows) {
  const size_t width = op.heads * op.v_dim, rest = op.out.width - width, stride = Stride<int8_t>(context, op.out);
  if (rest == 0) return;
  int8_t *y = Elements<int8_t>(context, op.out) + first * stride + width;
  for (size_t row = 0; row < rows; ++row, y += stride) __builtin_memset(y, op.zero_point, rest);
}

// Few rows over many keys, the keys of each KV head in parts: the KV heads alone would leave threads without work. All threads'
// scratch together holds what the parts share, from its beginning, and each thread's queries, at its end.
struct Split {
  size_t parts;  // of each KV head; 0: not split
  size_t part_keys;
  size_t kv_heads, pairs, keys, num_stride;
  uint8_t *scores;   // [kv_heads, PartScoreBytes]
  int64_t *num;      // [kv_heads, parts, pairs, num_stride]
  uint64_t *den;     // [kv_heads, parts, pairs]
  int32_t *largest;  // [kv_heads, parts, pairs]
  int8_t *queries;   // [threads, QueryBytes]
};

constexpr size_t kSplitKeys = 1536;    // with fewer, two loops for one and adding up cost as much as they save: 3 us
constexpr size_t kPartKeys = 256;      // at least
constexpr size_t kPartMultiple = 64;   // keys that kernels like to score together

// So many parts that threads end as early as possible; of those the fewest.
size_t PartsOf(size_t kv_heads, size_t threads, size_t keys) {
  const auto rounds = [&](size_t parts) { return (kv_heads * parts + threads - 1) / threads; };
  size_t best = 1;
  for (size_t parts = 2; parts <= threads && parts * kPartKeys <= keys; ++parts) {
    if (rounds(parts) * best < rounds(best) * parts) best = parts;
  }
  return best;
}

Split SplitOf(const AttentionOp &op, const RunContext &context) {
  const Cache &cache = context.graph->caches[op.cache];
  const size_t threads = context.parallel.threads;
  Split split = {};
  split.kv_heads = cache.kv_heads;
  split.pairs = context.m * (op.heads / cache.kv_heads);
  if (cache.window != 0 || split.pairs > attention::kPairs || context.kernels->attention->score_part == nullptr) return {};
  split.keys = TokenRowsOf(context, cache).RowOf(context.first_token) + context.m;
  if (split.keys < kSplitKeys) return {};
  const size_t parts = PartsOf(split.kv_heads, threads, split.keys);
  if (parts == 1) return {};
  split.part_keys = AlignUp((split.keys + parts - 1) / parts, kPartMultiple);
  split.parts = (split.keys + split.part_keys - 1) / split.part_keys;
  split.num_stride = kv_cache::PaddedDim(op.v_dim);
  const uint64_t score_bytes = split.kv_heads * attention::PartScoreBytes(split.pairs, split.keys);
  const uint64_t sums = split.kv_heads * split.parts * split.pairs;
  const uint64_t num_bytes = sums * split.num_stride * sizeof(int64_t), den_bytes = sums * sizeof(uint64_t);
  const uint64_t query_bytes = threads * attention::QueryBytes(cache.head_dim), all = threads * context.thread_scratch_bytes;
  if (score_bytes + num_bytes + den_bytes + sums * sizeof(int32_t) + query_bytes > all) return {};
  split.scores = context.thread_scratch;
  split.num = reinterpret_cast<int64_t *>(split.scores + score_bytes);
  split.den = reinterpret_cast<uint64_t *>(split.scores + score_bytes + num_bytes);
  split.largest = reinterpret_cast<int32_t *>(split.scores + score_bytes + num_bytes + den_bytes);
  split.queries = reinterpret_cast<int8_t *>(context.thread_scratch + all - query_bytes);
  return split;
}

void RunSplit(const AttentionOp &op, const RunContext &context, const Split &split) {
  const size_t group = op.heads / split.kv_heads;
  const size_t score_bytes = attention::PartScoreBytes(split.pairs, split.keys);
  const size_t query_bytes = attention::QueryBytes(context.graph->caches[op.cache].head_dim);
  const auto run = [&](attention::Run run_part, size_t kv_head, size_t index, uint32_t thread) {
    const size_t begin = index * split.part_keys, end = begin + split.part_keys, sums = kv_head * split.parts * split.pairs;
    const attention::Part part = {index,
                                  split.parts,
                                  begin,
                                  end < split.keys ? end : split.keys,
                                  split.queries + thread * query_bytes,
                                  split.largest + sums,
                                  split.den + sums,
                                  split.num + sums * split.num_stride};
    attention::Args args = ArgsOf(op, context, 0, context.m, kv_head * group, group);
    args.scratch = split.scores + kv_head * score_bytes;
    args.part = &part;
    run_part(args);
  };
  const attention::Kernel &kernel = *context.kernels->attention;
  const attention::Run run_parts[] = {kernel.score_part, kernel.value_part};
  for (const attention::Run run_part : run_parts) {
    context.parallel.For(static_cast<uint32_t>(split.kv_heads * split.parts), [&](uint32_t task, uint32_t thread) {
      if (!IsStopped(context, thread)) run(run_part, task / split.parts, task % split.parts, thread);
    });
  }
  if (IsStopped(context, 0)) return;  // there may be no sums
  for (size_t kv_head = 0; kv_head < split.kv_heads; ++kv_head) run(attention::Join, kv_head, 0, 0);
  FillRest(op, context, 0, context.m);
}

}  // namespace

OpNeeds Needs(const AttentionOp &, const Cache &cache, const PlanContext &context) {
  return {0, AlignUp(attention::ScratchBytes(ScoreRows(cache, context.extent), cache.head_dim), 64)};
}

void Run(const AttentionOp &op, const RunContext &context) {
  const Split split = SplitOf(op, context);
  if (split.parts != 0) return RunSplit(op, context, split);
  const Cache &cache = context.graph->caches[op.cache];
  const size_t group = op.heads / cache.kv_heads;
  const size_t row_blocks = (context.m + attention::kTaskRows - 1) / attention::kTaskRows;
  // Query heads that share a KV head share the reading of its keys (1.0 against 1.7 ns a pair and key), unless that leaves
  // threads without work.
  const bool by_heads = cache.kv_heads * row_blocks < context.parallel.threads;
  const size_t heads_per_task = by_heads ? 1 : group;
  const size_t head_tasks = op.heads / heads_per_task;
  context.parallel.For(static_cast<uint32_t>(head_tasks * row_blocks), [&](uint32_t task, uint32_t thread) {
    if (IsStopped(context, thread)) return;
    const size_t head = task % head_tasks * heads_per_task;
    // The last rows see the most keys: first, so that no thread is left with a long task at the end.
    const size_t first = (row_blocks - 1 - task / head_tasks) * attention::kTaskRows;
    const size_t rows = context.m - first < attention::kTaskRows ? context.m - first : attention::kTaskRows;
    attention::Args args = ArgsOf(op, context, first, rows, head, heads_per_task);
    args.scratch = ThreadScratch(context, thread);
    context.kernels->attention->run(args);
    if (head == 0) FillRest(op, context, first, rows);
  });
}

}  // namespace acorn
