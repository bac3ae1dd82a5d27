// The layouts that XNNPACK's per-channel microkernels read, as offsets: kX<nr>C<kr> for nr channels x kr neighbours along k,
// kX<nr>C<kr>S<sr> where the neighbours of sr rows are shuffled across channels.
// For the packer, the kernels and the tests; formats kW8 and kW4 only. Says where a value lies; packs nothing.
//
// A matrix [n, k] is one or more panels along k, one after the other, of `k_panel` values each (the last may be shorter).
// A panel is a matrix of its own: a row of tiles of nr channels, n padded to whole tiles with zero weights. A tile:
//
//   int32   ksum[nr]          XnnKsum(sum of the panel's weights of channel c), little-endian
//   uint8   rows[...][nr*kr]  kW8: row j, byte c*kr+i = w[c][kr*XnnNeighbours(j, c)+i], two's complement
//                             kW4: row j, byte c*kr+i = w[c][2kr*j+i] in the low nibble, w[c][2kr*j+kr+i] in the high one
//   float32 scale[nr]         kXnnScale
//   float32 bias[nr]          kXnnBias
//
// A kernel of shuffled rows rotates sr*kr values of x by kr from row to row, where others broadcast kr of them:
// XnnNeighbours(j, c) = j - j % sr + (j + c) % sr. Without a shuffle sr is 1 and that is j. Shuffled layouts hold kW8 alone.
// Depth is padded to kr*sr (kW8) or 2 kr (kW4) with weight 0; what the kernels multiply it with then does not matter.
// Nibbles are w + 8 in kX8C8 (the AVX2 kernel subtracts 8) and two's complement in the others (whose kernels shift them to the
// top of a byte). Panels exist because a microkernel hands its sum over as float32, exact below 2^24:
// within one panel 127 * sum |w| of a channel stays below kXnnSumLimit. k_panel is a multiple of 16, or k itself.
// The matrix is aligned to 64 bytes.
// The functions are static so that a file compiled for one instruction set keeps its copy to itself.
#pragma once

#include <cstdint>

#include "acorn_schema/layout.h"

namespace acorn {

constexpr int64_t kXnnSumLimit = int64_t{1} << 24;
constexpr uint32_t kXnnScale = 0x3f800000u;  // bits of 1.0f
constexpr uint32_t kXnnBias = 0;             // bits of 0.0f

/// Channels in a tile.
static constexpr uint32_t XnnNr(Layout layout) { return layout == Layout::kX8C8 || layout == Layout::kX8C2S4 ? 8 : 16; }

/// Neighbours along k that lie side by side.
static constexpr uint32_t XnnKr(Layout layout) {
  switch (layout) {
    case Layout::kX16C4:
      return 4;
    case Layout::kX8C2S4:
      return 2;
    case Layout::kX16C1:
      return 1;
    default:
      return 8;
  }
}

/// Rows of a tile that are shuffled among each other, a divisor of XnnNr; 1: rows stand in order.
static constexpr uint32_t XnnSr(Layout layout) { return layout == Layout::kX8C2S4 ? 4 : 1; }

/// True if a nibble is w + 8, false if it is two's complement.
static constexpr bool XnnBiasedNibbles(Layout layout) { return layout == Layout::kX8C8; }

/// Depth of a panel of `k` values as stored.
static constexpr uint64_t XnnDepth(WeightFormat format, Layout layout, uint64_t k) {
  const uint64_t unit = uint64_t{XnnKr(layout)} * XnnSr(layout) * (format == WeightFormat::kW4 ? 2 : 1);
  return (k + unit - 1) / unit * unit;
}

/// Bytes of the weights of one tile of one panel of `k` values.
static constexpr uint64_t XnnRowsBytes(WeightFormat format, Layout layout, uint64_t k) {
  return XnnDepth(format, layout, k) * XnnNr(layout) / (format == WeightFormat::kW4 ? 2 : 1);
}

/// Bytes of one tile of one panel of `k` values: a multiple of 64 for kX16C8 and kX16C4, of 32 for kX8C8 and kX8C2S4, of 16 for
/// kX16C1.
static constexpr uint64_t XnnTileBytes(WeightFormat format, Layout layout, uint64_t k) {
  return XnnRowsBytes(format, layout, k) + uint64_t{12} * XnnNr(layout);
}

static constexpr uint64_t XnnTiles(Layout layout, uint64_t n) { return (n + XnnNr(layout) - 1) / XnnNr(layout); }

static constexpr uint64_t XnnPanels(uint64_t k, uint64_t k_panel) { return (k + k_panel - 1) / k_panel; }

/// Values along k in panel `panel`.
static constexpr uint64_t XnnPanelDepth(uint64_t k, uint64_t k_panel, uint64_t panel) {
  const uint64_t begin = panel * k_panel;
  return k - begin < k_panel ? k - begin : k_panel;
}

/// What the functions below are about: a matrix [n, k] in panels of k_panel.
struct XnnMatrix {
  WeightFormat format;
  Layout layout;
  uint64_t n;
  uint64_t k;
  uint64_t k_panel;
};

/// Byte offset of panel `panel`.
static constexpr uint64_t XnnPanelOffset(const XnnMatrix &matrix, uint64_t panel) {
  return panel * XnnTiles(matrix.layout, matrix.n) * XnnTileBytes(matrix.format, matrix.layout, matrix.k_panel);
}

/// Bytes of the whole matrix.
static constexpr uint64_t XnnPackedBytes(const XnnMatrix &matrix) {
  const uint64_t last = XnnPanels(matrix.k, matrix.k_panel) - 1;
  return XnnPanelOffset(matrix, last) +
         XnnTiles(matrix.layout, matrix.n) *
             XnnTileBytes(matrix.format, matrix.layout, XnnPanelDepth(matrix.k, matrix.k_panel, last));
}

/// Byte offset of the tile of channel `n` in panel `panel`.
static constexpr uint64_t XnnTileOffset(const XnnMatrix &matrix, uint64_t n, uint64_t panel) {
  return XnnPanelOffset(matrix, panel) +
         n / XnnNr(matrix.layout) *
             XnnTileBytes(matrix.format, matrix.layout, XnnPanelDepth(matrix.k, matrix.k_panel, panel));
}

/// Byte offset of the int32 ksum of channel `n` in panel `panel`.
static constexpr uint64_t XnnKsumOffset(const XnnMatrix &matrix, uint64_t n, uint64_t panel) {
  return XnnTileOffset(matrix, n, panel) + 4 * (n % XnnNr(matrix.layout));
}

/// Byte offset of the float32 scale of channel `n` in panel `panel`.
static constexpr uint64_t XnnScaleOffset(const XnnMatrix &matrix, uint64_t n, uint64_t panel) {
  return XnnKsumOffset(matrix, n, panel) + uint64_t{4} * XnnNr(matrix.layout) +
         XnnRowsBytes(matrix.format, matrix.layout, XnnPanelDepth(matrix.k, matrix.k_panel, panel));
}

/// Byte offset of the float32 bias of channel `n` in panel `panel`.
static constexpr uint64_t XnnBiasOffset(const XnnMatrix &matrix, uint64_t n, uint64_t panel) {
  return XnnScaleOffset(matrix, n, panel) + uint64_t{4} * XnnNr(matrix.layout);
}

/// Where one weight lies: a byte, and for kW4 which half of it.  shift is 0 or 4
struct XnnWeightPlace {
  uint64_t offset;
  uint32_t shift;
};

/// Byte offset of where channel `n` begins in the first row of its tile in panel `panel`.
static constexpr uint64_t XnnChannelOffset(const XnnMatrix &matrix, uint64_t n, uint64_t panel) {
  const uint64_t nr = XnnNr(matrix.layout);
  return XnnTileOffset(matrix, n, panel) + 4 * nr + n % nr * XnnKr(matrix.layout);
}

/// Place of the `block`-th XnnKr(layout) neighbours of channel `n` in a panel, from XnnChannelOffset on.
static constexpr XnnWeightPlace XnnNeighboursPlace(WeightFormat format, Layout layout, uint32_t n, uint32_t block) {
  const uint64_t row_bytes = XnnNr(layout) * XnnKr(layout);
  if (format == WeightFormat::kW4) return {block / 2 * row_bytes, block % 2 * 4};
  const uint32_t sr = XnnSr(layout);
  if (sr == 1) return {block * row_bytes, 0};
  return {(block - block % sr + (block + sr - n % sr) % sr) * row_bytes, 0};
}

/// Place of w[n][k_index].  n < padded n, k_index < k.  The XnnKr(layout) weights from a multiple of it on are neighbours.
/// To pack: fill the rows with XnnPadding, then place the weights.
static constexpr XnnWeightPlace XnnWeight(const XnnMatrix &matrix, uint64_t n, uint64_t k_index) {
  const uint64_t kr = XnnKr(matrix.layout), inner = k_index % matrix.k_panel;
  XnnWeightPlace place = XnnNeighboursPlace(matrix.format, matrix.layout, static_cast<uint32_t>(n % XnnNr(matrix.layout)),
                                            static_cast<uint32_t>(inner / kr));
  place.offset += XnnChannelOffset(matrix, n, k_index / matrix.k_panel) + inner % kr;
  return place;
}

/// The bits stored for weight `w`: a byte (kW8) or a nibble (kW4).
static constexpr uint8_t XnnEncode(WeightFormat format, Layout layout, int32_t w) {
  if (format == WeightFormat::kW8) return static_cast<uint8_t>(w);
  return static_cast<uint8_t>((XnnBiasedNibbles(layout) ? w + 8 : w) & 15);
}

/// What a byte of padding holds: weight 0, in both nibbles for kW4.
static constexpr uint8_t XnnPadding(WeightFormat format, Layout layout) {
  return format == WeightFormat::kW4 && XnnBiasedNibbles(layout) ? 0x88 : 0;
}

/// The weight behind the bits `bits` (a byte, or a nibble already shifted down and masked).
static constexpr int32_t XnnDecode(WeightFormat format, Layout layout, uint32_t bits) {
  if (format == WeightFormat::kW8) return static_cast<int32_t>(bits ^ 128u) - 128;
  return XnnBiasedNibbles(layout) ? static_cast<int32_t>(bits) - 8 : static_cast<int32_t>(bits ^ 8u) - 8;
}

/// What the ksum word holds: the kernels of x86 add 128 to x, and 128 * ksum takes that out again (16-fold where nibbles are
/// shifted to the top of a byte). Those of Arm multiply it by the zero point of x, which is 0.
static constexpr int32_t XnnKsum(WeightFormat format, Layout layout, int32_t sum) {
  return format == WeightFormat::kW4 && !XnnBiasedNibbles(layout) ? -16 * sum : -sum;
}

}  // namespace acorn
