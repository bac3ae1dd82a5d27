// The loops that the Arm variants share. They differ from those of driver.h where Arm does: weights come from memory as one
// stream, which its prefetchers follow; rows are prepared once a call in the form that an engine's multiply wants; and unpacked
// tiles serve all rows of a panel of k before the next panel, so that prepared rows and tiles stay small whatever k is.
// For the ISA files alone, like driver.h: each compiles its own copy, in its anonymous namespace, with its own flags.
//
// An Engine is a template of Codes (below), which it has as a type of that name. It has, for up to kStreamRows rows, where reading
// packed tiles costs less than unpacking them,
//   kStreamBlockRows                          rows of its largest block
//   StreamBytes(k)                            of a prepared row
//   PrepareStream(to, x, x_stride, rows, k)   prepares the rows of a block
//   Stream(job, rows)                         multiplies a block with packed tiles, whole depth
// and for more
//   kPanelBlockRows, kPanelUnit               rows of its largest block; blocks are multiples of the unit, but for the last row
//   PanelRowBytes(depth)                      of a prepared row; 0: rows are not prepared
//   PreparePanel(to, x, x_stride, rows, depth)
//   PanelBytes(depth)                         of an unpacked panel
//   Unpack(to, packed)                        unpacks a panel of a tile
//   Panel(job, rows)                          multiplies a block with it
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "acorn_schema/layout.h"
#include "kernels/gemm.h"
#include "kernels/grouped/groups.h"
#include "kernels/load_neon.h"

namespace acorn::grouped {
namespace {

// Depth of a panel: the unpacked tile (12 KiB and its multipliers) and the rows of a block (6 KiB) stay in an L1 cache of 32 KiB.
constexpr size_t kPanelDepth = 768;
constexpr size_t kRowChunk = 128;  // rows prepared at a time: bounds the scratch
constexpr size_t kSumsBytes = c4::kTileChannels * sizeof(int32_t);  // of a row and a tile

/// A block of rows times packed tiles that lie side by side.
struct StreamJob {
  const uint8_t *prepared;  // [rows, prepared_stride]
  size_t prepared_stride;
  const uint8_t *weights;
  size_t tiles, tile_bytes, header_bytes;
  size_t multiplier_step;  // 16 * 32 / group: a subgroup's multipliers are at the sum of steps, rounded down to 16 bytes
  size_t subgroups;        // k / 32
  int32_t *acc;            // [rows, acc_stride], 16 channels a tile are written
  size_t acc_stride;
};

/// A block of rows times the unpacked panel of a tile.
struct PanelJob {
  const int8_t *x;
  size_t x_stride;
  const uint8_t *prepared;
  const uint8_t *panel;
  size_t subgroups;  // of the panel
  int32_t *acc;
  size_t acc_stride;
  Start start;
};

/// A panel of a packed tile, to be unpacked.
struct Packed {
  const uint8_t *weights;
  const uint8_t *multipliers;
  uint32_t group_shift;  // log2(group / 32)
  size_t subgroups;

  uint8x16_t Multipliers(size_t subgroup) const {
    return vld1q_u8(multipliers + (subgroup >> group_shift) * c4::kTileChannels);
  }
};

/// Nibbles w + 8. In what is streamed they stay unsigned: a dot starts from -8 times the sum of x.
struct Nibbles {
  static constexpr uint32_t kBits = 4;
  static constexpr int kParts = 2;
  static constexpr int kZero = 8;

  /// Four elements of k of 4 channels: low nibbles, then high ones.
  template <int kPart>
  static ACORN_INLINE int8x16_t Part(uint8x16_t packed) {
    return vreinterpretq_s8_u8(kPart == 0 ? vandq_u8(packed, vdupq_n_u8(15)) : vshrq_n_u8(packed, 4));
  }

  /// Signed weights, for panels: a nibble w + 8 with its upper bit turned over is w in two's complement.
  struct Signed {
    explicit ACORN_INLINE Signed(uint8x16_t packed) : both(vreinterpretq_s8_u8(veorq_u8(packed, vdupq_n_u8(0x88)))) {}
    ACORN_INLINE int8x16_t Low() const { return Plain::Low(both); }
    ACORN_INLINE int8x16_t High() const { return Plain::High(both); }
    int8x16_t both;
  };

  /// A row of a tile to 64 signed bytes for each four elements of k.
  static ACORN_INLINE void Unpack(uint8_t *&to, uint8x16x4_t packed) {
    int8x16x4_t low, high;
    ACORN_UNROLL
    for (int i = 0; i < 4; ++i) {
      const Signed weights(packed.val[i]);
      low.val[i] = weights.Low();
      high.val[i] = weights.High();
    }
    vst1q_s8_x4(reinterpret_cast<int8_t *>(to), low);
    vst1q_s8_x4(reinterpret_cast<int8_t *>(to) + 64, high);
    to += 128;
  }

  /// 16 elements of k of a tile to signed bytes, strips of 4 channels: [2 channels, 8 elements] twice for the elements 0-3 and
  /// 8-11, then for the others.
  static ACORN_INLINE void UnpackStrips(int8x16x4_t (&strips)[4], const uint8_t *&weights) {
    const uint8x16x4_t even = Take64(weights), odd = Take64(weights);
    ACORN_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint32x4_t a = vreinterpretq_u32_u8(even.val[i]), b = vreinterpretq_u32_u8(odd.val[i]);
      const Signed first(vreinterpretq_u8_u32(vzip1q_u32(a, b))), second(vreinterpretq_u8_u32(vzip2q_u32(a, b)));
      strips[i] = {{first.Low(), second.Low(), first.High(), second.High()}};
    }
  }
};

/// Codes of 2 bits, doubled: w + 3. In what is streamed they stay unsigned: a dot starts from -3 times the sum of x.
struct Crumbs {
  static constexpr uint32_t kBits = 2;
  static constexpr int kParts = 4;
  static constexpr int kZero = 3;

  /// Four elements of k of 4 channels.
  template <int kPart>
  static ACORN_INLINE int8x16_t Part(uint8x16_t packed) {
    uint8x16_t moved;
    if constexpr (kPart == 0) {
      moved = vshlq_n_u8(packed, 1);
    } else {
      moved = vshrq_n_u8(packed, 2 * kPart - 1);
    }
    return vreinterpretq_s8_u8(vandq_u8(moved, vdupq_n_u8(6)));
  }

  template <int kPart>
  static ACORN_INLINE void StorePart(uint8_t *&to, const uint8x16x4_t &packed) {
    int8x16x4_t weights;
    ACORN_UNROLL
    for (int i = 0; i < 4; ++i) weights.val[i] = vsubq_s8(Part<kPart>(packed.val[i]), vdupq_n_s8(kZero));
    vst1q_s8_x4(reinterpret_cast<int8_t *>(to), weights);
    to += 64;
  }

  /// As those of Nibbles.
  static ACORN_INLINE void Unpack(uint8_t *&to, uint8x16x4_t packed) {
    StorePart<0>(to, packed);
    StorePart<1>(to, packed);
    StorePart<2>(to, packed);
    StorePart<3>(to, packed);
  }

  static ACORN_INLINE int8x16_t Moved(uint32x4_t twice, int8x16_t by) {
    const uint8x16_t codes = vandq_u8(vshlq_u8(vreinterpretq_u8_u32(twice), by), vdupq_n_u8(6));
    return vsubq_s8(vreinterpretq_s8_u8(codes), vdupq_n_s8(kZero));
  }

  static ACORN_INLINE void UnpackStrips(int8x16x4_t (&strips)[4], const uint8_t *&weights) {
    // Of a channel's bytes, doubled: parts 0 and 2, then 1 and 3.
    const int8x16_t even = {1, 1, 1, 1, -3, -3, -3, -3, 1, 1, 1, 1, -3, -3, -3, -3};
    const int8x16_t odd = {-1, -1, -1, -1, -5, -5, -5, -5, -1, -1, -1, -1, -5, -5, -5, -5};
    const uint8x16x4_t packed = Take64(weights);
    ACORN_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint32x4_t bytes = vreinterpretq_u32_u8(packed.val[i]);
      const uint32x4_t first = vzip1q_u32(bytes, bytes), second = vzip2q_u32(bytes, bytes);
      strips[i] = {{Moved(first, even), Moved(second, even), Moved(first, odd), Moved(second, odd)}};
    }
  }
};

/// Sums of rows of 16 channels.
template <int kR>
ACORN_INLINE void LoadTile(int32x4_t (&acc)[kR][4], const int32_t *from, size_t stride) {
  ACORN_UNROLL
  for (int r = 0; r < kR; ++r, from += stride) {
    ACORN_UNROLL
    for (int i = 0; i < 4; ++i) acc[r][i] = vld1q_s32(from + 4 * i);
  }
}
template <int kR>
ACORN_INLINE void StoreTile(int32_t *to, size_t stride, const int32x4_t (&acc)[kR][4]) {
  ACORN_UNROLL
  for (int r = 0; r < kR; ++r, to += stride) {
    ACORN_UNROLL
    for (int i = 0; i < 4; ++i) vst1q_s32(to + 4 * i, acc[r][i]);
  }
}

/// A block of kR rows times packed tiles, whole depth: Tiles::Tile(acc, job, tile) adds up each.
template <typename Tiles, int kR>
ACORN_NOINLINE void StreamBlock(const StreamJob &job) {
  const uint8_t *tile = job.weights;
  int32_t *out = job.acc;
  for (size_t t = job.tiles; t != 0; --t, tile += job.tile_bytes, out += c4::kTileChannels) {
    int32x4_t acc[kR][4] = {};
    Tiles::Tile(acc, job, tile);
    StoreTile(out, job.acc_stride, acc);
  }
}

/// A block of kR rows times the unpacked panel of a tile: subgroup(acc, x, panel) multiplies one, and moves x and panel on.
template <int kR, typename Subgroup>
ACORN_INLINE void PanelSubgroups(const PanelJob &job, const Subgroup &subgroup) {
  int32x4_t acc[kR][4] = {};
  if (job.start == Start::kAcc) LoadTile(acc, job.acc, job.acc_stride);
  const int8_t *x[kR];
  ACORN_UNROLL
  for (int r = 0; r < kR; ++r) x[r] = job.x + static_cast<size_t>(r) * job.x_stride;
  const uint8_t *panel = job.panel;
  size_t s = job.subgroups;
  do {
    subgroup(acc, x, panel);
  } while (--s != 0);
  StoreTile(job.acc, job.acc_stride, acc);
}

/// A subgroup of a tile to 64 signed bytes for each four elements of k.
template <typename Codes>
ACORN_INLINE void UnpackSubgroup(uint8_t *&to, const uint8_t *&weights) {
  ACORN_UNROLL
  for (int row = 0; row < kSubgroupRows<Codes>; ++row) Codes::Unpack(to, Take64(weights));
}

template <typename Engine>
class DriverArm {
  static constexpr uint32_t kBits = Engine::Codes::kBits;

 public:
  static size_t ScratchBytes(size_t m, size_t k) {
    const size_t rows = m < kRowChunk ? m : kRowChunk;
    const size_t stream_rows = m < Engine::kStreamRows ? m : Engine::kStreamRows;
    const size_t depth = k < kPanelDepth ? k : kPanelDepth;
    const size_t stream = stream_rows * Engine::StreamBytes(k);
    const size_t panel = m <= Engine::kStreamRows ? 0 : EvenUp(rows) * Engine::PanelRowBytes(depth) + Engine::PanelBytes(depth);
    return rows * kSumsBytes + (stream > panel ? stream : panel);
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
        prepared_(args.scratch + rows * kSumsBytes) {}

  bool IsPrepared() const { return args_.prepared && rows_ == args_.m; }

  static constexpr size_t EvenUp(size_t rows) { return (rows + 1) / 2 * 2; }

  // The last tile may not be wanted whole. An engine writes 16 channels, so its sums go to scratch first.
  size_t WholeTiles() const { return (args_.n_end - args_.n_begin) / c4::kTileChannels; }
  size_t PartChannels() const { return (args_.n_end - args_.n_begin) % c4::kTileChannels; }
  int32_t *PartSums() const { return reinterpret_cast<int32_t *>(args_.scratch); }
  void FinishPartTile() const {
    const int32_t *from = PartSums();
    int32_t *to = acc_ + WholeTiles() * c4::kTileChannels;
    for (size_t r = 0; r < rows_; ++r, from += c4::kTileChannels, to += args_.acc_stride) {
      for (size_t c = 0; c < PartChannels(); ++c) to[c] = from[c];
    }
  }

  const uint8_t *FirstTile(size_t run) const {
    return args_.w + (args_.n_begin + run * args_.run_step) / c4::kTileChannels * TileBytes();
  }
  int32_t *Sums(size_t run) const { return acc_ + run * (args_.n_end - args_.n_begin); }
  size_t TileBytes() const { return c4::TileBytes(args_.k_stored, args_.group, kBits); }

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

  // Weights come from memory once: with more than one block of rows they take turns at each tile.
  void RunStream() const {
    const size_t stride = Engine::StreamBytes(args_.k);
    if (!IsPrepared()) {
      ForRowBlocks(Engine::kStreamBlockRows, 1, [&](size_t row, size_t rows) {
        Engine::PrepareStream(prepared_ + row * stride, x_ + row * args_.x_stride, args_.x_stride, rows, args_.k);
      });
    }
    const size_t whole = WholeTiles(), step = rows_ <= Engine::kStreamBlockRows ? whole : 1;
    for (size_t run = 0; run < args_.runs; ++run) {
      for (size_t t = 0; t < whole; t += step) {
        StreamTiles(FirstTile(run) + t * TileBytes(), step, Sums(run) + t * c4::kTileChannels, args_.acc_stride);
      }
    }
    if (PartChannels() == 0) return;
    StreamTiles(FirstTile(0) + whole * TileBytes(), 1, PartSums(), c4::kTileChannels);
    FinishPartTile();
  }

  void StreamTiles(const uint8_t *weights, size_t count, int32_t *acc, size_t acc_stride) const {
    const size_t stride = Engine::StreamBytes(args_.k);
    StreamJob job;
    job.prepared_stride = stride;
    job.weights = weights;
    job.tiles = count;
    job.tile_bytes = TileBytes();
    job.header_bytes = c4::HeaderBytes(args_.k_stored, args_.group);
    job.multiplier_step = c4::kTileChannels * kSubgroup / args_.group;
    job.subgroups = args_.k / kSubgroup;
    job.acc_stride = acc_stride;
    ForRowBlocks(Engine::kStreamBlockRows, 1, [&](size_t row, size_t rows) {
      job.prepared = prepared_ + row * stride;
      job.acc = acc + row * acc_stride;
      Engine::Stream(job, rows);
    });
  }

  void RunPanels() const {
    const size_t groups = args_.k / args_.group, panels = (args_.k + kPanelDepth - 1) / kPanelDepth;
    size_t group = 0;
    for (size_t p = 0; p < panels; ++p) {
      const size_t count = groups / panels + (p < groups % panels ? 1 : 0);
      RunPanel(group, count);
      group += count;
    }
    if (PartChannels() != 0) FinishPartTile();
  }

  // Groups [first, first + count) of every row and tile.
  void RunPanel(size_t first, size_t count) const {
    const size_t k = first * args_.group, depth = count * args_.group;
    const size_t row_bytes = Engine::PanelRowBytes(depth);
    if constexpr (Engine::PanelRowBytes(kPanelDepth) != 0) {
      if (!IsPrepared() || depth != args_.k) {  // of several panels the last one's rows are there
        ForRowBlocks(Engine::kPanelBlockRows, Engine::kPanelUnit, [&](size_t row, size_t rows) {
          Engine::PreparePanel(prepared_ + row * row_bytes, x_ + row * args_.x_stride + k, args_.x_stride, rows, depth);
        });
      }
    }
    for (size_t run = 0; run < args_.runs; ++run) {
      for (size_t t = 0; t < WholeTiles(); ++t) {
        PanelTile(FirstTile(run) + t * TileBytes(), first, depth / kSubgroup, Sums(run) + t * c4::kTileChannels, args_.acc_stride);
      }
    }
    if (PartChannels() == 0) return;
    PanelTile(FirstTile(0) + WholeTiles() * TileBytes(), first, depth / kSubgroup, PartSums(), c4::kTileChannels);
  }

  void PanelTile(const uint8_t *tile, size_t first_group, size_t subgroups, int32_t *acc, size_t acc_stride) const {
    const size_t k = first_group * args_.group, row_bytes = Engine::PanelRowBytes(subgroups * kSubgroup);
    uint8_t *const panel = prepared_ + EvenUp(rows_) * row_bytes;
    Engine::Unpack(panel, {tile + c4::HeaderBytes(args_.k_stored, args_.group) + k / c4::RowDepth(kBits) * c4::kRowBytes,
                           tile + first_group * c4::kTileChannels, GroupShift(args_.group), subgroups});
    PanelJob job;
    job.x_stride = args_.x_stride;
    job.panel = panel;
    job.subgroups = subgroups;
    job.acc_stride = acc_stride;
    job.start = first_group == 0 ? Start::kZero : Start::kAcc;
    ForRowBlocks(Engine::kPanelBlockRows, Engine::kPanelUnit, [&](size_t row, size_t rows) {
      job.x = x_ + row * args_.x_stride + k;
      job.prepared = prepared_ + row * row_bytes;
      job.acc = acc + row * acc_stride;
      Engine::Panel(job, rows);
    });
  }

  const GemmArgs &args_;
  const int8_t *x_;
  int32_t *acc_;
  size_t rows_;
  uint8_t *prepared_;
};

}  // namespace
}  // namespace acorn::grouped
