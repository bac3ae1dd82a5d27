// A linear layer: tasks of channels; in each, blocks of rows through a matrix kernel into int32 sums that stay in the cache,
// then requantise; where a Glu follows, that too, of gates and ups that no other cache has seen. An s15 input is two s8 rows, high
// and low (docs/ARITHMETIC.md §3), side by side in the same pass.
#include "ops/linear_tile.h"

namespace acorn {
namespace {

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

// Calls body(Channels) for the tiles of the weight whose first column of the output lies in [begin, end): pieces that end where runs
// end. Pieces that are alike, as those of heads are, go together where the kernel takes them so. begin: a multiple of kernel.nr
template <typename Body>
void ForPieces(const IndexRuns &rows, const GemmKernel &kernel, size_t begin, size_t end, const Body &body) {
  if (rows.empty()) return body(Channels{begin, end, begin});
  Channels piece = {0, 0, 0};
  size_t column = 0;  // of the run's first row
  for (const IndexRun &run : rows) {
    if (column >= end) break;
    const size_t first = column < begin ? AlignUp(begin - column, kernel.nr) : 0, next = AlignUp(end - column, kernel.nr);
    const size_t last = next < run.count ? next : run.count;
    column += run.count;
    if (first >= last) continue;
    const size_t from = run.first + first, count = last - first;
    const size_t step = piece.runs == 1 ? from - piece.begin : piece.run_step;
    if (kernel.layout == Layout::kC4 && count % kMostTileChannels == 0 && count == piece.end - piece.begin && from > piece.begin &&
        from == piece.begin + piece.runs * step) {
      piece.run_step = step;
      ++piece.runs;
      continue;
    }
    if (piece.end != 0) body(piece);
    piece = {from, run.first + last, column - run.count + first};
  }
  if (piece.end != 0) body(piece);
}

// Of which threads the scratch holds what kernels make of a loop's rows: a thread makes it in its first task.
struct Prepared {
  bool by[kMaxThreads] = {};
};

// Gates and ups of a block of rows, side by side.  cut: of two matrices
uint64_t GatedBytes(const Cut &cut, size_t per_token) {
  return AlignUp(cut.row_block / per_token * 2 * cut.task_channels * sizeof(int16_t), 64);
}

// A task has the same channels of the gates and of the ups.  rows: of tile.x
void RunGated(const LinearOp &op, const RunContext &context, const Tile &both, size_t rows) {
  const GluOp &glu = *op.glu;
  const IndexRuns gate_rows = {op.rows.runs, op.rows.size / 2};
  const size_t half = glu.out.width, distance = gate_rows.empty() ? half : gate_rows.end()->first - gate_rows.runs->first;
  const Cut cut = CutOf(rows, half, both.kernel->nr, context.parallel.threads, 2);
  glu::Args act = {};
  act.y_stride = Stride<int16_t>(context, glu.out);
  act.table = glu.table;
  act.index_multiplier = glu.index.multiplier;
  act.index_shift = glu.index.shift;
  act.shift = glu.shift;
  Prepared prepared;
  context.parallel.For(static_cast<uint32_t>(CeilDiv(half, cut.task_channels)), [&](uint32_t task, uint32_t thread) {
    const size_t begin = task * cut.task_channels;
    const size_t end = begin + cut.task_channels < half ? begin + cut.task_channels : half;
    uint8_t *gated = ThreadScratch(context, thread), *scratch = gated + GatedBytes(cut, both.per_token);
    ForPieces(gate_rows, *both.kernel, begin, end, [&](const Channels &gates) {
      const size_t n = gates.count();
      Tile tile = both;
      tile.y_row_bytes = 2 * n * sizeof(int16_t);
      glu::Args own = act;
      own.gate = reinterpret_cast<const int16_t *>(gated);
      own.up = own.gate + n;
      own.gate_stride = own.up_stride = 2 * n;
      own.n = n;
      for (size_t row = 0; row < rows; row += cut.row_block) {
        if (IsStopped(context, thread)) return;
        const size_t count = rows - row < cut.row_block ? rows - row : cut.row_block;
        tile.x = both.x + row * both.x_stride;
        const bool is_prepared = prepared.by[thread] && rows <= cut.row_block;
        prepared.by[thread] = true;
        if (gates.runs == 1 && n % kMostTileChannels == 0 && both.kernel->layout == Layout::kC4) {
          RunTile(tile, count, {gates.begin, gates.end, gates.column, 2, distance, half}, cut, gated, scratch, is_prepared);
        } else {
          RunTile(tile, count, gates, cut, gated, scratch, is_prepared);
          const Channels ups = {gates.begin + distance, gates.end + distance, gates.column + half, gates.runs, gates.run_step};
          RunTile(tile, count, ups, cut, gated + n * sizeof(int16_t), scratch, true);
        }
        if (context.stop != nullptr && context.stop->IsAsked()) return;  // there may be no gates
        own.m = count / both.per_token;
        own.y = Elements<int16_t>(context, glu.out) + row / both.per_token * act.y_stride + gates.column;
        context.kernels->glu->run(own);
      }
    });
  });
}

}  // namespace

OpNeeds Needs(const LinearOp &op, bool with_glu, const Weight &weight, DType input, const PlanContext &context) {
  const GemmKernel *kernel = SelectGemm(weight.format, weight.layout, context.kernels->features);
  const uint64_t factor = RowsPerToken(input);
  const uint64_t most = context.rows * factor;
  OpNeeds needs = {factor == 2 ? most * AlignUp(op.in.width, 64) : 0, 0};
  // The sizes of a call are not monotone in its rows: a short call may hold more channels than a long one.
  for (uint64_t rows = factor; rows <= most; rows += factor) {
    if (rows > kStreamRows && rows != most && rows != kRowBlock) continue;
    const Cut cut = CutOf(rows, op.out.width, kernel->nr, context.threads);
    uint64_t bytes = TileScratchBytes(*kernel, cut, op.in.width);
    if (bytes > needs.thread_bytes) needs.thread_bytes = bytes;
    if (!with_glu) continue;
    const Cut halves = CutOf(rows, op.out.width / 2, kernel->nr, context.threads, 2);
    bytes = TileScratchBytes(*kernel, halves, op.in.width, 2) + GatedBytes(halves, factor);
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
  const size_t rows = context.m * per_token, n = op.out.width, k = op.in.width;

  const int8_t *x;
  size_t x_stride;
  if (per_token == 2) {
    x_stride = AlignUp(k, 64);
    int8_t *split = reinterpret_cast<int8_t *>(context.step_scratch);
    ForRows(context, k, [&](size_t first, size_t count, uint32_t) {
      for (size_t r = first; r < first + count; ++r) {
        SplitRow(split + 2 * r * x_stride, split + (2 * r + 1) * x_stride,
                 Elements<int16_t>(context, op.in) + r * Stride<int16_t>(context, op.in), k);
      }
    });
    x = split;
  } else {
    x = Elements<int8_t>(context, op.in);
    x_stride = Stride<int8_t>(context, op.in);
  }

  const requantise::Kernel &family = *context.kernels->requantise;
  Tile tile = {};
  tile.kernel = kernel;
  tile.finish = per_token == 2 ? (output == DType::kS8 ? family.two_row_s8 : output == DType::kS16 ? family.two_row_s16 : family.two_row_s32)
                               : (output == DType::kS8 ? family.s8 : output == DType::kS16 ? family.s16 : family.s32);
  tile.weights = weight.data;
  tile.n = weight.n;
  tile.k = k;
  tile.k_stored = weight.k;
  tile.group = GroupSize(weight.format);
  tile.k_panel = tile.group != 0 ? 0 : weight.k_panel;
  tile.bias = op.bias;
  tile.multipliers = op.multipliers;
  tile.shift = op.shift;
  tile.zero_point = op.zero_point;
  tile.x = x;
  tile.x_stride = x_stride;
  tile.per_token = per_token;
  tile.stop = context.stop;
  tile.y_elem_bytes = DTypeBytes(output);
  if (op.glu != nullptr) return RunGated(op, context, tile, rows);
  tile.y_row_bytes = context.values[op.out.value].row_bytes;
  uint8_t *y = context.values[op.out.value].data + op.out.offset * tile.y_elem_bytes;
  const Cut cut = CutOf(rows, n, kernel->nr, context.parallel.threads);
  Prepared prepared;
  context.parallel.For(static_cast<uint32_t>(CeilDiv(n, cut.task_channels)), [&](uint32_t task, uint32_t thread) {
    if (IsStopped(context, thread)) return;
    const size_t begin = task * cut.task_channels;
    const size_t end = begin + cut.task_channels < n ? begin + cut.task_channels : n;
    ForPieces(op.rows, *kernel, begin, end, [&](const Channels &piece) {
      RunTile(tile, rows, piece, cut, y + piece.column * tile.y_elem_bytes, ThreadScratch(context, thread), prepared.by[thread]);
      prepared.by[thread] = true;
    });
  });
}

}  // namespace acorn
