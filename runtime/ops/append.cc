#include "ops/op.h"

namespace acorn {

void Run(const AppendOp &op, const RunContext &context) {
  const Cache &cache = context.graph->caches[op.cache];
  ForRows(context, op.k.width, [&](size_t first, size_t rows, uint32_t) {
    append::Args args = {};
    args.k_cache = context.caches[op.cache].k;
    args.v_cache = context.caches[op.cache].v;
    args.capacity = context.cache_rows;
    args.first_row = context.first_row + first;
    args.m = rows;
    args.kv_heads = cache.kv_heads;
    args.head_dim = cache.head_dim;
    args.k_dim = op.k_dim;
    args.v_dim = op.v_dim;
    args.bits = cache.bits;
    args.k_stride = Stride<int8_t>(context, op.k);
    args.k = Elements<int8_t>(context, op.k) + first * args.k_stride;
    args.v_stride = Stride<int16_t>(context, op.v);
    args.v = Elements<int16_t>(context, op.v) + first * args.v_stride;
    args.multiplier = op.v_multipliers;
    args.shift = op.v_shift;
    context.kernels->append->run(args);
  });
}

}  // namespace acorn
