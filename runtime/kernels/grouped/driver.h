// The loops that the vector variants share: which tiles and rows go through which block of an engine.
// For the ISA files alone: each compiles its own copy, in its anonymous namespace, with its own flags (a shared inline function
// would leave one copy, of one instruction set, for all).
//
// An Engine has
//   kBits                  of a packed weight
//   kRows, kTiles          rows and tiles of its largest block
//   kGroupBytes            of an unpacked group of a tile
//   StreamTiles(rows)      tiles that a block reads side by side while weights come from memory
//   Sums(line, x, depth)   what each group's dot starts from, for the first `depth` (<= 512) elements of x: 16 lanes of 4 bytes
//   Stream<rows, tiles>    reads packed tiles, whole depth
//   Panel<is first>        multiplies rows with a panel of kTiles tiles; the first rows unpack it
#pragma once

#include <cstddef>
#include <cstdint>

#include "acorn_schema/layout.h"
#include "kernels/gemm.h"
#include "kernels/grouped/groups.h"

namespace acorn::grouped {
namespace {

constexpr size_t kPanelDepth = 512;  // depth whose 16 sums fill a cache line, and whose unpacked tiles stay in the L1 cache
// Of the last panel. One of its own for the last 64 of 576 would be mostly beginnings and ends of blocks: prefill of SmolLM2 is
// 1.01 (128 tokens) to 1.02 times (32) as fast without (Zen 5); panels of 1,024 where they fit gain no more.
constexpr size_t kLongestPanel = 640;
constexpr size_t kPanelGroups = kPanelDepth / kSubgroup;
constexpr size_t kLineBytes = 64;
constexpr size_t kRowChunk = 240;       // rows whose sums are kept at a time: bounds the scratch
constexpr size_t kInlineRowBlocks = 2;  // up to so many row blocks unpacking every time is cheaper than unpacking to scratch
constexpr size_t kMaxTiles = 4;

constexpr size_t CeilDivide(size_t a, size_t b) { return (a + b - 1) / b; }
constexpr size_t PanelCount(size_t k) { return (k + kPanelDepth - 1) / kPanelDepth; }
/// Of the next panel, where so much is left of the depth.
constexpr size_t PanelDepth(size_t left) { return left <= kLongestPanel ? left : kPanelDepth; }

/// Rows of x that go through a block, with the sums of each 512 elements in a line: [panels of k, m of 16 lanes].
struct Rows {
  const int8_t *x;
  size_t x_stride;
  const uint8_t *sums;
  size_t sums_stride;  // bytes between panels
};

/// From the sums of group g of a panel to those of the next one, which may stand in the next line.
inline const uint8_t *NextSums(const Rows &rows, const uint8_t *sums, size_t g) {
  return sums + ((g + 1) % kPanelGroups == 0 ? rows.sums_stride - kLineBytes + 4 : 4);
}

/// Weights of a block: `tiles` packed tiles, and where their sums go.
struct Tiles {
  const uint8_t *packed[kMaxTiles];
  int32_t *acc[kMaxTiles];
  uint32_t columns[kMaxTiles];  // channels to store, 1 to 16
  size_t acc_stride;
};

struct Depth {
  size_t k;
  size_t skipped_bytes;  // between what is read of a tile and what is read next
  uint32_t header_bytes;
  uint32_t group_shift;  // log2(group / 32)
};

template <typename Engine>
class Driver {
 public:
  static size_t ScratchBytes(size_t m, size_t k) {
    const size_t rows = m < kRowChunk ? m : kRowChunk;
    const size_t panel = k < kLongestPanel ? k : kLongestPanel;  // a shallower matrix wants no more
    return PanelCount(k) * rows * kLineBytes + Engine::kTiles * panel / kSubgroup * Engine::kGroupBytes;
  }

  static void Run(const GemmArgs &args) {
    for (size_t m = 0; m < args.m; m += kRowChunk) {
      const size_t rows = args.m - m < kRowChunk ? args.m - m : kRowChunk;
      Driver(args, m, rows).RunChunk();
    }
  }

 private:
  Driver(const GemmArgs &args, size_t first_row, size_t rows) : args_(args), first_row_(first_row), rows_(rows) {
    depth_.k = args.k;
    depth_.skipped_bytes = (args.k_stored - args.k) / c4::RowDepth(Engine::kBits) * c4::kRowBytes;
    depth_.header_bytes = static_cast<uint32_t>(c4::HeaderBytes(args.k_stored, args.group));
    depth_.group_shift = GroupShift(args.group);
    tile_bytes_ = c4::TileBytes(args.k_stored, args.group, Engine::kBits);
    panel_ = args.scratch + PanelCount(args.k) * rows * kLineBytes;
    row_blocks_ = (rows + Engine::kRows - 1) / Engine::kRows;
    run_tiles_ = c4::Tiles(args.n_end - args.n_begin);
  }

  void SumUp() const {
    uint8_t *line = args_.scratch;
    for (size_t k = 0; k < args_.k; k += kPanelDepth) {
      const size_t depth = args_.k - k < kPanelDepth ? args_.k - k : kPanelDepth;
      for (size_t r = 0; r < rows_; ++r, line += kLineBytes) {
        Engine::Sums(line, args_.x + (first_row_ + r) * args_.x_stride + k, depth);
      }
    }
  }

  void RunChunk() {
    if (!args_.prepared || rows_ != args_.m) SumUp();
    const size_t end = args_.runs * run_tiles_;
    if (row_blocks_ <= kInlineRowBlocks) {
      StreamTiles(0, end);
    } else {
      for (size_t tile = 0; tile < end; tile += Engine::kTiles) {
        const size_t count = end - tile < Engine::kTiles ? end - tile : Engine::kTiles;
        const Tiles tiles = TilesAt(tile, 1, count);
        // Behind the last tiles lies what somebody needs next: other channels, or the next layer.
        const bool is_last = tile + count >= end;
        RunPanels(tiles, count, is_last ? tiles.packed[count - 1] + tile_bytes_ : TilesAt(tile + count, 1, 1).packed[0]);
      }
    }
  }

  // Weights come from memory once: several far apart streams keep more of its pages and channels busy than one.
  void StreamTiles(size_t begin, size_t end) {
    size_t streams = row_blocks_ == 1 ? Engine::StreamTiles(rows_) : Engine::kTiles;
    while (begin < end) {
      while (streams > end - begin) streams /= 2;
      const size_t length = (end - begin) / streams;
      for (size_t i = 0; i < length; ++i) {
        // Each stream goes on with its next tile; from its last one to where the same stream of the next stretch begins.
        const size_t tiles_between = i + 1 == length ? (streams - 1) * length : 0;
        RunStream(TilesAt(begin + i, length, streams), streams, tiles_between * tile_bytes_);
      }
      begin += length * streams;
    }
  }

  // Tiles are counted through all runs.
  Tiles TilesAt(size_t first, size_t step, size_t count) const {
    Tiles tiles;
    tiles.acc_stride = args_.acc_stride;
    for (size_t t = 0; t < count; ++t) {
      size_t tile = first + t * step, run = 0;
      if (args_.runs != 1) {
        run = tile / run_tiles_;
        tile %= run_tiles_;
      }
      const size_t channels = args_.n_end - args_.n_begin, n = tile * c4::kTileChannels;  // n: in the run
      tiles.packed[t] = args_.w + (args_.n_begin + run * args_.run_step + n) / c4::kTileChannels * tile_bytes_;
      tiles.acc[t] = args_.acc + first_row_ * args_.acc_stride + run * channels + n;
      const size_t left = channels - n;
      tiles.columns[t] = static_cast<uint32_t>(left < c4::kTileChannels ? left : c4::kTileChannels);
    }
    return tiles;
  }

  Rows RowsAt(size_t row, size_t k) const {
    return {args_.x + (first_row_ + row) * args_.x_stride + k, args_.x_stride,
            args_.scratch + (k / kPanelDepth * rows_ + row) * kLineBytes, rows_ * kLineBytes};
  }

  // Calls block(row, rows) for blocks of rows as equal as can be: 128 rows are 18 blocks of 6 and 4 of 5.
  template <typename Block>
  void ForRowBlocks(const Block &block) const {
    const size_t base = rows_ / row_blocks_, longer = rows_ % row_blocks_;
    size_t row = 0;
    for (size_t b = 0; b < row_blocks_; ++b) {
      const size_t count = base + (b < longer ? 1 : 0);
      block(row, count);
      row += count;
    }
  }

  void RunStream(const Tiles &tiles, size_t count, size_t bytes_between) const {
    Depth depth = depth_;
    depth.skipped_bytes += bytes_between;
    ForRowBlocks([&](size_t row, size_t rows) {
      Tiles at = tiles;
      for (size_t t = 0; t < count; ++t) at.acc[t] += row * args_.acc_stride;
      Engine::Stream(rows, count, RowsAt(row, 0), at, depth);
    });
  }

  // next: the tiles to follow
  void RunPanels(const Tiles &tiles, size_t count, const uint8_t *next) const {
    for (size_t k = 0, depth; k < args_.k; k += depth) {
      depth = PanelDepth(args_.k - k);
      const size_t groups = depth / kSubgroup;
      const Start start = k == 0 ? Start::kZero : Start::kAcc;
      Ahead ahead = AheadOf(tiles, count, next, k + depth);
      ForRowBlocks([&](size_t row, size_t rows) {
        ahead.Fetch();
        Tiles at = tiles;
        for (size_t t = 0; t < count; ++t) at.acc[t] += row * args_.acc_stride;
        if (row == 0) return Engine::template Panel<true>(rows, count, RowsAt(row, k), at, panel_, depth_, k, groups, start);
        Engine::template Panel<false>(rows, count, RowsAt(row, k), at, panel_, depth_, k, groups, start);
      });
    }
  }

  // Packed weights on their way to the cache while others are multiplied: a part of them before each row block.
  struct Ahead {
    const uint8_t *from;
    size_t tiles, stride, bytes, step, done;

    void Fetch() {
      const size_t end = done + step < bytes ? done + step : bytes;
      for (; done < end; done += kLineBytes) {
        for (size_t t = 0; t < tiles; ++t) __builtin_prefetch(from + t * stride + done);
      }
    }
  };

  // What Unpack reads when it is called next: columns from k on, or, where these were the last, the first of the tiles to follow.
  Ahead AheadOf(const Tiles &tiles, size_t count, const uint8_t *next, size_t k) const {
    const auto bytes_of = [](size_t depth) { return depth / c4::RowDepth(Engine::kBits) * c4::kRowBytes; };
    const bool goes_on = k < args_.k;
    const size_t left = goes_on ? args_.k - k : args_.k, depth = PanelDepth(left);
    Ahead ahead = {next, count, tile_bytes_, depth_.header_bytes + bytes_of(depth), 0, 0};
    if (goes_on) {
      ahead.from = tiles.packed[0] + depth_.header_bytes + bytes_of(k);
      ahead.bytes = bytes_of(depth);
    }
    ahead.step = CeilDivide(ahead.bytes, row_blocks_ * kLineBytes) * kLineBytes;
    return ahead;
  }

  const GemmArgs &args_;
  size_t first_row_, rows_, row_blocks_;
  size_t tile_bytes_, run_tiles_;
  uint8_t *panel_ = nullptr;
  Depth depth_;
};

}  // namespace
}  // namespace acorn::grouped
