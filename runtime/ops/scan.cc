#include "ops/op.h"

namespace acorn {

void Run(const ScanOp &op, const RunContext &context) {
  const size_t channels = op.x.width / op.heads, columns = op.b.width / op.groups;
  // A task is some channels of one head: few enough that their state stays in the first cache.
  constexpr size_t kTaskChannels = 32;
  const size_t blocks = (channels + kTaskChannels - 1) / kTaskChannels;
  const auto run = [&](uint32_t task, uint32_t) {
    const size_t head = task / blocks, first = task % blocks * kTaskChannels;
    const size_t group = head / (op.heads / op.groups), column = head * channels + first;
    scan::Args args = {};
    args.y_stride = Stride<int16_t>(context, op.out);
    args.y = Elements<int16_t>(context, op.out) + column;
    args.x_stride = Stride<int16_t>(context, op.x);
    args.x = Elements<int16_t>(context, op.x) + column;
    args.b_stride = Stride<int16_t>(context, op.b);
    args.b = Elements<int16_t>(context, op.b) + group * columns;
    args.c_stride = Stride<int16_t>(context, op.c);
    args.c = Elements<int16_t>(context, op.c) + group * columns;
    args.dt_stride = Stride<int16_t>(context, op.dt);
    args.dt = Elements<int16_t>(context, op.dt) + head;
    args.state = reinterpret_cast<int32_t *>(context.states[op.state]) + column * columns;
    args.m = context.m;
    args.channels = channels - first < kTaskChannels ? channels - first : kTaskChannels;
    args.n = columns;
    args.head = {op.dt_multipliers[head],    op.dt_shift,    op.dt_bias[head],           op.softplus_table, op.dt_least, op.dt_most,
                 op.decay_multipliers[head], op.decay_shift, op.input_multipliers[head], op.input_shift};
    args.skip = op.skip[head];
    args.out_shift = op.out_shifts[head];
    context.kernels->scan->run(args);
  };
  ForTasks(context, op.heads * blocks, context.m * op.x.width * columns, run);
}

}  // namespace acorn
