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
  kW2G32 = 6,  // 2 bits, the levels -3, -1, 1, 3; a scale and multipliers as in kW4G32
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
  switch (format) {
    case WeightFormat::kW4G32:
    case WeightFormat::kW2G32:
      return 32;
    case WeightFormat::kW4G64:
      return 64;
    case WeightFormat::kW4G128:
      return 128;
    default:
      return 0;
  }
}

/// Bits of a weight's integer, multipliers and scales apart.
constexpr uint32_t WeightBits(WeightFormat format) {
  return format == WeightFormat::kW8 ? 8 : format == WeightFormat::kW2G32 ? 2 : 4;
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

/// c4: a matrix [n, k] of a grouped format in tiles of 16 channels, in order of n. A tile is a header, u8 multipliers
/// [k / group, 16] padded with zeros to 64 bytes, then rows of 64 bytes, each 16 channels x 8 k (4 bits) or 16 k (2 bits).
/// Row j, byte 4c + i holds, from bit 0 up, the codes of channel c and k = depth * j + i, + 4 + i, + 8 + i, ...
/// A code of 4 bits is w + 8, w in [-8, 7]; one of 2 bits (w + 3) / 2, w in {-3, -1, 1, 3}.
/// Channels beyond n are padding: multipliers 0, and weight 0 where the format has it.
/// k is a multiple of group, group of 32.  The matrix is aligned to 64 bytes, so every tile is.
namespace c4 {

constexpr uint64_t kTileChannels = 16;
constexpr uint64_t kRowBytes = 64;
constexpr uint64_t kAlignment = 64;

/// Elements of k in a row.
static constexpr uint64_t RowDepth(uint32_t bits) { return 32 / bits; }

static constexpr uint64_t Tiles(uint64_t n) { return (n + kTileChannels - 1) / kTileChannels; }

static constexpr uint64_t HeaderBytes(uint64_t k, uint32_t group) {
  // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): 32, 64 or 128
  return (k / group * kTileChannels + kAlignment - 1) / kAlignment * kAlignment;
}

static constexpr uint64_t TileBytes(uint64_t k, uint32_t group, uint32_t bits) {
  return HeaderBytes(k, group) + k / RowDepth(bits) * kRowBytes;
}

static constexpr uint64_t TileBytes(WeightFormat format, uint64_t k) {
  return TileBytes(k, GroupSize(format), WeightBits(format));
}

/// Bytes of the packed matrix: whole tiles.
static constexpr uint64_t PackedBytes(WeightFormat format, uint64_t n, uint64_t k) { return Tiles(n) * TileBytes(format, k); }

/// Byte of the multiplier of group index g in channel n.
static constexpr uint64_t MultiplierOffset(WeightFormat format, uint64_t n, uint64_t g, uint64_t k) {
  return n / kTileChannels * TileBytes(format, k) + g * kTileChannels + n % kTileChannels;
}

/// Byte that holds the code of weight (n, k_index); it starts at bit Shift(format, k_index).
static constexpr uint64_t WeightOffset(WeightFormat format, uint64_t n, uint64_t k_index, uint64_t k) {
  return n / kTileChannels * TileBytes(format, k) + HeaderBytes(k, GroupSize(format)) +
         k_index / RowDepth(WeightBits(format)) * kRowBytes + n % kTileChannels * 4 + k_index % 4;
}
static constexpr uint32_t Shift(WeightFormat format, uint64_t k_index) {
  return static_cast<uint32_t>(k_index % RowDepth(WeightBits(format)) / 4) * WeightBits(format);
}
static constexpr uint32_t Mask(WeightFormat format) { return (1u << WeightBits(format)) - 1; }

/// The code of weight w, and back.
static constexpr uint32_t Encode(WeightFormat format, int32_t w) {
  return static_cast<uint32_t>(WeightBits(format) == 2 ? (w + 3) / 2 : w + 8);
}
static constexpr int32_t Decode(WeightFormat format, uint32_t code) {
  const auto value = static_cast<int32_t>(code);
  return WeightBits(format) == 2 ? 2 * value - 3 : value - 8;
}

/// What a byte of padding holds.
static constexpr uint8_t PaddingByte(WeightFormat format) { return WeightBits(format) == 2 ? 0 : 0x88; }

}  // namespace c4
}  // namespace acorn
