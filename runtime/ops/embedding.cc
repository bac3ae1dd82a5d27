#include "kernels/embed/kernel.h"
#include "ops/op.h"

namespace acorn {

void Run(const EmbeddingOp &op, const RunContext &context) {
  const Weight &weight = context.graph->weights[op.weight];
  ForRows(context, weight.k, [&](size_t first, size_t rows, uint32_t) {
    embed::Args args = {};
    args.y_stride = Stride<int16_t>(context, op.out);
    args.y = Elements<int16_t>(context, op.out) + first * args.y_stride;
    args.tokens = context.tokens + first;
    args.m = rows;
    args.w = weight.data;
    args.n = weight.n;
    args.k = weight.k;
    args.k_panel = weight.k_panel;
    args.format = weight.format;
    args.layout = weight.layout;
    args.multiplier = op.multipliers;
    args.shift = op.shift;
    embed::Run(args);
  });
}

}  // namespace acorn
