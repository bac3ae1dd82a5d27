#include "ops/op.h"

namespace acorn {

void Run(const AddOp &op, const RunContext &context) {
  ForRows(context, op.out.width, [&](size_t first, size_t rows, uint32_t) {
    add::Args args = {};
    args.y_stride = Stride<int16_t>(context, op.out);
    args.y = Elements<int16_t>(context, op.out) + first * args.y_stride;
    args.a_stride = Stride<int16_t>(context, op.a);
    args.a = Elements<int16_t>(context, op.a) + first * args.a_stride;
    args.b_stride = Stride<int16_t>(context, op.b);
    args.b = Elements<int16_t>(context, op.b) + first * args.b_stride;
    args.m = rows;
    args.n = op.out.width;
    args.a_multiplier = op.a_multiplier;
    args.b_multiplier = op.b_multiplier;
    args.shift = op.shift;
    context.kernels->add->run(args);
  });
}

}  // namespace acorn
