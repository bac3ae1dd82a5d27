// requantise: scalar against the formula in 128-bit arithmetic, every variant of this machine against scalar, on exact buffers.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/requantise/kernel.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"
#include "tests/support/wide.h"

namespace acorn {
namespace {

using requantise::Args;
using requantise::Kernel;
using test::Guard;
using test::GuardedBuffer;

enum class Rows { kOne, kTwo };

struct Problem {
  size_t m, n;
  int32_t shift, zero_point;
  Rows rows;
  int bits;  // of the accumulators; the multipliers take what is left of 62
};

struct Data {
  explicit Data(const Problem &p, Guard guard = Guard::kEnd)
      : stride(p.n + 3),
        acc((p.m - 1) * stride + p.n, guard),
        low(p.rows == Rows::kTwo ? acc.size() : 0, guard),
        bias(p.n, guard),
        multiplier(p.n, guard) {
    std::mt19937_64 random(11);
    const auto value = [&](int bits) {  // every magnitude, both signs, and the extremes
      const int64_t limit = (int64_t{1} << bits) - 1;
      const uint64_t kind = random() % 8;
      const int64_t magnitude = kind == 0 ? limit : static_cast<int64_t>((random() >> 1) % (limit + 1)) >> random() % 24;
      return static_cast<int32_t>(random() % 2 == 0 ? magnitude : -magnitude);
    };
    // |acc| + |bias| < 2^bits, and 129 times it is below 2^(bits + 8)
    const int multiplier_bits = std::min(31, 62 - p.bits - (p.rows == Rows::kTwo ? 8 : 0));
    for (int32_t &v : acc) v = value(p.bits - 1);
    for (int32_t &v : low) v = value(p.bits - 1);
    for (int32_t &v : bias) v = value(p.bits - 1);
    for (int32_t &v : multiplier) v = value(multiplier_bits);
  }
  size_t stride;
  GuardedBuffer<int32_t> acc, low, bias, multiplier;
};

template <typename Output>
constexpr int64_t kLimit = sizeof(Output) == 1   ? 127
                           : sizeof(Output) == 2 ? 32767
                                                 : 2147483647;

template <typename Output>
Output Formula(const Problem &p, const Data &data, const int32_t *bias, size_t m, size_t n) {
  const size_t at = m * data.stride + n;
  test::Wide sum = data.acc[at];
  if (p.rows == Rows::kTwo) sum = sum * 128 + data.low[at];
  if (bias != nullptr) sum += bias[n];
  test::Wide product = sum * data.multiplier[n] + (test::Wide{1} << (p.shift - 1));
  const test::Wide unit = test::Wide{1} << p.shift;
  test::Wide quotient = product / unit;  // toward zero: make it the floor
  if (product % unit < 0) --quotient;
  const test::Wide y = quotient + p.zero_point;
  return static_cast<Output>(y < -kLimit<Output> ? -kLimit<Output> : y > kLimit<Output> ? kLimit<Output> : y);
}

template <typename Output>
requantise::Function FunctionOf(const Kernel &kernel, Rows rows) {
  const bool two = rows == Rows::kTwo;
  if constexpr (sizeof(Output) == 1) return two ? kernel.two_row_s8 : kernel.s8;
  if constexpr (sizeof(Output) == 2) return two ? kernel.two_row_s16 : kernel.s16;
  return two ? kernel.two_row_s32 : kernel.s32;
}

template <typename Output>
void Check(const Kernel &kernel, const Problem &p, Guard guard) {
  const Data data(p, guard);
  for (const int32_t *bias : {data.bias.data(), static_cast<const int32_t *>(nullptr)}) {
    const size_t y_stride = p.n + 5;
    GuardedBuffer<Output> y((p.m - 1) * y_stride + p.n, guard);
    std::memset(static_cast<void *>(y.data()), 0x5a, y.size() * sizeof(Output));
    FunctionOf<Output>(kernel, p.rows)({y.data(), data.acc.data(), data.low.data(), data.stride, y_stride, p.m, p.n, bias,
                                        data.multiplier.data(), p.shift, p.zero_point});
    Output untouched;
    std::memset(static_cast<void *>(&untouched), 0x5a, sizeof(untouched));
    for (size_t m = 0; m < p.m; ++m) {
      for (size_t n = 0; n < p.n; ++n) {
        const Output want = Formula<Output>(p, data, bias, m, n);
        ASSERT_EQ(int64_t{y[m * y_stride + n]}, int64_t{want})
            << "m " << p.m << " n " << p.n << " shift " << p.shift << " zero_point " << p.zero_point << " bits " << p.bits
            << " rows " << static_cast<int>(p.rows) << " output bytes " << sizeof(Output) << " at " << m << ", " << n
            << " seed 11";
      }
      for (size_t n = p.n; n < y_stride && m + 1 < p.m; ++n) ASSERT_EQ(y[m * y_stride + n], untouched);
    }
  }
}

class Requantise : public testing::TestWithParam<Kernel> {
 protected:
  void SetUp() override {
    if ((GetParam().needs & ~test::HostFeatures()) != 0)
      GTEST_SKIP() << "this machine lacks what " << GetParam().name << " needs";
  }

  template <typename Output>
  void CheckAll() {
    for (const Rows rows : {Rows::kOne, Rows::kTwo}) {
      for (const int32_t shift : {1, 2, 15, 31, 32, 33, 40, 47, 61, 62}) {
        for (const int32_t zero_point : {0, 5, -127, 127}) {
          if (zero_point != 0 && sizeof(Output) != 1) continue;  // only s8 edges have one
          for (const int bits : {12, 24, 31}) {
            Check<Output>(GetParam(), {3, 37, shift, zero_point, rows, bits}, Guard::kEnd);
            if (HasFatalFailure()) return;
          }
        }
      }
      const int32_t zero_point = sizeof(Output) == 1 ? 3 : 0;
      for (const size_t n : {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64}) {
        for (const size_t m : {1, 2, 5}) {
          for (const int32_t shift : {20, 44}) {
            Check<Output>(GetParam(), {m, n, shift, zero_point, rows, 24}, Guard::kEnd);
            Check<Output>(GetParam(), {m, n, shift, zero_point, rows, 24}, Guard::kBegin);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
};

TEST_P(Requantise, S8EqualsFormula) { CheckAll<int8_t>(); }
TEST_P(Requantise, S16EqualsFormula) { CheckAll<int16_t>(); }
TEST_P(Requantise, S32EqualsFormula) { CheckAll<int32_t>(); }

INSTANTIATE_TEST_SUITE_P(Kernels, Requantise,
                         testing::ValuesIn(std::vector<Kernel>(requantise::Kernels().begin(), requantise::Kernels().end())),
                         [](const auto &param_info) { return std::string(param_info.param.name); });

}  // namespace
}  // namespace acorn
