// A linear layer: tasks of channels; in each, blocks of rows through a matrix kernel into int32 sums that stay in the cache,
// then requantise. An s15 input is two s8 rows, high and low (docs/ARITHMETIC.md §3), side by side in the same pass.
#include "ops/op.h"

namespace acorn {
namespace {

constexpr size_t kRowBlock = 128;        // input rows of a block (s15: 64 rows of two)
constexpr size_t kStreamRows = 4;        // up to here a task is one long stretch of weights
constexpr size_t kStreamChannels = 4096;  // of sums a task holds then: 4 x 4096 are 64 KiB
// Channels of a task in prefill. A kernel call of 96 or more runs at full speed, one of 32 a tenth slower (it sums x anew);
// 128 x 192 sums are 96 KiB.
constexpr size_t kLeastChannels = 96;
constexpr size_t kMostChannels = 192;

// How a layer is cut; the same for Needs and Run.
struct Cut {
  size_t task_channels;
  size_t row_block;  // input rows of one kernel call
};

constexpr size_t Ceil(size_t a, size_t b) { return (a + b - 1) / b; }

// The size of task that leaves the busiest thread the least to do; the larger of equals.
size_t ShareOut(size_t n, size_t nr, uint32_t threads) {
  size_t best = nr;
  size_t best_load = SIZE_MAX;
  const size_t fair = Ceil(Ceil(n, threads), nr) * nr;
  const size_t least = fair < kLeastChannels ? fair : Ceil(kLeastChannels, nr) * nr;
  for (size_t channels = least; channels <= kMostChannels; channels += nr) {
    const size_t load = Ceil(Ceil(n, channels), threads) * channels;
    if (load <= best_load) {
      best = channels;
      best_load = load;
    }
  }
  return best;
}

Cut CutOf(size_t rows, size_t n, size_t nr, uint32_t threads) {
  if (rows <= kStreamRows) {
    const size_t tasks = threads == 1 ? 1 : threads * 4;
    const size_t channels = Ceil(Ceil(n, nr), tasks) * nr;
    return {channels < kStreamChannels ? channels : kStreamChannels, rows};
  }
  return {ShareOut(n, nr, threads), rows < kRowBlock ? rows : kRowBlock};
}

size_t RowsPerToken(DType input) { return input == DType::kS15 ? 2 : 1; }

// High and low rows of s15 values.
void SplitValues(int8_t *__restrict high, int8_t *__restrict low, const int16_t *__restrict x, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const int value = x[i];
    const int h = (value + 64) >> 7;
    high[i] = static_cast<int8_t>(h);
    low[i] = static_cast<int8_t>(value - 128 * h);
  }
}

// Blocks of a constant size become vector instructions on every machine.
void SplitRow(int8_t *high, int8_t *low, const int16_t *x, size_t k) {
  constexpr size_t kBlock = 16;
  size_t i = 0;
  for (; k - i >= kBlock; i += kBlock) SplitValues(high + i, low + i, x + i, kBlock);
  SplitValues(high + i, low + i, x + i, k - i);
}

}  // namespace

OpNeeds Needs(const LinearOp &, const Weight &weight, DType input, const PlanContext &context) {
  const GemmKernel *kernel = SelectGemm(weight.format, weight.layout, context.kernels->features);
  const uint64_t factor = RowsPerToken(input);
  const uint64_t most = context.rows * factor;
  OpNeeds needs = {factor == 2 ? most * AlignUp(weight.k, 64) : 0, 0};
  // The sizes of a call are not monotone in its rows: a short call may hold more channels than a long one.
  for (uint64_t rows = factor; rows <= most; rows += factor) {
    if (rows > kStreamRows && rows != most && rows != kRowBlock) continue;
    const Cut cut = CutOf(rows, weight.n, kernel->nr, context.threads);
    const uint64_t sums = AlignUp(cut.row_block * cut.task_channels * sizeof(int32_t), 64);
    const uint64_t bytes = sums + AlignUp(kernel->scratch_bytes(cut.row_block, weight.k), 64);
    if (bytes > needs.thread_bytes) needs.thread_bytes = bytes;
  }
  return needs;
}

void Run(const LinearOp &op, const RunContext &context) {
  const Weight &weight = context.graph->weights[op.weight];
  const DType input = context.graph->values[op.in.value].dtype;
  const DType output = context.graph->values[op.out.value].dtype;
  const GemmKernel *kernel = SelectGemm(weight.format, weight.layout, context.kernels->features);
  const size_t per_token = RowsPerToken(input);
  const size_t rows = context.m * per_token;

  const int8_t *x;
  size_t x_stride;
  if (per_token == 2) {
    x_stride = AlignUp(weight.k, 64);
    int8_t *split = reinterpret_cast<int8_t *>(context.step_scratch);
    ForRows(context, weight.k, [&](size_t first, size_t count, uint32_t) {
      for (size_t r = first; r < first + count; ++r) {
        SplitRow(split + 2 * r * x_stride, split + (2 * r + 1) * x_stride,
                 Elements<int16_t>(context, op.in) + r * Stride<int16_t>(context, op.in), weight.k);
      }
    });
    x = split;
  } else {
    x = Elements<int8_t>(context, op.in);
    x_stride = Stride<int8_t>(context, op.in);
  }

  const requantise::Kernel &family = *context.kernels->requantise;
  const requantise::Function finish =
      per_token == 2 ? (output == DType::kS8 ? family.two_row_s8 : output == DType::kS16 ? family.two_row_s16 : family.two_row_s32)
                     : (output == DType::kS8 ? family.s8 : output == DType::kS16 ? family.s16 : family.s32);
  const size_t y_elem_bytes = DTypeBytes(output);
  const uint64_t y_row_bytes = context.values[op.out.value].row_bytes;

  const Cut cut = CutOf(rows, weight.n, kernel->nr, context.parallel.threads);
  const size_t tasks = (weight.n + cut.task_channels - 1) / cut.task_channels;
  const size_t sums_bytes = AlignUp(cut.row_block * cut.task_channels * sizeof(int32_t), 64);
  context.parallel.For(static_cast<uint32_t>(tasks), [&](uint32_t task, uint32_t thread) {
    const size_t begin = task * cut.task_channels;
    const size_t end = begin + cut.task_channels < weight.n ? begin + cut.task_channels : weight.n;
    uint8_t *scratch = ThreadScratch(context, thread);
    GemmArgs gemm = {};
    gemm.w = weight.data;
    gemm.x_stride = x_stride;
    gemm.k = weight.k;
    gemm.group = GroupSize(weight.format);
    gemm.k_panel = gemm.group != 0 ? 0 : weight.k_panel;
    gemm.n_begin = begin;
    gemm.n_end = end;
    gemm.n = weight.n;
    gemm.acc = reinterpret_cast<int32_t *>(scratch);
    gemm.acc_stride = end - begin;
    gemm.scratch = scratch + sums_bytes;
    requantise::Args epilogue = {};
    epilogue.acc = gemm.acc;
    epilogue.acc_low = gemm.acc + gemm.acc_stride;
    epilogue.acc_stride = gemm.acc_stride * per_token;
    epilogue.y_stride = y_row_bytes / y_elem_bytes;
    epilogue.n = end - begin;
    epilogue.bias = op.bias + begin;
    epilogue.multiplier = op.multipliers + begin;
    epilogue.shift = op.shift;
    epilogue.zero_point = op.zero_point;
    for (size_t row = 0; row < rows; row += cut.row_block) {
      gemm.m = rows - row < cut.row_block ? rows - row : cut.row_block;
      gemm.x = x + row * x_stride;
      kernel->run(gemm);
      epilogue.m = gemm.m / per_token;
      epilogue.y = context.values[op.out.value].data + row / per_token * y_row_bytes + (op.out.offset + begin) * y_elem_bytes;
      finish(epilogue);
    }
  });
}

}  // namespace acorn
