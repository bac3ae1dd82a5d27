#include "ops/op.h"

namespace acorn {

void Run(const ConvOp &op, const RunContext &context) {
  // Columns go their own ways; the rows of each follow one another.
  constexpr size_t kTaskColumns = 128;
  const size_t width = op.in.width;
  const auto run = [&](uint32_t task, uint32_t) {
    const size_t first = task * kTaskColumns;
    conv::Args args = {};
    args.y_stride = Stride<int16_t>(context, op.out);
    args.y = Elements<int16_t>(context, op.out) + first;
    args.x_stride = Stride<int16_t>(context, op.in);
    args.x = Elements<int16_t>(context, op.in) + first;
    args.history = reinterpret_cast<int16_t *>(context.states[op.state]) + first;
    args.parameter_stride = width;
    args.m = context.m;
    args.n = width - first < kTaskColumns ? width - first : kTaskColumns;
    args.taps = op.taps;
    args.weights = op.weights + first;
    args.bias = op.bias + first;
    args.multiplier = op.multipliers + first;
    args.index_multiplier = op.index_multipliers + first;
    args.shift = op.shift;
    args.index_shift = op.index_shift;
    args.table = op.table;
    context.kernels->conv->run(args);
  };
  ForTasks(context, (width + kTaskColumns - 1) / kTaskColumns, context.m * width * op.taps, run);
}

}  // namespace acorn
