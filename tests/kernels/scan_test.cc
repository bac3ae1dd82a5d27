// scan: every variant of this machine against the formula in 128-bit arithmetic, on exact buffers, for any cut into chunks; and
// what the formula is worth against real numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/scan/kernel.h"
#include "tests/support/formula.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

using test::Guard;
using test::GuardedBuffer;

constexpr int64_t kStateLimit = (int64_t{1} << 30) - 1;

std::vector<int32_t> SoftplusTable() {
  std::vector<int32_t> table(scan::kTableElems);
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = static_cast<int32_t>(std::lround(std::ldexp(std::log1p(std::exp(-double(i) / 64)), 24)));
  }
  return table;
}

struct Shape {
  size_t m, channels, n;
  size_t used_run = 0, unused = 0;  // channels that lie side by side, 0: all; columns of the state behind those in use
  size_t run() const { return used_run == 0 ? channels : used_run; }
  size_t run_step() const { return run() + (used_run == 0 ? 0 : 2); }  // two of other heads
  size_t width() const { return (channels / run() - 1) * run_step() + run(); }
  size_t place(size_t channel) const { return channel / run() * run_step() + channel % run(); }
};
constexpr Shape kShapes[] = {{1, 1, 1}, {1, 3, 16}, {2, 4, 7}, {3, 2, 33}, {5, 5, 64}, {7, 1, 128}, {3, 2, 1024}, {4, 3, 15},
                             {4, 3, 17}, {3, 6, 16, 2, 16}, {2, 6, 48, 3, 16}, {2, 4, 33, 1, 7}, {3, 5, 64, 5, 1}, {2, 8, 80, 4, 0},
                             {70, 3, 7}, {33, 2, 16}, {17, 3, 64}, {9, 5, 80}, {12, 2, 128}};  // more than a block of rows

// Ordinary heads, and those in which everything is as large as it can be.
enum class Kind { kOrdinary, kSlow, kExtreme };

scan::Head HeadOf(Kind kind, const int32_t *table) {
  switch (kind) {
    case Kind::kOrdinary: return {1 << 20, 16, -(1 << 17), table, 1000, 1 << 28, 3 << 28, 28, 111 << 20, 20};
    case Kind::kSlow: return {1 << 20, 18, -(6 << 16), table, 0, INT32_MAX, 3 << 24, 28, 1 << 30, 20};
    case Kind::kExtreme: return {INT32_MAX, 1, INT32_MIN, table, 0, INT32_MAX, 1, 62, INT32_MAX, 1};
  }
  return {};
}

test::Wide Minimum(test::Wide a, test::Wide b) { return a < b ? a : b; }

void Check(const scan::Kernel &kernel, const Shape &shape, Kind kind, Guard guard, size_t chunk) {
  SCOPED_TRACE(testing::Message() << kernel.name << " m=" << shape.m << " channels=" << shape.channels << " n=" << shape.n << " run="
                                  << shape.run() << " unused=" << shape.unused << " kind "
                                  << static_cast<int>(kind) << " chunk=" << chunk);
  const std::vector<int32_t> table = SoftplusTable();
  const scan::Head head = HeadOf(kind, table.data());
  const size_t channels = shape.channels, n = shape.n, width = shape.width(), state_stride = n + shape.unused;
  test::Corners corners(shape.m * 1000 + channels * 100 + n);
  GuardedBuffer<int16_t> x((shape.m - 1) * (width + 1) + width, guard), b((shape.m - 1) * (n + 2) + n, guard),
      c((shape.m - 1) * (n + 3) + n, guard), dt((shape.m - 1) * 5 + 1, guard), y((shape.m - 1) * (width + 4) + width, guard);
  GuardedBuffer<int32_t> state((channels - 1) * state_stride + n, guard);
  corners.FillSigned(&x, 32767);
  corners.FillSigned(&b, 32767);
  corners.FillSigned(&c, 32767);
  corners.FillSigned(&dt, 32767);
  corners.FillSigned(&state, kStateLimit);
  const int64_t skip = corners.Signed(int64_t{1} << 46);
  const int32_t out_shift = kind == Kind::kExtreme ? 1 : 38;
  std::vector<int64_t> expected_state(state.begin(), state.end());
  for (int16_t &v : y) v = 12345;
  for (size_t first = 0; first < shape.m; first += chunk) {
    kernel.run({y.data() + first * (width + 4), x.data() + first * (width + 1), b.data() + first * (n + 2),
                c.data() + first * (n + 3), dt.data() + first * 5, width + 4, width + 1, n + 2, n + 3, 5, shape.run(), shape.run_step(),
                state.data(), state_stride, std::min(chunk, shape.m - first), channels, n, head, skip, out_shift});
  }
  for (size_t r = 0; r < shape.m; ++r) {
    const scan::Step step = scan::StepOf(head, dt[r * 5]);
    for (size_t p = 0; p < channels; ++p) {
      const int64_t xp = x[r * (width + 1) + shape.place(p)];
      const int64_t w = test::Sat(test::Rs(test::Wide{xp} * step.input, 15), -kStateLimit, kStateLimit);
      test::Wide sum = test::Wide{skip} * xp;
      for (size_t i = 0; i < n; ++i) {
        int64_t &s = expected_state[p * state_stride + i];
        const test::Wide next = test::Rs(test::Wide{s} * step.decay, 30) + test::Rs(test::Wide{b[r * (n + 2) + i]} * w, 15);
        s = test::Sat(next, -kStateLimit, kStateLimit);
        sum += test::Wide{c[r * (n + 3) + i]} * s;
      }
      ASSERT_EQ(y[r * (width + 4) + shape.place(p)], test::Sat16(test::Rs(sum, out_shift))) << "row " << r << " channel " << p;
    }
  }
  for (size_t i = 0; i < state.size(); ++i) ASSERT_EQ(state[i], expected_state[i]) << "state " << i;
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t column = i % (width + 4);
    if (column >= width || column % shape.run_step() >= shape.run()) {
      ASSERT_EQ(y[i], 12345) << "between runs or rows, at " << i;
    }
  }
}

TEST(Scan, EveryVariantIsTheFormula) {
  const uint32_t features = test::HostFeatures();
  for (const scan::Kernel &kernel : scan::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    for (const Shape &shape : kShapes) {
      for (Kind kind : {Kind::kOrdinary, Kind::kSlow, Kind::kExtreme}) {
        for (Guard guard : {Guard::kEnd, Guard::kBegin}) {
          for (size_t chunk : {1, 2, 11, 100}) Check(kernel, shape, kind, guard, chunk);
        }
      }
    }
  }
}

TEST(Scan, AStepIsTheFormula) {
  test::Corners corners(17);
  std::vector<int32_t> table(scan::kTableElems);
  for (int round = 0; round < 200; ++round) {
    corners.FillSigned(&table, INT32_MAX);
    const auto least = static_cast<int32_t>(corners.Unsigned(INT32_MAX));
    const auto shift = [&] { return static_cast<int32_t>(corners.Between(1, 62)); };
    const auto factor = [&] { return static_cast<int32_t>(corners.Unsigned(INT32_MAX)); };
    const scan::Head head = {factor(), shift(),  static_cast<int32_t>(corners.Signed(INT32_MAX)), table.data(), least,
                             static_cast<int32_t>(corners.Between(least, INT32_MAX)), factor(), shift(), factor(), shift()};
    for (int i = 0; i < 50; ++i) {
      const auto raw = static_cast<int16_t>(corners.Signed(32767));
      const test::Wide v = test::Rs(test::Wide{raw} * head.dt_multiplier, head.dt_shift) + head.dt_bias, magnitude = v < 0 ? -v : v;
      test::Wide rest = 0;
      if (magnitude < 1 << 20) {
        const auto j = static_cast<size_t>(magnitude / 1024);
        rest = table[j] + test::Rs((test::Wide{table[j + 1]} - table[j]) * (magnitude % 1024), 10);
      }
      const int64_t dt = test::Sat((v > 0 ? v : test::Wide{0}) * 256 + rest, head.dt_least, head.dt_most);
      ASSERT_EQ(scan::StepSize(head, raw), dt);
      const scan::Step step = scan::StepOf(head, raw);
      const test::Wide input = test::Rs(test::Wide{dt} * head.input_multiplier, head.input_shift);
      ASSERT_EQ(step.input, static_cast<int64_t>(Minimum(input, (int64_t{1} << 46) - 1)));
      const double octaves = std::ldexp(double(dt) * head.decay_multiplier, -head.decay_shift - 26);
      ASSERT_NEAR(step.decay, std::ldexp(std::exp2(-octaves), 30), 16);
      ASSERT_LE(step.decay, kStateLimit);
    }
  }
}

// §15.2: within 3.2e-5 of itself and two units of 2^-24.
TEST(Scan, TheStepSizeIsTheSoftplus) {
  const std::vector<int32_t> table = SoftplusTable();
  for (int32_t shift = 20; shift < 27; ++shift) {  // natural units of 16, 8, ... for the largest raw value
    for (const int32_t bias : {0, -(9 << 16), 3 << 16}) {
      const scan::Head head = {1 << 25, shift, bias, table.data(), 0, INT32_MAX, 0, 1, 0, 1};
      for (int raw = -32767; raw <= 32767; raw += 3) {
        const double v = std::ldexp(double(raw), 25 - shift - 16) + bias / 65536.0;
        const double softplus = v > 0 ? v + std::log1p(std::exp(-v)) : std::log1p(std::exp(v));
        // Where the product is not whole, v itself is rounded by half a unit of 2^-16.
        const double slack = shift > 25 ? std::ldexp(1, -17) : 0;
        if (softplus >= 127) continue;  // the limit
        ASSERT_NEAR(std::ldexp(scan::StepSize(head, static_cast<int16_t>(raw)), -24), softplus,
                    softplus * (3.2e-5 + slack) + std::ldexp(2, -24) + slack)
            << "raw " << raw << " v " << v;
      }
    }
  }
}

// The state of a slow head, fed for 10,000 steps, against the recurrence in real numbers: relative to the largest value it has had.
TEST(Scan, TenThousandStepsOfASlowHead) {
  constexpr size_t kColumns = 16, kSteps = 10000;
  const std::vector<int32_t> table = SoftplusTable();
  // dt is 0.01: log(e^0.01 - 1) = -4.6002; A = -0.0100005 makes the decay 0.9999. Inputs of random signs with a mean, then constant
  // ones, then none: the state must neither stand still below what it tends to nor stay above.
  const double step_size = 0.01, decay = 0.9999, rate = -std::log(decay) / step_size;
  const auto bias = static_cast<int32_t>(std::lround(65536 * std::log(std::expm1(step_size))));
  for (const scan::Kernel &kernel : scan::Kernels()) {
    if ((kernel.needs & ~test::HostFeatures()) != 0) continue;
    for (const bool constant : {true, false}) {
      // Units of the state for one of x times one of B, so that it tends to about 2^27.
      const double unit = constant ? 0.23 : 1.5;
      const scan::Head head = {1, 1, bias, table.data(), 0, INT32_MAX,
                               static_cast<int32_t>(std::lround(std::ldexp(rate * 4 / std::log(2.0), 34))), 34,
                               static_cast<int32_t>(std::lround(std::ldexp(64 * unit, 20))), 20};
      std::mt19937 random(5);
      std::vector<int32_t> state(kColumns);
      std::vector<double> real(kColumns), largest(kColumns);
      std::vector<int16_t> b(kColumns), c(kColumns, 1000);
      double worst = 0;
      for (size_t t = 0; t < kSteps; ++t) {
        int16_t x = 9000, dt = 0, y = 0;
        for (size_t i = 0; i < kColumns; ++i) b[i] = static_cast<int16_t>(40 * (i + 1));
        if (!constant) {
          x = static_cast<int16_t>(random() % 24000) - 8000;
          for (int16_t &value : b) value = static_cast<int16_t>(random() % 1200) - 300;
        }
        kernel.run({&y, &x, b.data(), c.data(), &dt, 1, 1, kColumns, kColumns, 1, 1, 1, state.data(), kColumns, 1, 1,
                    kColumns, head, 0, 26});
        const double input = std::ldexp(head.input_multiplier, -20) / 64 * step_size;
        double sum = 0, real_largest = 0;
        for (size_t i = 0; i < kColumns; ++i) {
          real[i] = decay * real[i] + input * b[i] * x;
          largest[i] = std::max(largest[i], std::fabs(real[i]));
          sum += c[i] * real[i];
          real_largest = std::max(real_largest, largest[i]);
          worst = std::max(worst, std::fabs(state[i] - real[i]) / real_largest);
        }
        const double out = std::ldexp(sum, -26);
        ASSERT_NEAR(y, std::clamp(out, -32767.0, 32767.0), 0.6 + kColumns * 1000 * 4e-4 * std::ldexp(real_largest, -26));
      }
      EXPECT_LT(worst, 4e-4) << kernel.name;
      const double most = *std::max_element(largest.begin(), largest.end());
      EXPECT_GT(most, std::ldexp(1, 26)) << "12 guard bits are what is tested";
      EXPECT_LT(most, std::ldexp(1, 30));
      RecordProperty(constant ? "worst_constant" : "worst_random", std::to_string(worst * 1e6));
      // And without input it decays.
      std::fill(b.begin(), b.end(), int16_t{0});
      for (size_t t = 0; t < kSteps; ++t) {
        int16_t x = 0, dt = 0, y = 0;
        kernel.run({&y, &x, b.data(), c.data(), &dt, 1, 1, kColumns, kColumns, 1, 1, 1, state.data(), kColumns, 1, 1,
                    kColumns, head, 0, 32});
        for (double &value : real) value *= decay;
      }
      for (size_t i = 0; i < kColumns; ++i) EXPECT_NEAR(state[i], real[i], 4e-4 * most) << kernel.name << " column " << i;
    }
  }
}

}  // namespace
}  // namespace acorn
