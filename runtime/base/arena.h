// Arena: hands out parts of one block, in order. With no block it only counts, so that the same code that lays memory out also
// says how much there must be.
#pragma once

#include <cstdint>

#include "base/checked.h"
#include "base/span.h"

namespace acorn {

class Arena {
 public:
  static constexpr uint64_t kAlignment = 64;

  Arena() = default;
  /// block: aligned to kAlignment; nullptr: count only
  explicit Arena(uint8_t *block) : block_(block) {}

  /// `count` elements of T, aligned to kAlignment, not initialised. Empty when counting or overflown.
  template <typename T>
  Span<T> Take(uint64_t count) {
    uint64_t bytes;
    uint64_t end;
    // NOLINTNEXTLINE(bugprone-sizeof-expression): elements may be pointers
    if (overflow_ || !CheckedMul(&bytes, count, sizeof(T)) || !CheckedAdd(&end, used_, bytes) ||
        !CheckedAlign(&end, end, kAlignment) || end >> 62 != 0) {
      overflow_ = true;
      return {};
    }
    const uint64_t offset = used_;
    used_ = end;
    return block_ == nullptr ? Span<T>() : Span<T>(reinterpret_cast<T *>(block_ + offset), count);
  }

  uint64_t used() const { return used_; }
  bool overflow() const { return overflow_; }

 private:
  uint8_t *block_ = nullptr;
  uint64_t used_ = 0;
  bool overflow_ = false;
};

}  // namespace acorn
