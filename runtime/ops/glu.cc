#include "ops/op.h"

namespace acorn {

void Run(const GluOp &op, const RunContext &context) {
  ForRows(context, op.out.width, [&](size_t first, size_t rows, uint32_t) {
    glu::Args args = {};
    args.y_stride = Stride<int16_t>(context, op.out);
    args.y = Elements<int16_t>(context, op.out) + first * args.y_stride;
    args.gate_stride = Stride<int16_t>(context, op.gate);
    args.gate = Elements<int16_t>(context, op.gate) + first * args.gate_stride;
    args.up_stride = Stride<int16_t>(context, op.up);
    args.up = Elements<int16_t>(context, op.up) + first * args.up_stride;
    args.m = rows;
    args.n = op.out.width;
    args.table = op.table;
    args.index_multiplier = op.index.multiplier;
    args.index_shift = op.index.shift;
    args.shift = op.shift;
    context.kernels->glu->run(args);
  });
}

}  // namespace acorn
