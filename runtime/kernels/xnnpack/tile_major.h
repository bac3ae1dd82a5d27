// The loops of our Arm kernels on XNNPACK's layout kX16C8: tiles outside, blocks of rows inside. A tile passes through the first
// level of the cache once for a whole chunk of rows, where the second level of a small core does not hold the matrix; and what
// many rows want unpacked is unpacked once for all of them.
// For the ISA files of gemm_s8_w8 and gemm_s8_w4 alone, each with a copy of its own (kernels/xnnpack/tiles.h says why).
//
// A kernel chooses by the number of rows among forms. A Form has
//   kFormat                the packed weights
//   kRows, kRowUnit        rows of its largest block; blocks are multiples of kRowUnit, the last one filled up with rows of 0
//   kUnit, kCopies         neighbours along k that stay together where the rows of a block are interleaved, 8 or 16, and how
//                          often they stand there
//   kStep                  depth is padded with 0 to a multiple of it
//   kUnpacks               it reads what Unpack(to, rows of a tile, depth) made of a tile, kNr bytes for each k
//   Tiles(rows)            1, or 2: tiles that a block reads side by side when it is the only one
//   Block(rows, tiles, block)    whole tiles or, where tiles is 1, the first block.columns channels of one.
//                          block.w: past ksum;  block.x: [depth / kUnit, rows filled up, kCopies, kUnit]
//                          block.x_stride: unused
#pragma once

#include "kernels/xnnpack/tiles.h"

namespace acorn {
namespace {

template <typename Form>
class TileMajorDriver {
 public:
  /// Grows with m and k.
  static size_t ScratchBytes(size_t m, size_t k) {
    return TileScratch(k) + RoundUp(m < kChunk ? m : kChunk, Form::kRowUnit) * RowBytes(RoundUp(k, 16));
  }

  static void Run(const GemmArgs &args) {
    const XnnMatrix matrix = StoredMatrix(args, Form::kFormat, Layout::kX16C8);
    const size_t chunk = ShareOf(args.m, kChunk);
    for (size_t m = 0; m < args.m; m += chunk) {
      const size_t rows = args.m - m < chunk ? args.m - m : chunk;
      for (size_t panel = 0; panel < XnnPanels(args.k, matrix.k_panel); ++panel) RunRows(args, matrix, panel, m, rows);
    }
  }

 private:
  static constexpr size_t kNr = XnnNr(Layout::kX16C8);
  static constexpr size_t kChunk = 64;  // rows: 64 x 576 bytes stay in the second level of a Cortex-A55

  static constexpr size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

  static constexpr size_t RowBytes(size_t depth) { return depth * Form::kCopies; }

  static size_t TileScratch(size_t k) { return Form::kUnpacks ? RoundUp(k, 16) * kNr : 0; }

  /// `count` in the least number of parts of at most `most` each: the largest part, when all are as equal as can be.
  static size_t ShareOf(size_t count, size_t most) {
    const size_t parts = (count + most - 1) / most;
    return (count + parts - 1) / parts;
  }

  static void RunRows(const GemmArgs &args, const XnnMatrix &matrix, size_t panel, size_t m, size_t rows) {
    const size_t k = XnnPanelDepth(matrix.k, matrix.k_panel, panel);
    const size_t tile_bytes = XnnTileBytes(matrix.format, matrix.layout, k);
    const size_t share = ShareOf((rows + Form::kRowUnit - 1) / Form::kRowUnit, Form::kRows / Form::kRowUnit) * Form::kRowUnit;
    uint8_t *const unpacked = args.scratch;
    uint8_t *const x = args.scratch + TileScratch(args.k);
    TileBlock block = {};
    block.w_step = tile_bytes;
    block.x_stride = 0;
    block.depth = RoundUp(XnnDepth(matrix.format, matrix.layout, k), Form::kStep);
    block.acc_step = kNr;
    block.acc_stride = args.acc_stride;
    block.columns = kNr;
    block.store = panel == 0 ? Store::kSet : Store::kAdd;
    for (size_t row = 0; row < rows; row += share) {
      const size_t count = rows - row < share ? rows - row : share, filled = RoundUp(count, Form::kRowUnit);
      const int8_t *from = args.x + (m + row) * args.x_stride + panel * matrix.k_panel;
      uint8_t *to = x + row * RowBytes(block.depth);
      for (size_t i = 0; i < filled; ++i, to += RowBytes(Form::kUnit)) {
        LoadRow(to, filled * RowBytes(Form::kUnit), i < count ? from + i * args.x_stride : from, i < count ? k : 0, block.depth);
      }
    }

    const uint8_t *w = args.w + XnnTileOffset(matrix, args.n_begin, panel) + kNr * sizeof(int32_t);
    for (size_t n = args.n_begin; n < args.n_end;) {
      const size_t left = args.n_end - n;
      const size_t tiles = rows <= share && left >= 2 * kNr ? Form::Tiles(rows) : 1;
      if (left < kNr) block.columns = left;
      block.w = w;
      if constexpr (Form::kUnpacks) {
        Form::Unpack(unpacked, w, XnnDepth(matrix.format, matrix.layout, k));
        block.w = unpacked;
      }
      for (size_t row = 0; row < rows; row += share) {
        block.x = x + row * RowBytes(block.depth);
        block.acc = args.acc + (m + row) * args.acc_stride + (n - args.n_begin);
        Form::Block(rows - row < share ? rows - row : share, tiles, block);
      }
      n += tiles * kNr;
      w += tiles * tile_bytes;
    }
  }

  /// k values of a row to every `stride` bytes at `to`, kUnit of them at a time, then zeros up to `depth`.
  static void LoadRow(uint8_t *to, size_t stride, const int8_t *from, size_t k, size_t depth) {
    constexpr size_t kUnit = Form::kUnit;
    size_t i = 0;
    for (; i + kUnit <= k; i += kUnit, to += stride) {
      ACORN_UNROLL
      for (size_t copy = 0; copy < Form::kCopies; ++copy) __builtin_memcpy(to + copy * kUnit, from + i, kUnit);
    }
    for (; i < depth; i += kUnit, to += stride) {
      __builtin_memset(to, 0, RowBytes(kUnit));
      for (size_t copy = 0; copy < Form::kCopies; ++copy) {
        for (size_t j = i; j < k; ++j) to[copy * kUnit + j - i] = static_cast<uint8_t>(from[j]);
      }
    }
  }
};

}  // namespace
}  // namespace acorn
