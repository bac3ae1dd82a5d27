// hadamard: every variant of this machine against the matrix itself in 128-bit arithmetic, on exact buffers.
#include <gtest/gtest.h>

#include <type_traits>

#include "kernels/hadamard/kernel.h"
#include "tests/support/formula.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

using test::Guard;
using test::GuardedBuffer;

struct Factors {
  int32_t multiplier, shift, zero_point;
};
constexpr Factors kFactors[] = {{1, 1, 0},           {1 << 20, 26, -5},   {2147483647, 38, 127}, {1431655765, 41, -127},
                                {2147483647, 62, 3}, {2147483647, 20, 0}, {2147483647, 25, 1},   {2147483647, 26, -1},
                                {1500000000, 31, 2}, {1500000000, 32, -2}};

template <typename Output>
void Check(const hadamard::Kernel &kernel, size_t m, size_t n, size_t block, const Factors &factors, Guard guard) {
  SCOPED_TRACE(testing::Message() << kernel.name << " bytes=" << sizeof(Output) << " m=" << m << " n=" << n
                                  << " block=" << block << " shift=" << factors.shift);
  test::Corners corners(m * 1000 + n);
  const size_t x_stride = n + 1, y_stride = n + 2;
  GuardedBuffer<int16_t> x((m - 1) * x_stride + n, guard);
  GuardedBuffer<Output> y((m - 1) * y_stride + n, guard);
  corners.FillSigned(&x, 32767);
  if (factors.shift == 1) {
    for (int16_t &v : x) v = 32767;  // the largest sum
  }
  for (Output &v : y) v = 99;
  const hadamard::Args args = {y.data(), x.data(), y_stride,           x_stride,      m,
                               n,        block,    factors.multiplier, factors.shift, factors.zero_point};
  (sizeof(Output) == 1 ? kernel.s8 : kernel.s15)(args);
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t row = i / y_stride, column = i % y_stride;
    if (column >= n) {
      ASSERT_EQ(y[i], 99) << "between rows";
      continue;
    }
    const size_t begin = column / block * block;
    int64_t h = 0;  // at most block · 2^15
    for (size_t j = 0; j < block; ++j) {
      const int64_t value = x[row * x_stride + begin + j];
      h += __builtin_popcountll((column - begin) & j) % 2 == 0 ? value : -value;
    }
    const test::Wide scaled = test::Rs(test::Wide{h} * factors.multiplier, factors.shift) + factors.zero_point;
    ASSERT_EQ(y[i], sizeof(Output) == 1 ? test::Sat8(scaled) : test::Sat15(scaled)) << "row " << row << " column " << column;
  }
}

TEST(Hadamard, EveryVariantIsTheFormula) {
  const uint32_t features = test::HostFeatures();
  for (const hadamard::Kernel &kernel : hadamard::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    for (size_t block = 1; block <= hadamard::kMaxBlock; block *= 2) {
      for (size_t blocks : {1, 2, 3, 5, 19}) {
        if (block * blocks > 3072) continue;
        for (const Factors &factors : kFactors) {
          Factors factors_s15 = factors;
          factors_s15.zero_point = 0;  // only s8 edges have one
          for (Guard guard : {Guard::kEnd, Guard::kBegin}) {
            Check<int8_t>(kernel, 2, block * blocks, block, factors, guard);
            Check<int16_t>(kernel, 1, block * blocks, block, factors_s15, guard);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace acorn
