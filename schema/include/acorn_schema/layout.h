// How a weight matrix lies in memory: formats, layouts, and for layout c4 where each element is. One definition for the
// packer (compiler), the kernels' scalar reference and the tests. layout_xnnpack.h has the layouts of the per-channel formats.
// What kernels call is static: a copy compiled for one instruction set must not serve all.
#pragma once

#include <cstddef>
#include <cstdint>

namespace acorn {

/// What a stored weight is. Values are frozen in the model file.
enum class WeightFormat : uint8_t {
  kW8 = 1,     // s8, one scale a channel
  kW4 = 2,     // 4 bits, one scale a channel
  kW4G32 = 3,  // 4 bits, one scale a channel, an unsigned byte multiplier for each group of 32 along k
  kW4G64 = 4,
  kW4G128 = 5,
};

/// Where a stored weight is. Values are frozen in the model file.
enum class Layout : uint8_t {
  kX16C8 = 1,   // XNNPACK's, 16 channels x 8 k
  kX8C8 = 2,    // XNNPACK's, 8 channels x 8 k
  kC4 = 3,      // 16 channels x 4 k, group multipliers at the head of the tile
  kX16C4 = 4,   // XNNPACK's, 16 channels x 4 k
  kX16C1 = 5,   // XNNPACK's, 16 channels x 1 k
  kX8C2S4 = 6,  // XNNPACK's, 8 channels x 2 k, four pairs of k shuffled
};

/// Elements along k that share one multiplier; 0: the format has no groups.
constexpr uint32_t GroupSize(WeightFormat format) {
  return format == WeightFormat::kW4G32 ? 32 : format == WeightFormat::kW4G64 ? 64 : format == WeightFormat::kW4G128 ? 128 : 0;
}

/// True if a matrix of this format may be stored in this layout.
constexpr bool LayoutHolds(Layout layout, WeightFormat format) {
  switch (layout) {
    case Layout::kX16C8:
    case Layout::kX8C8:
    case Layout::kX16C4:
      return format == WeightFormat::kW8 || format == WeightFormat::kW4;
    case Layout::kX16C1:
      return format == WeightFormat::kW4;
    case Layout::kX8C2S4:
      return format == WeightFormat::kW8;
    case Layout::kC4:
      return GroupSize(format) != 0;
  }
  return false;
}

/// c4: a matrix [n, k] in tiles of 16 channels, in order of n. Channels beyond n are padding: nibbles 8 (weight 0), multipliers 0.
/// A tile is a header, u8 multipliers [k / group, 16] padded with zeros to 64 bytes, then k / 8 rows of 64 bytes.
/// Row j, byte 4c + i: low nibble weight (channel c, k = 8j + i), high nibble weight (channel c, k = 8j + 4 + i).
/// A nibble is w + 8, w in [-8, 7].  k is a multiple of group, group of 32.  The matrix is aligned to 64 bytes, so every tile is.
namespace c4 {

constexpr uint64_t kTileChannels = 16;
constexpr uint64_t kRowBytes = 64;
constexpr uint64_t kRowDepth = 8;  // elements of k in a row
constexpr uint64_t kAlignment = 64;
constexpr uint8_t kZeroByte = 0x88;  // two weights of 0

static constexpr uint64_t Tiles(uint64_t n) { return (n + kTileChannels - 1) / kTileChannels; }

static constexpr uint64_t HeaderBytes(uint64_t k, uint32_t group) {
  return (k / group * kTileChannels + kAlignment - 1) / kAlignment * kAlignment;
}

static constexpr uint64_t TileBytes(uint64_t k, uint32_t group) { return HeaderBytes(k, group) + k / kRowDepth * kRowBytes; }

/// Bytes of the packed matrix: whole tiles.
static constexpr uint64_t PackedBytes(uint64_t n, uint64_t k, uint32_t group) { return Tiles(n) * TileBytes(k, group); }

/// Byte of the multiplier of group index g in channel n.
static constexpr uint64_t MultiplierOffset(uint64_t n, uint64_t g, uint64_t k, uint32_t group) {
  return n / kTileChannels * TileBytes(k, group) + g * kTileChannels + n % kTileChannels;
}

/// Byte that holds weight (n, k_index); the nibble in it starts at bit NibbleShift(k_index).
static constexpr uint64_t WeightOffset(uint64_t n, uint64_t k_index, uint64_t k, uint32_t group) {
  return n / kTileChannels * TileBytes(k, group) + HeaderBytes(k, group) + k_index / kRowDepth * kRowBytes +
         n % kTileChannels * 4 + k_index % 4;
}
static constexpr int NibbleShift(uint64_t k_index) { return k_index % kRowDepth < 4 ? 0 : 4; }

}  // namespace c4
}  // namespace acorn
