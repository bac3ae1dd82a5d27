#include "ops/op.h"

namespace acorn {

void Run(const AppendOp &op, const RunContext &context) {
  const Cache &cache = context.graph->caches[op.cache];
  const kv_cache::TokenRows token_rows = TokenRowsOf(context, cache);
  ForRows(context, op.k.width, [&](size_t first, size_t rows, uint32_t) {
    append::Args args = {};
    args.k_cache = context.caches[op.cache].k;
    args.v_cache = context.caches[op.cache].v;
    args.capacity = token_rows.all();
    args.kv_heads = cache.kv_heads;
    args.head_dim = cache.head_dim;
    args.k_dim = op.k_dim;
    args.v_dim = op.v_dim;
    args.bits = cache.bits;
    args.k_stride = Stride<int8_t>(context, op.k);
    args.v_stride = Stride<int16_t>(context, op.v);
    args.multiplier = op.v_multipliers;
    args.shift = op.v_shift;
    for (const size_t end = first + rows; first < end; first += args.m) {  // once more where the ring begins anew
      args.first_row = token_rows.RowOf(context.first_token + first);
      const size_t room = args.capacity - args.first_row;
      args.m = end - first < room ? end - first : room;
      args.k = Elements<int8_t>(context, op.k) + first * args.k_stride;
      args.v = Elements<int16_t>(context, op.v) + first * args.v_stride;
      context.kernels->append->run(args);
    }
  });
}

}  // namespace acorn
