// layernorm: every variant of this machine against the formula in 128-bit arithmetic, and the formula's promises, on exact buffers.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/layernorm/kernel.h"
#include "kernels/rmsnorm/kernel.h"
#include "tests/support/formula.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

using test::Guard;
using test::GuardedBuffer;
using test::Wide;

struct Shape {
  size_t m, groups, depth;
};
constexpr Shape kShapes[] = {{1, 1, 1},  {2, 1, 2},  {1, 3, 7},  {2, 2, 8},  {3, 1, 9},  {1, 1, 15},  {2, 3, 16}, {1, 2, 17},
                             {1, 1, 31}, {2, 1, 33}, {1, 1, 63}, {1, 9, 64}, {1, 1, 65}, {2, 1, 127}, {1, 1, 576}};

// kStep: half the values at one end, half at the other. kPeak: all at one end but one. Both reach the largest deviations.
enum class Content { kZero, kFlat, kTiny, kAny, kStep, kPeak };

struct Constants {
  uint64_t eps_term;
  int32_t shift, zero_point;
};
constexpr Constants kConstants[] = {{0, 1, 0},
                                    {1, 16, -7},
                                    {123456, 17, 127},
                                    {77, 33, -127},
                                    {(uint64_t{1} << 60) - 1, 20, 4},
                                    {5, 62, 9}};

struct Problem {
  Shape shape;
  Constants constants;
  Content content;
  Guard guard;
};

struct Data {
  explicit Data(const Problem &p)
      : width(p.shape.groups * p.shape.depth),
        stride(width + 3),
        x((p.shape.m - 1) * stride + width, p.guard),
        gamma(width, p.guard),
        bias(width, p.guard) {
    test::Corners corners(stride);
    corners.FillSigned(&x, p.content == Content::kZero ? 0 : p.content == Content::kTiny ? 3 : 32767);
    for (size_t i = 0; i < x.size(); ++i) {
      const size_t at = i % stride % p.shape.depth;
      if (p.content == Content::kFlat) x[i] = -1234;
      if (p.content == Content::kStep) x[i] = static_cast<int16_t>(at % 2 == 0 ? 32767 : -32768);
      if (p.content == Content::kPeak) x[i] = static_cast<int16_t>(at == p.shape.depth / 2 ? 32767 : -32768);
    }
    corners.FillSigned(&gamma, 32767);
    corners.FillSigned(&bias, 2147483647);
    gamma[0] = -32768;
  }
  size_t width, stride;
  GuardedBuffer<int16_t> x, gamma;
  GuardedBuffer<int32_t> bias;
};

/// docs/ARITHMETIC.md §4.2 for one value; checks the bounds that the page states.
int64_t Formula(const Problem &p, const Data &data, size_t at, int64_t (*sat)(Wide)) {
  const size_t column = at % data.stride, depth = p.shape.depth;
  const int16_t *part = data.x.data() + at - column % depth;
  const Wide d_count = static_cast<int64_t>(depth);
  Wide sum = 0, squares = 0;
  for (size_t i = 0; i < depth; ++i) {
    sum += part[i];
    squares += int64_t{part[i]} * part[i];
  }
  const Wide deviation = d_count * data.x[at] - sum;
  EXPECT_TRUE(deviation < (1 << 29) && deviation > -(1 << 29));
  const Wide n = d_count * squares - sum * sum + p.constants.eps_term;
  EXPECT_TRUE(n >= 0 && n < Wide{1} << 61);
  Wide z = 0;
  if (n > 0) {
    int bits = 0;
    while ((n >> bits) > 0) ++bits;
    const int e = static_cast<int>(std::floor((bits - 29) / 2.0));
    const auto v = static_cast<uint64_t>(e >= 0 ? n >> (2 * e) : n << (-2 * e));
    EXPECT_TRUE(24 + e >= 10 && 24 + e <= 40);
    z = test::Rs(deviation * static_cast<int64_t>(rmsnorm::Rsqrt(v)), 24 + e);
  }
  EXPECT_TRUE(z < (1 << 27) && z > -(1 << 27));
  const Wide sloped = z * data.gamma[column] + Wide{data.bias[column]} * 32768;
  return sat(test::Rs(sloped, p.constants.shift) + p.constants.zero_point);
}

template <typename Output>
void Check(const layernorm::Kernel &kernel, const Problem &p) {
  const Shape &s = p.shape;
  SCOPED_TRACE(testing::Message() << kernel.name << " bytes=" << sizeof(Output) << " m=" << s.m << " groups=" << s.groups
                                  << " depth=" << s.depth << " shift=" << p.constants.shift
                                  << " content=" << static_cast<int>(p.content));
  Data data(p);
  GuardedBuffer<Output> y(data.x.size(), p.guard);
  for (Output &v : y) v = 99;
  const layernorm::Args args = {y.data(),
                                data.x.data(),
                                data.stride,
                                data.stride,
                                s.m,
                                s.groups,
                                s.depth,
                                data.gamma.data(),
                                data.bias.data(),
                                p.constants.eps_term,
                                p.constants.shift,
                                p.constants.zero_point};
  (sizeof(Output) == 1 ? kernel.s8 : kernel.s16)(args);
  for (size_t i = 0; i < y.size(); ++i) {
    if (i % data.stride >= data.width) {
      ASSERT_EQ(y[i], 99) << "between rows";
    } else {
      ASSERT_EQ(y[i], Formula(p, data, i, sizeof(Output) == 1 ? test::Sat8 : test::Sat16)) << "at " << i;
    }
  }
}

void CheckBoth(const layernorm::Kernel &kernel, const Problem &p) {
  Check<int8_t>(kernel, p);
  Problem s16 = p;
  s16.constants.zero_point = 0;  // only s8 edges have one
  Check<int16_t>(kernel, s16);
}

TEST(LayerNorm, EveryVariantIsTheFormula) {
  const uint32_t features = test::HostFeatures();
  for (const layernorm::Kernel &kernel : layernorm::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    for (const Shape &shape : kShapes) {
      for (const Constants &constants : kConstants) {
        for (const Content content :
             {Content::kZero, Content::kFlat, Content::kTiny, Content::kAny, Content::kStep, Content::kPeak}) {
          for (const Guard guard : {Guard::kEnd, Guard::kBegin}) CheckBoth(kernel, {shape, constants, content, guard});
        }
      }
    }
  }
}

// The widest part, where every bound is closest.
TEST(LayerNorm, WideRows) {
  const uint32_t features = test::HostFeatures();
  for (const layernorm::Kernel &kernel : layernorm::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    // The formula is quadratic in the width when taken a value at a time.
    CheckBoth(kernel, {{1, 1, 8192}, kConstants[1], Content::kStep, Guard::kEnd});
    CheckBoth(kernel, {{1, 1, 8192}, kConstants[0], Content::kPeak, Guard::kEnd});
  }
}

}  // namespace
}  // namespace acorn
