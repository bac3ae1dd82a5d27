// WideInteger against the compiler's own integers of 128 bits, where there are any.
#include "tests/support/wide.h"

#include <gtest/gtest.h>

#include <random>

namespace acorn::test {
namespace {

#if defined(__SIZEOF_INT128__)
WideInteger From(__int128 value) {
  return (WideInteger(static_cast<int64_t>(value >> 64)) << 64) + static_cast<uint64_t>(value);
}

/// Of every magnitude up to 2^`bits`, both signs.
__int128 Draw(std::mt19937_64 *random, int bits) {
  const __int128 value = static_cast<__int128>((static_cast<unsigned __int128>((*random)()) << 64 | (*random)()) >> 1);
  const __int128 small = value >> (127 - (*random)() % static_cast<unsigned>(bits));
  return (*random)() % 2 == 0 ? small : -small;
}

TEST(WideInteger, CountsAsTheCompilerDoes) {
  std::mt19937_64 random(128);
  for (int i = 0; i < 20000; ++i) {
    const __int128 a = Draw(&random, 126), b = Draw(&random, 126), c = Draw(&random, 63), d = Draw(&random, 63);
    ASSERT_TRUE(From(a) + From(b) == From(a + b));
    ASSERT_TRUE(From(a) - From(b) == From(a - b));
    ASSERT_TRUE(From(c) * From(d) == From(c * d));
    if (b != 0) {
      ASSERT_TRUE(From(a) / From(b) == From(a / b));
      ASSERT_TRUE(From(a) % From(b) == From(a % b));
    }
    ASSERT_EQ(From(a) < From(b), a < b);
    ASSERT_EQ(From(a) <= From(a), true);
    ASSERT_EQ(static_cast<int64_t>(From(a)), static_cast<int64_t>(a));
  }
}

TEST(WideInteger, ShiftsAsTheCompilerDoes) {
  std::mt19937_64 random(7);
  for (int shift = 0; shift < 127; ++shift) {
    for (int i = 0; i < 100; ++i) {
      const __int128 a = Draw(&random, 126), small = a >> shift;
      ASSERT_TRUE(From(a) >> shift == From(small)) << shift;
      ASSERT_TRUE(From(small) << shift == From(small * (static_cast<__int128>(1) << shift))) << shift;
    }
  }
}
#endif

TEST(WideInteger, TakesEveryIntegerAsItIs) {
  static_assert(WideInteger(-1) < WideInteger(0u) && WideInteger(~uint64_t{0}) > WideInteger(int64_t{-1}));
  static_assert(static_cast<int32_t>(WideInteger(-7) / 2) == -3 && static_cast<int32_t>(WideInteger(-7) % 2) == -1);
  EXPECT_EQ(static_cast<uint64_t>(WideInteger(~uint64_t{0}) * ~uint64_t{0} >> 64), ~uint64_t{0} - 1);
}

}  // namespace
}  // namespace acorn::test
