// The engines of gemm_s8_w4g and gemm_s8_w2g, weights of 4 and of 2 bits with a multiplier for each group of k: what they share.
// An engine is a template of Codes, a register's way to split packed bytes: kBits of a code, kParts codes in a byte, and the code
// kZero of weight 0 (of 2 bits: doubled codes, 2c = w + 3). Everything here is in an anonymous namespace: each ISA file has its
// own copy.
#pragma once

#include <cstddef>
#include <cstdint>

#include "acorn_schema/layout.h"

namespace acorn::grouped {
namespace {

constexpr size_t kSubgroup = 32;  // depth of a dot that fits in 16 bits: 32 * 127 * 8 < 2^15

/// Rows of 64 bytes of a subgroup of a tile.
template <typename Codes>
constexpr int kSubgroupRows = static_cast<int>(kSubgroup / c4::RowDepth(Codes::kBits));

/// log2(group / 32).  group is 32, 64 or 128
constexpr uint32_t GroupShift(uint32_t group) { return group == 32 ? 0 : group == 64 ? 1 : 2; }

/// Of `groups` subgroups of a tile, the one from which on what lies `bytes` ahead is the next tile's.
template <typename Codes>
constexpr size_t FirstAhead(size_t groups, size_t bytes) {
  const size_t ahead = bytes / (static_cast<size_t>(kSubgroupRows<Codes>) * c4::kRowBytes);
  return groups > ahead ? groups - ahead : 0;
}

/// Does a panel start its sums or go on with those in acc?
enum class Start : uint8_t { kZero, kAcc };

}  // namespace
}  // namespace acorn::grouped
