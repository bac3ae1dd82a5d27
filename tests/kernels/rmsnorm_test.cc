// rmsnorm: the reciprocal square root against real numbers, scalar against the formula in 128-bit arithmetic, every variant of
// this machine against scalar, on exact buffers.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/rmsnorm/kernel.h"
#include "tests/support/formula.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

using test::Guard;
using test::GuardedBuffer;

/// docs/ARITHMETIC.md §4, seed by formula.
uint64_t RsqrtFormula(uint64_t v) {
  const auto i = static_cast<long double>((v >> 24) - 16);
  auto r = static_cast<uint64_t>(std::floor(1073741824.0L * std::sqrt(16 / (i + 16.5L)) + 0.5L));
  if (r > 1u << 30) r = 1u << 30;
  for (int step = 0; step < 2; ++step) {
    const uint64_t a = (r * r) >> 30, b = (a * v) >> 28;
    r = (r * (3 * (uint64_t{1} << 30) - b)) >> 31;
  }
  return r > 1u << 30 ? 1u << 30 : r;
}

TEST(Rsqrt, IsTheFormulaAndNearTheRealNumber) {
  test::Corners corners(1);
  for (int i = 0; i < 200000; ++i) {
    uint64_t v = static_cast<uint64_t>(corners.Between(1 << 28, (1 << 30) - 1));
    if (i < 100) v = (uint64_t{1} << 28) + static_cast<uint64_t>(i);
    if (i >= 100 && i < 200) v = (uint64_t{1} << 30) - static_cast<uint64_t>(i - 99);
    const uint64_t r = rmsnorm::Rsqrt(v);
    ASSERT_EQ(r, RsqrtFormula(v)) << v;
    const long double exact = 1073741824.0L * std::sqrt(268435456.0L / static_cast<long double>(v));
    ASSERT_LT(std::abs(static_cast<long double>(r) - exact) / exact, 2e-7L) << v;
  }
}

struct Shape {
  size_t m, groups, depth;
};
constexpr Shape kShapes[] = {{1, 1, 1},  {2, 1, 2},  {1, 3, 7},  {2, 2, 8},  {3, 1, 9},  {1, 1, 15},  {2, 3, 16}, {1, 2, 17},
                             {1, 1, 31}, {2, 1, 33}, {1, 1, 63}, {1, 9, 64}, {1, 1, 65}, {2, 1, 127}, {1, 1, 576}};

enum class Content { kZero, kTiny, kAny, kExtreme };

struct Constants {
  uint64_t eps_term;
  int32_t multiplier, shift, zero_point;
};
constexpr Constants kConstants[] = {{0, 1 << 30, 2, 0},
                                    {1, 2147483647, 14, -7},
                                    {123456, 1500000000, 20, 127},
                                    {77, 1234567890, 28, -127},
                                    {uint64_t{1} << 50, 1 << 30, 25, 4},
                                    {5, 2147483647, 49, 9}};

struct Problem {
  Shape shape;
  Constants constants;
  Content content;
  Guard guard;
};

struct Data {
  explicit Data(const Problem &p)
      : stride(p.shape.groups * p.shape.depth + 3),
        x((p.shape.m - 1) * stride + stride - 3, p.guard),
        gamma(p.shape.depth, p.guard) {
    test::Corners corners(stride);
    corners.FillSigned(&x, p.content == Content::kZero ? 0 : p.content == Content::kTiny ? 3 : 32767);
    if (p.content == Content::kExtreme) {
      for (int16_t &v : x) v = static_cast<int16_t>(v < 0 ? -32768 : 32767);
    }
    corners.FillSigned(&gamma, 32767);
    gamma[0] = -32768;
  }
  size_t stride;
  GuardedBuffer<int16_t> x, gamma;
};

int64_t Formula(const Problem &p, const Data &data, size_t at, int64_t (*sat)(test::Wide)) {
  const size_t column = at % data.stride, depth = p.shape.depth;
  const int16_t *part = data.x.data() + at - column % depth;
  uint64_t n = p.constants.eps_term;
  for (size_t i = 0; i < depth; ++i) n += static_cast<uint64_t>(int64_t{part[i]} * part[i]);
  if (n == 0) return sat(p.constants.zero_point);
  int bits = 0;
  while (bits < 64 && (n >> bits) != 0) ++bits;
  const int e = static_cast<int>(std::floor((bits - 29) / 2.0));
  const uint64_t v = e >= 0 ? n >> (2 * e) : n << (-2 * e);
  const test::Wide r = test::Rs(test::Wide{RsqrtFormula(v)} * p.constants.multiplier, 31);
  const int k = p.constants.shift + 13 + e;
  if (k > 62) return sat(p.constants.zero_point);
  return sat(test::Rs(r * data.x[at] * data.gamma[column % depth], k) + p.constants.zero_point);
}

template <typename Output>
void Check(const rmsnorm::Kernel &kernel, const Problem &p) {
  const Shape &s = p.shape;
  SCOPED_TRACE(testing::Message() << kernel.name << " bytes=" << sizeof(Output) << " m=" << s.m << " groups=" << s.groups
                                  << " depth=" << s.depth << " shift=" << p.constants.shift
                                  << " content=" << static_cast<int>(p.content));
  Data data(p);
  GuardedBuffer<Output> y(data.x.size(), p.guard);
  for (Output &v : y) v = 99;
  const rmsnorm::Args args = {y.data(),
                              data.x.data(),
                              data.stride,
                              data.stride,
                              s.m,
                              s.groups,
                              s.depth,
                              data.gamma.data(),
                              p.constants.eps_term,
                              p.constants.multiplier,
                              p.constants.shift,
                              p.constants.zero_point};
  (sizeof(Output) == 1 ? kernel.s8 : kernel.s16)(args);
  for (size_t i = 0; i < y.size(); ++i) {
    if (i % data.stride >= s.groups * s.depth) {
      ASSERT_EQ(y[i], 99) << "between rows";
    } else {
      ASSERT_EQ(y[i], Formula(p, data, i, sizeof(Output) == 1 ? test::Sat8 : test::Sat16)) << "at " << i;
    }
  }
}

TEST(RmsNorm, EveryVariantIsTheFormula) {
  const uint32_t features = test::HostFeatures();
  for (const rmsnorm::Kernel &kernel : rmsnorm::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    for (const Shape &shape : kShapes) {
      for (const Constants &constants : kConstants) {
        Constants constants_s16 = constants;
        constants_s16.zero_point = 0;  // only s8 edges have one
        for (Content content : {Content::kZero, Content::kTiny, Content::kAny, Content::kExtreme}) {
          for (Guard guard : {Guard::kEnd, Guard::kBegin}) {
            Check<int8_t>(kernel, {shape, constants, content, guard});
            Check<int16_t>(kernel, {shape, constants_s16, content, guard});
          }
        }
      }
    }
  }
}

TEST(RmsNorm, WideRows) {
  const uint32_t features = test::HostFeatures();
  for (const rmsnorm::Kernel &kernel : rmsnorm::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    // The formula is quadratic in the width when taken a value at a time, so one row of the widest model.
    Check<int8_t>(kernel, {{1, 1, 4096}, kConstants[2], Content::kExtreme, Guard::kEnd});
  }
}

}  // namespace
}  // namespace acorn
