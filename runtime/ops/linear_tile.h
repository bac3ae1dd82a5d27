// What linear layers and experts share: a stretch of channels of one packed matrix times rows, into int32 sums that stay in the
// cache, then requantised.
#pragma once

#include "ops/op.h"

namespace acorn {

constexpr size_t kRowBlock = 128;         // rows of a kernel call (s15: 64 tokens of two)
constexpr size_t kStreamRows = 4;         // up to here a task is one long stretch of weights
constexpr size_t kStreamChannels = 4096;  // of sums a task holds then: 4 x 4096 are 64 KiB
constexpr size_t kMostChannels = 192;     // of a task beyond: 128 x 192 sums are 96 KiB

/// How a matrix is cut; the same for Needs and Run.
struct Cut {
  size_t task_channels;  // of each matrix that a task has some of
  size_t row_block;  // rows of one kernel call
};

/// rows: of the kernel's input, two for a token of s15;  n: channels of each of `matrices` alike, 1 or 2
Cut CutOf(size_t rows, size_t n, size_t nr, uint32_t threads, size_t matrices = 1);

/// b: not 0
constexpr size_t CeilDiv(size_t a, size_t b) { return (a + b - 1) / b; }  // NOLINT(clang-analyzer-core.DivideZero)

struct Tile {
  const GemmKernel *kernel;
  requantise::Function finish;
  const uint8_t *weights;
  size_t n, k, k_stored;
  uint32_t group, k_panel;     // as in GemmArgs
  const int32_t *bias;         // a column of the output each
  const int32_t *multipliers;
  int32_t shift, zero_point;
  const int8_t *x;  // [rows, k]
  size_t x_stride;
  size_t per_token;  // rows of x that make a row of y: 1, or 2 of s15
  const Stop *stop;  // null, or once asked the rest of the rows stays unwritten
  size_t y_elem_bytes;
  uint64_t y_row_bytes;
};

/// Bytes of scratch that RunTile needs.
uint64_t TileScratchBytes(const GemmKernel &kernel, const Cut &cut, size_t k, size_t matrices = 1);

/// Channels [begin, end) of a matrix, which are the columns from `column` on of its output. begin: a multiple of the kernel's nr.
/// runs, run_step: as in GemmArgs
/// column_step: where not 0, each run stands for columns so far behind those of the run before; they are written side by side
struct Channels {
  size_t begin, end, column;
  size_t runs = 1, run_step = 0, column_step = 0;
  size_t count() const { return runs * (end - begin); }
};

/// Channels of `rows` rows of x, at most cut.task_channels in all, or of each run where column_step is not 0.
/// y: the first of them in the first row
/// prepared: the call before on this scratch was of the same rows of the same x
void RunTile(const Tile &tile, size_t rows, const Channels &channels, const Cut &cut, uint8_t *y, uint8_t *scratch, bool prepared = false);

}  // namespace acorn
