// What the drivers of all instruction sets say of groups. In an anonymous namespace, like them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace acorn::gemm_s8_w4g {
namespace {

constexpr size_t kSubgroup = 32;  // depth of a dot that fits in 16 bits: 32 * 127 * 8 < 2^15

/// log2(group / 32).  group is 32, 64 or 128
constexpr uint32_t GroupShift(uint32_t group) { return group == 32 ? 0 : group == 64 ? 1 : 2; }

/// Does a panel start its sums or go on with those in acc?
enum class Start : uint8_t { kZero, kAcc };

}  // namespace
}  // namespace acorn::gemm_s8_w4g
