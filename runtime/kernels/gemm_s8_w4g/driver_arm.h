// The loops that the Arm variants share. They differ from those of driver.h where Arm does: weights come from memory as one
// stream, which its prefetchers follow; rows are prepared once a call in the form that an engine's multiply wants; and unpacked
// tiles serve all rows of a panel of k before the next panel, so that prepared rows and tiles stay small whatever k is.
// For the ISA files alone, like driver.h: each compiles its own copy, in its anonymous namespace, with its own flags.
//
// An Engine has
//   kStreamBlockRows, kStreamRows  rows of its largest stream block, and up to how many rows streaming is cheaper than unpacking
//   StreamBytes(k)                 of a prepared row
//   PrepareStream(to, x, x_stride, rows, k)      prepares the rows of one block
//   Stream(job, rows)              multiplies a packed tile with up to kStreamBlockRows prepared rows, whole depth
//   kPanelBlockRows, kPanelUnit    rows of its largest panel block, and what the others are a multiple of, but for the last row
//   PanelRowBytes(depth)           of a row prepared for a panel; 0: the panel block reads x as it is
//   PreparePanel(to, x, x_stride, rows, depth)   prepares the rows of one block
//   Unpack(panel, unpacking)       a tile's panel to scratch
//   Panel(job, rows)               multiplies an unpacked panel with the rows of one block
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "acorn_schema/layout.h"
#include "kernels/gemm.h"

#define ACORN_UNROLL _Pragma("GCC unroll 16")
#define ACORN_INLINE __attribute__((always_inline)) inline

namespace acorn::gemm_s8_w4g {
namespace {

constexpr size_t kSubgroup = 32;  // depth of a dot that fits in 16 bits: 32 * 127 * 8 < 2^15
// Depth of a panel: the unpacked tile (12 KiB and its multipliers) and the rows of a block (6 KiB) stay in an L1 cache of 32 KiB.
constexpr size_t kPanelDepth = 768;
constexpr size_t kRowChunk = 128;  // rows prepared at a time: bounds the scratch
constexpr size_t kTileBytesOfRow = c4::kTileChannels * sizeof(int32_t);

/// Does a panel start its sums or go on with those in acc?
enum class Start : uint8_t { kZero, kAcc };

/// A block of rows times a packed tile.
struct StreamJob {
  const int8_t *x;
  size_t x_stride;
  const uint8_t *prepared;  // [rows, prepared_stride]
  size_t prepared_stride;
  const uint8_t *tile;
  uint32_t header_bytes;
  uint32_t group_shift;  // log2(group / 32)
  size_t subgroups;      // k / 32
  int32_t *acc;          // [rows, acc_stride], 16 channels of each row are written
  size_t acc_stride;
};

/// A block of rows times the unpacked panel of a tile.
struct PanelJob {
  const int8_t *x;
  size_t x_stride;
  const uint8_t *prepared;
  const uint8_t *panel;
  uint32_t group_subgroups;  // group / 32
  size_t groups;             // of the panel
  int32_t *acc;
  size_t acc_stride;
  Start start;
};

/// A panel of a packed tile.
struct Unpacking {
  const uint8_t *weights;
  const uint8_t *multipliers;
  uint32_t group_subgroups;
  size_t groups;
};

template <typename Engine>
class DriverArm {
 public:
  static size_t ScratchBytes(size_t m, size_t k) {
    const size_t rows = m < kRowChunk ? m : kRowChunk;
    const size_t stream_rows = m < Engine::kStreamRows ? m : Engine::kStreamRows;
    const size_t depth = k < kPanelDepth ? k : kPanelDepth;
    const size_t panel = m <= Engine::kStreamRows ? 0 : Engine::PanelBytes(depth) + EvenUp(rows) * Engine::PanelRowBytes(depth);
    const size_t stream = stream_rows * Engine::StreamBytes(k);
    return rows * kTileBytesOfRow + (stream > panel ? stream : panel);
  }

  static void Run(const GemmArgs &args) {
    for (size_t m = 0; m < args.m; m += kRowChunk) {
      const size_t rows = args.m - m < kRowChunk ? args.m - m : kRowChunk;
      const DriverArm driver(args, m, rows);
      if (rows <= Engine::kStreamRows) {
        driver.RunStream();
      } else {
        driver.RunPanels();
      }
    }
  }

 private:
  DriverArm(const GemmArgs &args, size_t first_row, size_t rows)
      : args_(args),
        x_(args.x + first_row * args.x_stride),
        acc_(args.acc + first_row * args.acc_stride),
        rows_(rows),
        prepared_(args.scratch + rows * kTileBytesOfRow) {}

  static constexpr size_t EvenUp(size_t rows) { return (rows + 1) / 2 * 2; }

  // Where a tile's sums go. Those of a tile of which not all channels are wanted go to scratch first: an engine writes 16.
  struct Out {
    int32_t *acc;
    size_t stride;
  };
  Out OutOf(size_t n) const {
    if (args_.n_end - n < c4::kTileChannels) return {reinterpret_cast<int32_t *>(args_.scratch), c4::kTileChannels};
    return {acc_ + (n - args_.n_begin), args_.acc_stride};
  }
  void FinishPartTile() const {
    const size_t columns = (args_.n_end - args_.n_begin) % c4::kTileChannels;
    const int32_t *from = reinterpret_cast<const int32_t *>(args_.scratch);
    int32_t *to = acc_ + (args_.n_end - args_.n_begin - columns);
    for (size_t r = 0; r < rows_; ++r, from += c4::kTileChannels, to += args_.acc_stride) {
      for (size_t c = 0; c < columns; ++c) to[c] = from[c];
    }
  }

  // Calls block(row, rows) for blocks of rows as equal as can be in multiples of `unit`.
  template <typename Block>
  void ForRowBlocks(size_t most, size_t unit, const Block &block) const {
    const size_t units = (rows_ + unit - 1) / unit, blocks = (rows_ + most - 1) / most;
    size_t row = 0;
    for (size_t b = 0; b < blocks; ++b) {
      const size_t count = (units / blocks + (b < units % blocks ? 1 : 0)) * unit;
      block(row, rows_ - row < count ? rows_ - row : count);
      row += count;
    }
  }

  void RunStream() const {
    const size_t stride = Engine::StreamBytes(args_.k);
    ForRowBlocks(Engine::kStreamBlockRows, 1, [&](size_t row, size_t rows) {
      Engine::PrepareStream(prepared_ + row * stride, x_ + row * args_.x_stride, args_.x_stride, rows, args_.k);
    });
    StreamJob job;
    job.x_stride = args_.x_stride;
    job.prepared_stride = stride;
    job.header_bytes = static_cast<uint32_t>(c4::HeaderBytes(args_.k, args_.group));
    job.group_shift = args_.group == 32 ? 0 : args_.group == 64 ? 1 : 2;
    job.subgroups = args_.k / kSubgroup;
    const size_t tile_bytes = c4::TileBytes(args_.k, args_.group);
    job.tile = args_.w + args_.n_begin / c4::kTileChannels * tile_bytes;
    for (size_t n = args_.n_begin; n < args_.n_end; n += c4::kTileChannels, job.tile += tile_bytes) {
      const Out out = OutOf(n);
      job.acc_stride = out.stride;
      ForRowBlocks(Engine::kStreamBlockRows, 1, [&](size_t row, size_t rows) {
        job.x = x_ + row * args_.x_stride;
        job.prepared = prepared_ + row * stride;
        job.acc = out.acc + row * out.stride;
        Engine::Stream(job, rows);
      });
    }
    FinishPartTile();
  }

  void RunPanels() const {
    const size_t groups = args_.k / args_.group, panels = (args_.k + kPanelDepth - 1) / kPanelDepth;
    size_t group = 0;
    for (size_t p = 0; p < panels; ++p) {
      const size_t count = groups / panels + (p < groups % panels ? 1 : 0);
      RunPanel(group, count);
      group += count;
    }
    FinishPartTile();
  }

  // Groups [first, first + count) of every row and tile.
  void RunPanel(size_t first, size_t count) const {
    const size_t k = first * args_.group, depth = count * args_.group;
    const size_t row_bytes = Engine::PanelRowBytes(depth);
    uint8_t *const panel = prepared_ + EvenUp(rows_) * row_bytes;
    if (row_bytes != 0) {
      ForRowBlocks(Engine::kPanelBlockRows, Engine::kPanelUnit, [&](size_t row, size_t rows) {
        Engine::PreparePanel(prepared_ + row * row_bytes, x_ + row * args_.x_stride + k, args_.x_stride, rows, depth);
      });
    }
    const size_t tile_bytes = c4::TileBytes(args_.k, args_.group);
    const uint8_t *tile = args_.w + args_.n_begin / c4::kTileChannels * tile_bytes;
    const uint32_t group_subgroups = static_cast<uint32_t>(args_.group / kSubgroup);
    PanelJob job;
    job.x_stride = args_.x_stride;
    job.panel = panel;
    job.group_subgroups = group_subgroups;
    job.groups = count;
    job.start = first == 0 ? Start::kZero : Start::kAcc;
    for (size_t n = args_.n_begin; n < args_.n_end; n += c4::kTileChannels, tile += tile_bytes) {
      Engine::Unpack(panel, {tile + c4::HeaderBytes(args_.k, args_.group) + k / c4::kRowDepth * c4::kRowBytes,
                             tile + first * c4::kTileChannels, group_subgroups, count});
      const Out out = OutOf(n);
      job.acc_stride = out.stride;
      ForRowBlocks(Engine::kPanelBlockRows, Engine::kPanelUnit, [&](size_t row, size_t rows) {
        job.x = x_ + row * args_.x_stride + k;
        job.prepared = prepared_ + row * row_bytes;
        job.acc = out.acc + row * out.stride;
        Engine::Panel(job, rows);
      });
    }
  }

  const GemmArgs &args_;
  const int8_t *x_;
  int32_t *acc_;
  size_t rows_;
  uint8_t *prepared_;
};

}  // namespace
}  // namespace acorn::gemm_s8_w4g
