#include "ops/op.h"

namespace acorn {

void Run(const LayerNormOp &op, const RunContext &context) {
  const bool s8 = context.graph->values[op.out.value].dtype == DType::kS8;
  ForRows(context, op.in.width, [&](size_t first, size_t rows, uint32_t) {
    layernorm::Args args = {};
    args.x_stride = Stride<int16_t>(context, op.in);
    args.x = Elements<int16_t>(context, op.in) + first * args.x_stride;
    if (s8) {
      args.y_stride = Stride<int8_t>(context, op.out);
      args.y = Elements<int8_t>(context, op.out) + first * args.y_stride;
    } else {
      args.y_stride = Stride<int16_t>(context, op.out);
      args.y = Elements<int16_t>(context, op.out) + first * args.y_stride;
    }
    args.m = rows;
    args.groups = op.groups;
    args.depth = op.in.width / op.groups;
    args.gamma = op.gamma;
    args.bias = op.bias;
    args.eps_term = op.eps_term;
    args.shift = op.shift;
    args.zero_point = op.zero_point;
    (s8 ? context.kernels->layernorm->s8 : context.kernels->layernorm->s16)(args);
  });
}

}  // namespace acorn
