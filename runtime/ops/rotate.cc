#include "ops/op.h"

namespace acorn {

void Run(const RotateOp &op, const RunContext &context) {
  const size_t half = context.graph->ropes[op.rope].rotary_dims / 2;
  const bool s8 = context.graph->values[op.out.value].dtype == DType::kS8;
  ForRows(context, op.in.width, [&](size_t first, size_t rows, uint32_t) {
    rotate::Args args = {};
    if (s8) {
      args.y_stride = Stride<int8_t>(context, op.out);
      args.y = Elements<int8_t>(context, op.out) + first * args.y_stride;
    } else {
      args.y_stride = Stride<int16_t>(context, op.out);
      args.y = Elements<int16_t>(context, op.out) + first * args.y_stride;
    }
    args.x_stride = Stride<int16_t>(context, op.in);
    args.x = Elements<int16_t>(context, op.in) + first * args.x_stride;
    args.m = rows;
    args.heads = op.heads;
    args.head_dim = op.in.width / op.heads;
    args.half = half;
    args.cosine = context.ropes[op.rope].cosine + first * half;
    args.sine = context.ropes[op.rope].sine + first * half;
    args.multiplier = op.multipliers;
    args.shift = op.shift;
    args.pairs = op.pairs;
    args.key_heads = op.key_heads;
    (s8 ? context.kernels->rotate->s8 : context.kernels->rotate->s16)(args);
  });
}

}  // namespace acorn
