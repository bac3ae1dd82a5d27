// runtime/base/fixed_point.h and checked.h against arithmetic in 128 bits and against the rules they state.
#include "base/fixed_point.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <random>

#include "base/checked.h"
#include "base/span.h"
#include "tests/support/wide.h"

namespace acorn {
namespace {

using test::Wide;

/// floor((2 * value + 2^shift) / 2^(shift + 1)): half up, without a shift of a negative number.
int64_t RoundByDivision(Wide value, int shift) {
  const Wide divisor = Wide{1} << (shift + 1);
  const Wide dividend = 2 * value + (Wide{1} << shift);
  Wide quotient = dividend / divisor;
  if (dividend % divisor != 0 && dividend < 0) quotient -= 1;
  return static_cast<int64_t>(quotient);
}

TEST(FixedPoint, RoundsHalfUpOnBothSidesOfZero) {
  EXPECT_EQ(RoundShift(1, 1), 1);
  EXPECT_EQ(RoundShift(-1, 1), 0);
  EXPECT_EQ(RoundShift(3, 1), 2);
  EXPECT_EQ(RoundShift(-3, 1), -1);
  EXPECT_EQ(RoundShift(6, 2), 2);
  EXPECT_EQ(RoundShift(-6, 2), -1);
}

TEST(FixedPoint, RoundShiftEqualsExactDivision) {
  std::mt19937_64 random(20240611);
  for (int i = 0; i < 200000; ++i) {
    const int shift = 1 + static_cast<int>(random() % 62);
    const int64_t value = static_cast<int64_t>(random()) >> (1 + random() % 62);  // |value| < 2^62
    ASSERT_EQ(RoundShift(value, shift), RoundByDivision(value, shift)) << value << " >> " << shift;
  }
}

TEST(FixedPoint, ApplyEqualsExactProductDivided) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 200000; ++i) {
    const Scale scale{static_cast<int32_t>(random() >> 33), static_cast<int32_t>(1 + random() % 62)};
    const int64_t value = static_cast<int32_t>(random()) / 2;
    ASSERT_EQ(Apply(scale, value), RoundByDivision(Wide{value} * scale.multiplier, scale.shift))
        << value << " * " << scale.multiplier << " >> " << scale.shift;
  }
}

TEST(FixedPoint, SaturatesSymmetrically) {
  EXPECT_EQ(SaturateS8(-128), -127);
  EXPECT_EQ(SaturateS8(128), 127);
  EXPECT_EQ(SaturateS8(-127), -127);
  EXPECT_EQ(SaturateS16(-40000), -32767);
  EXPECT_EQ(SaturateS16(32768), 32767);
  EXPECT_EQ(SaturateS32(std::numeric_limits<int64_t>::min()), -2147483647);
  EXPECT_EQ(SaturateS32(std::numeric_limits<int64_t>::max()), 2147483647);
}

TEST(FixedPoint, BitLengthCountsBits) {
  EXPECT_EQ(BitLength(0), 0);
  EXPECT_EQ(BitLength(1), 1);
  EXPECT_EQ(BitLength(255), 8);
  EXPECT_EQ(BitLength(256), 9);
  EXPECT_EQ(BitLength(~uint64_t{0}), 64);
}

TEST(Checked, RefusesOverflowAndLeavesTheResultAlone) {
  uint64_t out = 42;
  EXPECT_FALSE(CheckedAdd(&out, ~uint64_t{0}, 1));
  EXPECT_FALSE(CheckedMul(&out, uint64_t{1} << 32, uint64_t{1} << 32));
  EXPECT_FALSE(CheckedAlign(&out, ~uint64_t{0} - 3, 64));
  EXPECT_EQ(out, 42u);
  EXPECT_TRUE(CheckedAdd(&out, ~uint64_t{0} - 1, 1));
  EXPECT_EQ(out, ~uint64_t{0});
  EXPECT_TRUE(CheckedMul(&out, (uint64_t{1} << 32) - 1, uint64_t{1} << 32));
  EXPECT_EQ(out, ~uint64_t{0} << 32);
}

TEST(Checked, AlignsUp) {
  uint64_t out = 0;
  EXPECT_TRUE(CheckedAlign(&out, 0, 64));
  EXPECT_EQ(out, 0u);
  EXPECT_TRUE(CheckedAlign(&out, 65, 64));
  EXPECT_EQ(out, 128u);
  EXPECT_EQ(AlignUp(64, 64), 64u);
}

TEST(Checked, RangeInsideKnowsTheLastByte) {
  EXPECT_TRUE(RangeInside(0, 0, 0));
  EXPECT_TRUE(RangeInside(6, 4, 10));
  EXPECT_FALSE(RangeInside(7, 4, 10));
  EXPECT_FALSE(RangeInside(11, 0, 10));
  EXPECT_FALSE(RangeInside(1, ~uint64_t{0}, 10));
}

TEST(Span, SubspanAndConstView) {
  int values[5] = {1, 2, 3, 4, 5};
  const Span<int> all(values, 5);
  const Span<const int> view = all;
  EXPECT_EQ(view.subspan(1, 3).size(), 3u);
  EXPECT_EQ(view.subspan(1, 3)[0], 2);
  int sum = 0;
  for (int value : view) sum += value;
  EXPECT_EQ(sum, 15);
  EXPECT_TRUE(all.subspan(5, 0).empty());
}

}  // namespace
}  // namespace acorn
