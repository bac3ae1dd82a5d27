#include "ops/op.h"

namespace acorn {

void Run(const ScanOp &op, const RunContext &context) {
  const State &state = context.graph->states[op.state];
  const size_t channels = op.x.width / op.heads, columns = op.b.width / op.groups;
  // A task is some channels of one head: few enough that their state stays in the first cache. Whole runs, or a part of one.
  constexpr size_t kTaskChannels = 32;
  const size_t runs = channels / op.run, task_runs = op.run < kTaskChannels ? kTaskChannels / op.run : 1;
  const size_t parts = (op.run + kTaskChannels - 1) / kTaskChannels;  // of a run
  const size_t blocks = (runs + task_runs - 1) / task_runs * parts;
  const auto run = [&](uint32_t task, uint32_t) {
    const size_t head = task / blocks, first_run = task % blocks / parts * task_runs, inside = task % parts * kTaskChannels;
    const size_t group = head / (op.heads / op.groups), column = (first_run * op.heads + head) * op.run + inside;
    const size_t count = runs - first_run < task_runs ? runs - first_run : task_runs;  // of runs
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
    args.run = op.run - inside < kTaskChannels ? op.run - inside : kTaskChannels;
    args.run_step = op.heads * op.run;
    args.state_stride = state.columns;
    args.state = reinterpret_cast<int32_t *>(context.states[op.state]) +
                 (head * (state.rows / op.heads) + first_run * op.run + inside) * args.state_stride;
    args.m = context.m;
    args.channels = count * args.run;
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
