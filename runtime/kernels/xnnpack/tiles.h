// The loops that our own kernels on XNNPACK's layouts share: which rows and tiles go through which block of an engine.
// For the ISA files of gemm_s8_w8 and gemm_s8_w4 alone: each compiles its own copy, in its anonymous namespace, with its own
// flags (a shared inline function would leave one copy, of one instruction set, for all).
//
// An Engine has
//   kFormat, kLayout
//   kRows                  rows of its largest block
//   Tiles(rows)            tiles that a block of so many rows reads side by side, a power of two
//   LoadRow(to, from, k, depth)    a row of a panel as the engine wants it: depth bytes at `to`, depth >= k
//   Block(rows, tiles, block)      whole tiles or, where tiles is 1, the first block.columns channels of one
#pragma once

#include <cstddef>
#include <cstdint>

#include "acorn_schema/layout_xnnpack.h"
#include "kernels/gemm.h"
#include "kernels/inline.h"

namespace acorn {
namespace {

constexpr size_t kXnnKr = 8;  // of kX16C8 and kX8C8, the layouts that our own kernels read

/// Does a panel store its sums or add them to those in acc?
enum class Store : uint8_t { kSet, kAdd };

struct TileBlock {
  const uint8_t *w;     // first tile: its ksum
  size_t w_step;        // bytes from tile to tile
  const uint8_t *x;     // [rows, x_stride], as LoadRow left them
  size_t x_stride;
  size_t depth;         // of the panel as stored
  int32_t *acc;         // of the first tile
  size_t acc_step;      // elements from tile to tile
  size_t acc_stride;    // elements from row to row
  size_t columns;       // channels to store of a tile
  Store store;
};

/// The whole packed matrix.
inline XnnMatrix StoredMatrix(const GemmArgs &args, WeightFormat format, Layout layout) {
  return {format, layout, args.n, args.k_stored, args.k_panel == 0 ? args.k_stored : args.k_panel};
}

template <typename Engine>
class TileDriver {
 public:
  /// A block may take more rows than there are (3 go as 4): their sums, of what the scratch happens to hold, are dropped.
  static size_t ScratchBytes(size_t m, size_t k) { return (m <= 2 ? m : Engine::kRows) * RowBytes(k); }

  static void Run(const GemmArgs &args) {
    const XnnMatrix matrix = StoredMatrix(args, Engine::kFormat, Engine::kLayout);
    // Blocks of rows as equal as can be: 13 rows are 7 and 6, not 12 and 1.
    const size_t blocks = (args.m + Engine::kRows - 1) / Engine::kRows;
    const size_t base = args.m / blocks, longer = args.m % blocks;
    for (size_t panel = 0; panel < XnnPanels(args.k, matrix.k_panel); ++panel) {
      size_t m = 0;
      for (size_t i = 0; i < blocks; ++i) {
        const size_t rows = base + (i < longer ? 1 : 0);
        RunRows(args, matrix, panel, m, rows);
        m += rows;
      }
    }
  }

 private:
  static constexpr size_t kNr = XnnNr(Engine::kLayout);

  static size_t RowBytes(size_t k) { return (k + 63) / 64 * 64; }

  static void RunRows(const GemmArgs &args, const XnnMatrix &matrix, size_t panel, size_t m, size_t rows) {
    const size_t k = XnnPanelDepth(matrix.k, matrix.k_panel, panel);
    const size_t tile_bytes = XnnTileBytes(matrix.format, matrix.layout, k);
    TileBlock block = {};
    block.w = args.w + XnnTileOffset(matrix, args.n_begin, panel);
    block.x = args.scratch;
    block.x_stride = RowBytes(k);
    block.depth = XnnDepth(matrix.format, matrix.layout, k);
    block.acc = args.acc + m * args.acc_stride;
    block.acc_stride = args.acc_stride;
    block.columns = kNr;
    block.store = panel == 0 ? Store::kSet : Store::kAdd;
    for (size_t row = 0; row < rows; ++row) {
      Engine::LoadRow(args.scratch + row * block.x_stride, args.x + (m + row) * args.x_stride + panel * matrix.k_panel, k,
                      block.depth);
    }

    // Several far apart streams keep more of the memory's pages and channels busy than one.
    size_t left = (args.n_end - args.n_begin) / kNr;
    size_t tiles = Engine::Tiles(rows);
    while (left != 0) {
      while (tiles > left) tiles /= 2;
      const size_t length = left / tiles;
      block.w_step = length * tile_bytes;
      block.acc_step = length * kNr;
      for (size_t i = 0; i < length; ++i) {
        Engine::Block(rows, tiles, block);
        block.w += tile_bytes;
        block.acc += kNr;
      }
      block.w += (tiles - 1) * length * tile_bytes;
      block.acc += (tiles - 1) * length * kNr;
      left -= tiles * length;
    }
    block.columns = (args.n_end - args.n_begin) % kNr;
    if (block.columns != 0) Engine::Block(rows, 1, block);
  }
};

}  // namespace
}  // namespace acorn
