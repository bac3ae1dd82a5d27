// Where a layer's keys and values lie in the session's memory. One layout for all variants of append (which writes it) and
// attention (which reads it); nobody else looks inside. Pure functions, static so
// that a file compiled for one instruction set keeps its copy to itself.
//
// Each KV head has its own K block and V block, one after the other in head order:
//   K  u8 [rows / 16, head_dim / 4, 16 rows, 4]   key + 128: the unsigned operand of a dot product; the offset adds the same to
//                                                 every score of a query row, and softmax sees only differences
//   V  s8 [rows / 4, head_dim, 4 rows]            four rows side by side: one dot product with four weights
// rows are padded to 16, head_dim to 16. Padding and rows not yet written may hold anything: it is multiplied with 0 or left out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/checked.h"

namespace acorn::kv_cache {

constexpr size_t kTileRows = 16;
constexpr size_t kAlignment = 64;   // of a cache, and so of each head's block
constexpr size_t kMaxRows = 65536;  // beyond it the sums of attention would not fit s32

static constexpr size_t PaddedRows(size_t rows) { return AlignUp(rows, kTileRows); }
static constexpr size_t PaddedDim(size_t head_dim) { return AlignUp(head_dim, 16); }

/// Bytes of one KV head's keys, and as many for its values, in a cache of `rows` rows; a multiple of kAlignment. In 64 bits on
/// every machine: a file may ask for more than 32 hold, which the plan must see.
static constexpr uint64_t HeadBytes(size_t rows, size_t head_dim) { return uint64_t{PaddedRows(rows)} * PaddedDim(head_dim); }

/// Bytes of all keys of a layer, and as many for all values: KV head h starts at h * HeadBytes.
static constexpr uint64_t CacheBytes(size_t rows, size_t kv_heads, size_t head_dim) {
  return kv_heads * HeadBytes(rows, head_dim);
}

/// Byte of key element (row, d) in its head's block.
static constexpr size_t KeyOffset(size_t row, size_t d, size_t head_dim) {
  return (row / kTileRows * (PaddedDim(head_dim) / 4) + d / 4) * (kTileRows * 4) + row % kTileRows * 4 + d % 4;
}

/// Byte of value element (row, d) in its head's block.
static constexpr size_t ValueOffset(size_t row, size_t d, size_t head_dim) {
  return (row / 4 * PaddedDim(head_dim) + d) * 4 + row % 4;
}

}  // namespace acorn::kv_cache
