#include "ops/linear_tile.h"

namespace acorn {
namespace {

// Channels of a task in prefill. A kernel call of 96 or more runs at full speed, one of 32 a tenth slower (it sums x anew);
// 128 x 192 sums are 96 KiB.
constexpr size_t kLeastChannels = 96;

// The size of task that leaves the busiest thread the least to do; the larger of equals.
size_t ShareOut(size_t n, size_t nr, uint32_t threads, size_t matrices) {
  size_t best = nr;
  size_t best_load = SIZE_MAX;
  const size_t fair = CeilDiv(CeilDiv(n, threads), nr) * nr;
  const size_t enough = CeilDiv(kLeastChannels / matrices, nr) * nr, least = fair < enough ? fair : enough;
  for (size_t channels = least; channels <= kMostChannels / matrices; channels += nr) {
    const size_t load = CeilDiv(CeilDiv(n, channels), threads) * channels;
    if (load <= best_load) {
      best = channels;
      best_load = load;
    }
  }
  return best;
}

// Of few rows, whose weights stream by once: four tasks a thread, so that one which starts late leaves some to the others, or three
// or two where the busiest thread has less to do then: 36 tiles on two threads are 20 and 16 in tasks of five, 18 each in tasks of
// six. Not one: threads of unequal speed would wait for one another.
size_t StreamOut(size_t n, size_t nr, uint32_t threads, size_t most) {
  constexpr size_t kMostTasks = 4, kLeastTasks = 2;
  const size_t tiles = CeilDiv(n, nr), least = threads == 1 ? 1 : kLeastTasks;
  size_t best = nr, best_load = SIZE_MAX;
  for (size_t each = threads == 1 ? 1 : kMostTasks; each >= least; --each) {
    size_t task = CeilDiv(tiles, each * threads);
    if (task > most / nr) task = most / nr;
    const size_t load = CeilDiv(CeilDiv(tiles, task), threads) * task;
    if (load >= best_load) continue;
    best = task * nr;
    best_load = load;
  }
  return best;
}

// Bias and multipliers, on their way to the cache while rows are multiplied: they come from memory as the weights do, and
// requantise would wait for each line of them.
void FetchAhead(const int32_t *from, size_t count) {
  constexpr size_t kLineElems = 16;
  for (size_t i = 0; i < count; i += kLineElems) __builtin_prefetch(from + i, 0, 2);
}

}  // namespace

Cut CutOf(size_t rows, size_t n, size_t nr, uint32_t threads, size_t matrices) {
  if (rows <= kStreamRows) return {StreamOut(n, nr, threads, kStreamChannels / matrices), rows};
  return {ShareOut(n, nr, threads, matrices), rows < kRowBlock ? rows : kRowBlock};
}

uint64_t TileScratchBytes(const GemmKernel &kernel, const Cut &cut, size_t k, size_t matrices) {
  return AlignUp(cut.row_block * cut.task_channels * matrices * sizeof(int32_t), 64) +
         AlignUp(kernel.scratch_bytes(cut.row_block, k), 64);
}

void RunTile(const Tile &tile, size_t rows, const Channels &channels, const Cut &cut, uint8_t *y, uint8_t *scratch, bool prepared) {
  GemmArgs gemm = {};
  gemm.w = tile.weights;
  gemm.x_stride = tile.x_stride;
  gemm.k = tile.k;
  gemm.k_stored = tile.k_stored;
  gemm.group = tile.group;
  gemm.k_panel = tile.k_panel;
  gemm.n_begin = channels.begin;
  gemm.n_end = channels.end;
  gemm.n = tile.n;
  gemm.scratch = scratch;  // at the same place whatever the channels are
  gemm.acc = reinterpret_cast<int32_t *>(scratch + AlignUp(tile.kernel->scratch_bytes(cut.row_block, tile.k), 64));
  gemm.runs = channels.runs;
  gemm.run_step = channels.run_step;
  gemm.acc_stride = channels.count();
  const size_t parts = channels.column_step == 0 ? 1 : channels.runs;
  gemm.prepared = prepared && rows <= cut.row_block;
  requantise::Args epilogue = {};
  epilogue.acc_stride = gemm.acc_stride * tile.per_token;
  epilogue.y_stride = tile.y_row_bytes / tile.y_elem_bytes;
  epilogue.n = gemm.acc_stride / parts;
  epilogue.shift = tile.shift;
  epilogue.zero_point = tile.zero_point;
  for (size_t part = 0; part < parts; ++part) {
    FetchAhead(tile.bias + channels.column + part * channels.column_step, epilogue.n);
    FetchAhead(tile.multipliers + channels.column + part * channels.column_step, epilogue.n);
  }
  for (size_t row = 0; row < rows; row += cut.row_block) {
    if (tile.stop != nullptr && tile.stop->IsAsked()) return;
    gemm.m = rows - row < cut.row_block ? rows - row : cut.row_block;
    gemm.x = tile.x + row * tile.x_stride;
    tile.kernel->run(gemm);
    epilogue.m = gemm.m / tile.per_token;
    for (size_t part = 0; part < parts; ++part) {
      const size_t column = channels.column + part * channels.column_step;
      epilogue.acc = gemm.acc + part * epilogue.n;
      epilogue.acc_low = epilogue.acc + gemm.acc_stride;
      epilogue.bias = tile.bias + column;
      epilogue.multiplier = tile.multipliers + column;
      epilogue.y = y + row / tile.per_token * tile.y_row_bytes + part * epilogue.n * tile.y_elem_bytes;
      tile.finish(epilogue);
    }
  }
}

}  // namespace acorn
