// rotate: sines against real numbers, every variant of this machine against the formula in 128-bit arithmetic, on exact buffers.
#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "acorn_schema/pairs.h"
#include "kernels/rotate/kernel.h"
#include "tests/support/formula.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

using test::Guard;
using test::GuardedBuffer;

constexpr long double kHalfPi = 1.57079632679489661923L;

int64_t QuarterFormula(int j) {
  return static_cast<int64_t>(std::floor(4194304.0L * std::sin(kHalfPi * (j > 256 ? 256 : j) / 256) + 0.5L));
}

int64_t SineFormula(uint32_t phase) {
  const uint32_t quadrant = phase >> 30;
  int64_t a = phase % (1u << 30);
  if (quadrant % 2 == 1) a = (1 << 30) - a;
  const int j = static_cast<int>(a >> 22);
  const int64_t f = a % (1 << 22);
  const test::Wide difference = QuarterFormula(j + 1) - QuarterFormula(j);
  const auto s = static_cast<int64_t>(test::Rs(QuarterFormula(j) + test::Rs(difference * f, 22), 8));
  return quadrant >= 2 ? -s : s;
}

TEST(Sine, IsTheFormulaAndNearTheRealNumber) {
  test::Corners corners(1);
  for (int i = 0; i < 100000; ++i) {
    auto phase = static_cast<uint32_t>(corners.Between(0, 0xffffffff));
    if (i < 64) phase = static_cast<uint32_t>(i / 16) * (1u << 30) + static_cast<uint32_t>(i % 16) - 8;
    const int32_t sine = rotate::Sine(phase);
    ASSERT_EQ(sine, SineFormula(phase)) << phase;
    ASSERT_NEAR(sine, 16384 * std::sin(static_cast<double>(phase) / 4294967296.0 * 4 * static_cast<double>(kHalfPi)), 0.6)
        << phase;
  }
  EXPECT_EQ(rotate::Sine(0), 0);
  EXPECT_EQ(rotate::Sine(1u << 30), 16384);
  EXPECT_EQ(rotate::Sine(3u << 30), -16384);
}

TEST(RotaryTable, HoldsThePhases) {
  const uint64_t frequencies[3] = {0x28be60db9391054bu, 0xffffffffffffffffu, 12345678901234u};
  for (uint64_t first : {uint64_t{0}, uint64_t{65530}}) {
    GuardedBuffer<int16_t> cosine(15), sine(15);
    rotate::FillTable(cosine.data(), sine.data(), frequencies, 3, first, 5, rotate::kNoLimit);
    for (size_t row = 0; row < 5; ++row) {
      for (size_t i = 0; i < 3; ++i) {
        const auto turns = static_cast<test::Wide>(first + row) * frequencies[i];
        const auto phase = static_cast<uint32_t>(static_cast<uint64_t>(turns) >> 32);
        EXPECT_EQ(sine[row * 3 + i], SineFormula(phase));
        EXPECT_EQ(cosine[row * 3 + i], SineFormula(phase + (1u << 30)));
      }
    }
  }
}

struct Shape {
  size_t m, heads, head_dim, half;
};
constexpr Shape kShapes[] = {{1, 1, 2, 1},   {2, 3, 6, 2},   {1, 2, 6, 0},   {3, 2, 16, 8},   {1, 2, 30, 15},  {2, 1, 34, 17},
                             {2, 9, 64, 32}, {1, 3, 80, 40}, {1, 2, 80, 10}, {2, 2, 128, 64}, {1, 1, 256, 64}, {1, 3, 97, 33}};

template <typename Out>
void Check(const rotate::Kernel &kernel, const Shape &s, int32_t largest, int32_t shift, Guard guard) {
  SCOPED_TRACE(testing::Message() << kernel.name << " m=" << s.m << " heads=" << s.heads << " head_dim=" << s.head_dim
                                  << " half=" << s.half << " shift=" << shift);
  test::Corners corners(s.head_dim * 100 + s.half);
  const size_t width = s.heads * s.head_dim, x_stride = width + 1, y_stride = width + 2;
  GuardedBuffer<int16_t> x((s.m - 1) * x_stride + width, guard);
  GuardedBuffer<int16_t> cosine(s.m * s.half, guard), sine(s.m * s.half, guard);
  GuardedBuffer<int32_t> multiplier(s.heads, guard);
  GuardedBuffer<Out> y((s.m - 1) * y_stride + width, guard);
  corners.FillSigned(&x, 32767);
  corners.FillSigned(&cosine, 16384);
  corners.FillSigned(&sine, 16384);
  corners.FillSigned(&multiplier, largest);
  for (Out &v : y) v = 99;
  const rotate::Args args = {y.data(), x.data(), y_stride, x_stride, s.m, s.heads, s.head_dim, s.half, cosine.data(), sine.data(),
                             multiplier.data(), shift, nullptr, 1};
  (sizeof(Out) == 1 ? kernel.s8 : kernel.s16)(args);
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t row = i / y_stride, column = i % y_stride;
    if (column >= width) {
      ASSERT_EQ(y[i], 99) << "between rows";
      continue;
    }
    const size_t head = column / s.head_dim, d = column % s.head_dim;
    const int16_t *v = x.data() + row * x_stride + head * s.head_dim;
    test::Wide sum = test::Wide{v[d]} * 16384;
    if (d < s.half) {
      sum = test::Wide{v[d]} * cosine[row * s.half + d] - test::Wide{v[d + s.half]} * sine[row * s.half + d];
    } else if (d < 2 * s.half) {
      const size_t pair = d - s.half;
      sum = test::Wide{v[d]} * cosine[row * s.half + pair] + test::Wide{v[pair]} * sine[row * s.half + pair];
    }
    const test::Wide value = test::Rs(sum * multiplier[head], shift);
    ASSERT_EQ(y[i], sizeof(Out) == 1 ? test::Sat8(value) : test::Sat16(value)) << "row " << row << " head " << head << " d " << d;
  }
}

TEST(Rotate, EveryVariantIsTheFormula) {
  const uint32_t features = test::HostFeatures();
  for (const rotate::Kernel &kernel : rotate::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    for (const Shape &shape : kShapes) {
      for (Guard guard : {Guard::kEnd, Guard::kBegin}) {
        for (const auto &[largest, shift] :
             {std::pair(2147483647, 1), {2147483647, 52}, {1 << 20, 40}, {1 << 10, 31}, {1 << 12, 32}, {2147483647, 62}}) {
          Check<int8_t>(kernel, shape, largest, shift, guard);
          Check<int16_t>(kernel, shape, largest, shift, guard);
        }
      }
    }
  }
}

struct PairShape {
  size_t m, heads, key_heads, head_dim, half;
};
constexpr PairShape kPairShapes[] = {{1, 1, 1, 16, 8},  {2, 6, 2, 48, 32}, {3, 9, 3, 64, 32}, {1, 4, 4, 80, 16},
                                     {2, 2, 1, 128, 8}, {1, 3, 1, 32, 250}, {1, 1, 1, 512, 255}};

template <typename Out>
void CheckPairs(const rotate::Kernel &kernel, const PairShape &s, int32_t largest, int32_t shift, Guard guard) {
  SCOPED_TRACE(testing::Message() << kernel.name << " m=" << s.m << " heads=" << s.heads << '/' << s.key_heads
                                  << " head_dim=" << s.head_dim << " half=" << s.half << " shift=" << shift);
  test::Corners corners(s.head_dim * 10 + s.heads);
  const size_t width = s.heads * s.head_dim, x_stride = width + 1, y_stride = width + 2, pairs = s.head_dim / 2;
  GuardedBuffer<int16_t> x((s.m - 1) * x_stride + width, guard);
  GuardedBuffer<int16_t> cosine(s.m * s.half, guard), sine(s.m * s.half, guard);
  GuardedBuffer<int32_t> multiplier(s.heads, guard);
  GuardedBuffer<uint8_t> frequency(s.key_heads * pairs, guard);
  GuardedBuffer<Out> y((s.m - 1) * y_stride + width, guard);
  corners.FillSigned(&x, 32767);
  corners.FillSigned(&cosine, 16384);
  corners.FillSigned(&sine, 16384);
  corners.FillSigned(&multiplier, largest);
  for (uint8_t &f : frequency) {
    f = corners.Between(0, 4) == 0 ? kNoFrequency : static_cast<uint8_t>(corners.Between(0, static_cast<int64_t>(s.half) - 1));
  }
  for (Out &v : y) v = 99;
  const rotate::Args args = {y.data(), x.data(), y_stride, x_stride, s.m, s.heads, s.head_dim, s.half, cosine.data(), sine.data(),
                             multiplier.data(), shift, frequency.data(), s.key_heads};
  (sizeof(Out) == 1 ? kernel.s8 : kernel.s16)(args);
  for (size_t i = 0; i < y.size(); ++i) {
    if (i % y_stride >= width) {
      ASSERT_EQ(y[i], 99) << "between rows";
    }
  }
  for (size_t row = 0; row < s.m; ++row) {
    for (size_t head = 0; head < s.heads; ++head) {
      const int16_t *v = x.data() + row * x_stride + head * s.head_dim;
      const Out *out = y.data() + row * y_stride + head * s.head_dim;
      for (uint32_t pair = 0; pair < pairs; ++pair) {
        const uint32_t f = frequency[head / (s.heads / s.key_heads) * pairs + pair];
        const uint32_t first = FirstOfPair(pair), second = SecondOfPair(pair);
        const test::Wide c = f == kNoFrequency ? 16384 : cosine[row * s.half + f], n = f == kNoFrequency ? 0 : sine[row * s.half + f];
        const test::Wide low = test::Rs((v[first] * c - v[second] * n) * multiplier[head], shift);
        const test::Wide high = test::Rs((v[second] * c + v[first] * n) * multiplier[head], shift);
        ASSERT_EQ(out[first], sizeof(Out) == 1 ? test::Sat8(low) : test::Sat16(low)) << row << " head " << head << " pair " << pair;
        ASSERT_EQ(out[second], sizeof(Out) == 1 ? test::Sat8(high) : test::Sat16(high)) << row << " head " << head << " pair " << pair;
      }
    }
  }
}

TEST(Rotate, SortedPairsOfEveryVariantAreTheFormula) {
  const uint32_t features = test::HostFeatures();
  for (const rotate::Kernel &kernel : rotate::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    for (const PairShape &shape : kPairShapes) {
      for (Guard guard : {Guard::kEnd, Guard::kBegin}) {
        for (const auto &[largest, shift] :
             {std::pair(2147483647, 1), {2147483647, 52}, {1 << 20, 40}, {1 << 10, 31}, {1 << 12, 32}, {2147483647, 62}}) {
          CheckPairs<int8_t>(kernel, shape, largest, shift, guard);
          CheckPairs<int16_t>(kernel, shape, largest, shift, guard);
        }
      }
    }
  }
}

// Every dimension belongs to one pair.
TEST(Pairs, PlacesAreDistinct) {
  std::vector<int> used(96);
  for (uint32_t pair = 0; pair < 48; ++pair) {
    EXPECT_EQ(++used.at(FirstOfPair(pair)), 1);
    EXPECT_EQ(++used.at(SecondOfPair(pair)), 1);
    EXPECT_EQ(FirstOfPair(pair) / kPairBlock, SecondOfPair(pair) / kPairBlock);
  }
}

}  // namespace
}  // namespace acorn
