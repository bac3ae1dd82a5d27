// Where a layer's keys and values lie in the session's memory. One layout for each width, for all variants of append (which
// writes it) and attention (which reads it); nobody else looks inside. Pure functions, static so that a file compiled for one
// instruction set keeps its copy to itself.
//
// Each KV head has its own K block and V block, one after the other in head order. Of 8 bits:
//   K  u8 [rows / 16, head_dim / 4, 16 rows, 4]   key + 128: the unsigned operand of a dot product; the offset adds the same to
//                                                 every score of a query row, and softmax sees only differences
//   V  s8 [rows / 4, head_dim, 4 rows]            four rows side by side: one dot product with four weights
// Of 4 bits, two vectors of the above in the nibbles of one, low first; a nibble is the value + 8. Both nibbles of a byte belong
// to one row, so that rows can be written at the same time:
//   K  u8 [rows / 16, head_dim / 8, 16 rows, 4]   dimensions 8j + i and 8j + 4 + i
//   V  u8 [rows / 4, head_dim / 16, 8, 4 rows]    dimensions 16j + i and 16j + 8 + i
// rows are padded to 16, head_dim to 16. Padding and rows not yet written may hold anything: it is multiplied with 0 or left out.
//
// The rows of the constant prefix come first. Tokens follow, each in a row of its own; or, where attention sees a window of them, in
// a ring of whole tiles, which a new token enters in the place of one that nobody will see again.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/checked.h"

namespace acorn::kv_cache {

constexpr size_t kTileRows = 16;
constexpr size_t kAlignment = 64;   // of a cache, and so of each head's block
constexpr size_t kMaxRows = 65536;  // beyond it the sums of attention would not fit s32
constexpr int kNibbleOffset = 8;    // a nibble is the value + 8
constexpr int kNibbleLimit = 7;     // values are in [-7, 7]

static constexpr size_t PaddedRows(size_t rows) { return AlignUp(rows, kTileRows); }
static constexpr size_t PaddedDim(size_t head_dim) { return AlignUp(head_dim, 16); }

/// What the rows of a session's caches depend on, beside their windows.
struct Extent {
  uint64_t prefix_rows;
  uint64_t tokens;  // most that a session holds; UINT64_MAX: there is no end
  uint64_t chunk;   // most that are appended before a query reads
};

/// Rows of a cache that tokens take turns in: token t stands in row first + t mod count.
struct TokenRows {
  uint64_t first, count;

  constexpr uint64_t RowOf(uint64_t token) const { return first + token % count; }
  constexpr uint64_t all() const { return first + count; }  // of the cache
};

/// window 0: a row for each token. Else so many that the last token of a chunk takes no place that its first one still sees.
static constexpr TokenRows TokenRowsOf(const Extent &extent, uint64_t window) {
  if (window == 0) return {extent.prefix_rows, extent.tokens};
  const uint64_t most = window + extent.chunk - 1;
  return {AlignUp(extent.prefix_rows, kTileRows), AlignUp(most < extent.tokens ? most : extent.tokens, kTileRows)};
}

/// Bytes of one KV head's keys, and as many for its values, in a cache of `rows` rows and 8 or 4 bits; a multiple of kAlignment.
/// In 64 bits on every machine: a file may ask for more than 32 hold, which the plan must see.
static constexpr uint64_t HeadBytes(size_t rows, size_t head_dim, size_t bits) {
  return uint64_t{PaddedRows(rows)} * PaddedDim(head_dim) / 8 * bits;
}

/// Bytes of all keys of a layer, and as many for all values: KV head h starts at h * HeadBytes.
static constexpr uint64_t CacheBytes(size_t rows, size_t kv_heads, size_t head_dim, size_t bits) {
  return kv_heads * HeadBytes(rows, head_dim, bits);
}

/// Byte of key element (row, d) in its head's block of 8 bits.
static constexpr size_t KeyOffset(size_t row, size_t d, size_t head_dim) {
  return (row / kTileRows * (PaddedDim(head_dim) / 4) + d / 4) * (kTileRows * 4) + row % kTileRows * 4 + d % 4;
}

/// Byte of value element (row, d) in its head's block of 8 bits.
static constexpr size_t ValueOffset(size_t row, size_t d, size_t head_dim) {
  return (row / 4 * PaddedDim(head_dim) + d) * 4 + row % 4;
}

/// Where a nibble of a block of 4 bits is.
struct NibblePlace {
  size_t byte;
  int shift;  // 0 or 4
};

/// Where key element (row, d) is in its head's block of 4 bits.
static constexpr NibblePlace KeyNibble(size_t row, size_t d, size_t head_dim) {
  return {(row / kTileRows * (PaddedDim(head_dim) / 8) + d / 8) * (kTileRows * 4) + row % kTileRows * 4 + d % 4,
          static_cast<int>(d % 8 / 4 * 4)};
}

/// Where value element (row, d) is in its head's block of 4 bits.
static constexpr NibblePlace ValueNibble(size_t row, size_t d, size_t head_dim) {
  return {(row / 4 * (PaddedDim(head_dim) / 16) + d / 16) * 32 + d % 8 * 4 + row % 4, static_cast<int>(d % 16 / 8 * 4)};
}

/// What a nibble stands for, in [-7, 7] if append has written it.
template <typename Byte>
static constexpr int NibbleAt(const Byte *block, NibblePlace place) {
  return (block[place.byte] >> place.shift & 15) - kNibbleOffset;
}

/// Element (row, d) of a head's block of keys.
static constexpr int KeyAt(const uint8_t *block, size_t row, size_t d, size_t head_dim, size_t bits) {
  return bits == 4 ? NibbleAt(block, KeyNibble(row, d, head_dim)) : block[KeyOffset(row, d, head_dim)] - 128;
}

/// Element (row, d) of a head's block of values.
static constexpr int ValueAt(const int8_t *block, size_t row, size_t d, size_t head_dim, size_t bits) {
  return bits == 4 ? NibbleAt(block, ValueNibble(row, d, head_dim)) : block[ValueOffset(row, d, head_dim)];
}

}  // namespace acorn::kv_cache
