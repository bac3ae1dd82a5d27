#include "ops/op.h"

namespace acorn {

void Run(const RmsNormOp &op, const RunContext &context) {
  const bool s8 = context.graph->values[op.out.value].dtype == DType::kS8;
  ForRows(context, op.in.width, [&](size_t first, size_t rows, uint32_t) {
    rmsnorm::Args args = {};
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
    args.depth = op.in.width / op.groups;
    args.groups = op.gamma_stride == 0 ? op.groups : 1;
    args.eps_term = op.eps_term;
    args.multiplier = op.factor.multiplier;
    args.shift = op.factor.shift;
    args.zero_point = op.zero_point;
    const rmsnorm::Run run = s8 ? context.kernels->rmsnorm->s8 : context.kernels->rmsnorm->s16;
    // Groups of the same gains in one call, others one by one.
    for (size_t group = 0; group < op.groups; group += args.groups) {
      args.gamma = op.gamma + group * op.gamma_stride;
      run(args);
      args.x += args.depth;
      args.y = static_cast<uint8_t *>(args.y) + args.depth * (s8 ? sizeof(int8_t) : sizeof(int16_t));
    }
  });
}

}  // namespace acorn
