// add: every variant of this machine against the formula in 128-bit arithmetic, on exact buffers.
#include <gtest/gtest.h>

#include "kernels/add/kernel.h"
#include "tests/support/formula.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

using test::Guard;
using test::GuardedBuffer;

constexpr size_t kWidths[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 47, 64, 127, 576};

struct Factors {
  int32_t a, b, shift;
};
constexpr int32_t kMost = 2147483647;
constexpr Factors kFactors[] = {{1, 1, 1},
                                {1 << 20, 3 << 19, 20},
                                {kMost, kMost, 31},
                                {-kMost, 5, 30},
                                {kMost, 1, 62},
                                {kMost, kMost, 62},
                                {1431655765, -1431655765, 46},
                                {0, 0, 7},
                                {kMost, kMost, 1},
                                {kMost, kMost, 15},
                                {kMost, kMost, 16},
                                {kMost, kMost, 17},
                                {1234567890, 987654321, 30},  // the rest: around a split into signed halves of 16 bits
                                {kMost - 32768, kMost - 32768, 17},
                                {kMost - 32767, kMost - 32768, 31},
                                {-kMost + 32767, -kMost + 32768, 18}};

void Check(const add::Kernel &kernel, size_t m, size_t n, const Factors &factors, Guard guard) {
  SCOPED_TRACE(testing::Message() << kernel.name << " m=" << m << " n=" << n << " shift=" << factors.shift);
  test::Corners corners(m * 1000 + n);
  const size_t a_stride = n + 1, b_stride = n + 4, y_stride = n + 2;
  GuardedBuffer<int16_t> a((m - 1) * a_stride + n, guard), b((m - 1) * b_stride + n, guard), y((m - 1) * y_stride + n, guard);
  corners.FillSigned(&a, 32767);
  corners.FillSigned(&b, 32767);
  for (int16_t &v : y) v = 12345;
  kernel.run({y.data(), a.data(), b.data(), y_stride, a_stride, b_stride, m, n, factors.a, factors.b, factors.shift});
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t row = i / y_stride, column = i % y_stride;
    const int64_t expected = column >= n ? 12345
                                         : test::Sat16(test::Rs(test::Wide{a[row * a_stride + column]} * factors.a +
                                                                    test::Wide{b[row * b_stride + column]} * factors.b,
                                                                factors.shift));
    ASSERT_EQ(y[i], expected) << "row " << row << " column " << column;
  }
}

TEST(Add, EveryVariantIsTheFormula) {
  const uint32_t features = test::HostFeatures();
  for (const add::Kernel &kernel : add::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    for (size_t n : kWidths) {
      for (const Factors &factors : kFactors) {
        for (Guard guard : {Guard::kEnd, Guard::kBegin}) {
          for (size_t m : {1, 3}) Check(kernel, m, n, factors, guard);
        }
      }
    }
  }
}

TEST(Add, InPlace) {
  const uint32_t features = test::HostFeatures();
  for (const add::Kernel &kernel : add::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    for (size_t n : kWidths) {
      test::Corners corners(n);
      GuardedBuffer<int16_t> a(n), b(n), y(n);
      corners.FillSigned(&a, 32767);
      corners.FillSigned(&b, 32767);
      add::Args args = {y.data(), a.data(), b.data(), n, n, n, 1, n, 1 << 22, -(1 << 23), 23};
      kernel.run(args);
      args.y = a.data();
      kernel.run(args);
      for (size_t i = 0; i < n; ++i) ASSERT_EQ(a[i], y[i]) << kernel.name << " n=" << n << " at " << i;
    }
  }
}

TEST(Add, SelectsByFeatures) {
  EXPECT_STREQ(add::Select(0)->name, "scalar");
  for (const add::Kernel &kernel : add::Kernels()) EXPECT_EQ(add::Select(kernel.needs)->needs, kernel.needs);
}

}  // namespace
}  // namespace acorn
