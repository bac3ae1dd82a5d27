// Checked arithmetic for sizes that come from a file or a caller: each returns false on overflow and leaves *out alone.
#pragma once

#include <cstdint>

namespace acorn {

[[nodiscard]] inline bool CheckedAdd(uint64_t *out, uint64_t a, uint64_t b) {
  uint64_t result;
  if (__builtin_add_overflow(a, b, &result)) return false;
  *out = result;
  return true;
}

[[nodiscard]] inline bool CheckedMul(uint64_t *out, uint64_t a, uint64_t b) {
  uint64_t result;
  if (__builtin_mul_overflow(a, b, &result)) return false;
  *out = result;
  return true;
}

/// Rounds up to a multiple of `alignment`, a power of two.
[[nodiscard]] inline bool CheckedAlign(uint64_t *out, uint64_t value, uint64_t alignment) {
  uint64_t sum;
  if (!CheckedAdd(&sum, value, alignment - 1)) return false;
  *out = sum & ~(alignment - 1);
  return true;
}

/// True if [offset, offset + bytes) lies inside [0, limit).
[[nodiscard]] inline bool RangeInside(uint64_t offset, uint64_t bytes, uint64_t limit) {
  return offset <= limit && bytes <= limit - offset;
}

/// The same without a check. Static: a copy compiled for one instruction set must not serve all.
static constexpr uint64_t AlignUp(uint64_t value, uint64_t alignment) { return (value + alignment - 1) & ~(alignment - 1); }

}  // namespace acorn
