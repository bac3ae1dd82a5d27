// The words of docs/ARITHMETIC.md §1 in 128-bit arithmetic, and numbers that reach the corners, for tests of kernels.
#pragma once

#include <cstdint>
#include <random>
#include <type_traits>

#include "tests/support/wide.h"

namespace acorn::test {

/// rs(v, S): floor((v + 2^(S-1)) / 2^S), by division.
inline Wide Rs(Wide v, int s) {
  const Wide unit = Wide{1} << s;
  const Wide sum = v + unit / 2;
  return sum >= 0 ? sum / unit : -((-sum + unit - 1) / unit);
}

inline int64_t Sat(Wide v, int64_t low, int64_t high) { return static_cast<int64_t>(v < low ? low : v > high ? high : v); }
inline int64_t Sat8(Wide v) { return Sat(v, -127, 127); }
inline int64_t Sat15(Wide v) { return Sat(v, -16320, 16319); }
inline int64_t Sat16(Wide v) { return Sat(v, -32767, 32767); }

/// A seeded source of integers of every magnitude, both signs, and often the extremes.
class Corners {
 public:
  explicit Corners(uint64_t seed) : random_(seed) {}

  /// In [-limit, limit].
  int64_t Signed(int64_t limit) {
    const int64_t magnitude = Unsigned(limit);
    return random_() % 2 == 0 ? magnitude : -magnitude;
  }

  /// In [0, limit].
  int64_t Unsigned(int64_t limit) {
    if (random_() % 8 == 0) return limit;
    const auto value = static_cast<int64_t>((random_() >> 1) % (static_cast<uint64_t>(limit) + 1));
    return random_() % 3 == 0 ? value >> random_() % 16 : value;
  }

  /// In [low, high], all alike.
  int64_t Between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random_() % (static_cast<uint64_t>(high - low) + 1));
  }

  template <typename Range>
  void FillSigned(Range *range, int64_t limit) {
    for (auto &value : *range) value = static_cast<std::decay_t<decltype(value)>>(Signed(limit));
  }

 private:
  std::mt19937_64 random_;
};

}  // namespace acorn::test
