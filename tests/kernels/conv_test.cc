// conv: every variant of this machine against the formula in 128-bit arithmetic, on exact buffers, for any cut into chunks.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/conv/kernel.h"
#include "tests/support/formula.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

using test::Guard;
using test::GuardedBuffer;

struct Shape {
  size_t m, n, taps;
};
constexpr Shape kShapes[] = {{1, 1, 2}, {1, 17, 4}, {2, 64, 8}, {3, 65, 8}, {5, 31, 3}, {7, 8, 8}, {9, 130, 4}};

struct Shifts {
  int32_t shift, index_shift;
};
constexpr Shifts kShifts[] = {{31, 31}, {40, 25}, {46, 15}, {62, 62}, {1, 1}, {29, 40}};

// One problem: inputs and parameters, with strides past the width.
struct Data {
  Data(const Shape &size, const Shifts &chosen, Guard guard)
      : shape(size),
        shifts(chosen),
        stride(size.n + 3),
        x((size.m - 1) * (size.n + 1) + size.n, guard),
        history((size.taps - 2) * stride + size.n, guard),
        weights((size.taps - 1) * stride + size.n, guard),
        bias(size.n, guard),
        multiplier(size.n, guard),
        index_multiplier(size.n, guard),
        table(conv::kTableElems, guard) {
    test::Corners corners(shape.m * 100 + shape.n + shape.taps);
    corners.FillSigned(&x, 32767);
    corners.FillSigned(&history, 32767);
    for (size_t c = 0; c < shape.n; ++c) {
      int64_t room = INT32_MAX >> 15;
      for (size_t j = 0; j < shape.taps; ++j) {
        const int64_t w = corners.Signed(std::min<int64_t>(room, 32767));
        weights[j * stride + c] = static_cast<int16_t>(w);
        room -= std::abs(w);
      }
      bias[c] = static_cast<int32_t>(corners.Signed((room << 15) + 32767));
      multiplier[c] = static_cast<int32_t>(corners.Unsigned(INT32_MAX));
      index_multiplier[c] = static_cast<int32_t>(corners.Unsigned(INT32_MAX));
    }
    corners.FillSigned(&table, 32767);
    table[3] = -32768;
  }

  int16_t At(int64_t row, size_t c) const {
    return row >= 0 ? x[static_cast<size_t>(row) * (shape.n + 1) + c]
                    : history[static_cast<size_t>(row + static_cast<int64_t>(shape.taps) - 1) * stride + c];
  }
  int64_t Expected(size_t row, size_t c) const {
    test::Wide acc = bias[c];
    for (size_t j = 0; j < shape.taps; ++j) {
      acc += test::Wide{weights[j * stride + c]} * At(static_cast<int64_t>(row + j + 1) - static_cast<int64_t>(shape.taps), c);
    }
    const int64_t v = test::Sat16(test::Rs(acc * multiplier[c], shifts.shift));
    const int64_t w = test::Sat(test::Rs(test::Wide{v} * index_multiplier[c], shifts.index_shift), -32768, 32767) + 32768;
    const auto j = static_cast<size_t>(w / 128);
    const test::Wide t = table[j] + test::Rs(test::Wide{table[j + 1] - table[j]} * (w % 128), 7);
    return static_cast<int64_t>(test::Rs(t * v, 15));
  }

  // Rows [first, first + m) of the problem, with what `kept` holds before them.
  conv::Args Args(int16_t *y, int16_t *kept, size_t first, size_t m) const {
    return {y + first * (shape.n + 2), x.data() + first * (shape.n + 1), kept, shape.n + 2, shape.n + 1, stride, m, shape.n, shape.taps,
            weights.data(), bias.data(), multiplier.data(), index_multiplier.data(), shifts.shift, shifts.index_shift, table.data()};
  }

  Shape shape;
  Shifts shifts;
  size_t stride;
  GuardedBuffer<int16_t> x, history, weights;
  GuardedBuffer<int32_t> bias, multiplier, index_multiplier;
  GuardedBuffer<int16_t> table;
};

void Check(const conv::Kernel &kernel, const Shape &shape, const Shifts &shifts, Guard guard, size_t chunk) {
  SCOPED_TRACE(testing::Message() << kernel.name << " m=" << shape.m << " n=" << shape.n << " taps=" << shape.taps << " shifts "
                                  << shifts.shift << ' ' << shifts.index_shift << " chunk=" << chunk);
  const Data data(shape, shifts, guard);
  GuardedBuffer<int16_t> y((shape.m - 1) * (shape.n + 2) + shape.n, guard), kept(data.history.size(), guard);
  for (int16_t &v : y) v = 12345;
  std::copy(data.history.data(), data.history.data() + data.history.size(), kept.begin());
  for (size_t first = 0; first < shape.m; first += chunk) {
    kernel.run(data.Args(y.data(), kept.data(), first, std::min(chunk, shape.m - first)));
  }
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t row = i / (shape.n + 2), column = i % (shape.n + 2);
    ASSERT_EQ(y[i], column < shape.n ? data.Expected(row, column) : 12345) << "row " << row << " column " << column;
  }
  for (size_t i = 0; i < kept.size(); ++i) {
    const size_t row = i / data.stride, column = i % data.stride;
    const auto from = static_cast<int64_t>(shape.m + row + 1) - static_cast<int64_t>(shape.taps);
    ASSERT_EQ(kept[i], column < shape.n ? data.At(from, column) : data.history[i]) << "kept row " << row << " column " << column;
  }
}

TEST(Conv, EveryVariantIsTheFormula) {
  const uint32_t features = test::HostFeatures();
  for (const conv::Kernel &kernel : conv::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    for (const Shape &shape : kShapes) {
      for (const Shifts &shifts : kShifts) {
        for (Guard guard : {Guard::kEnd, Guard::kBegin}) {
          for (size_t chunk : {1, 2, 5, 100}) Check(kernel, shape, shifts, guard, chunk);
        }
      }
    }
  }
}

TEST(Conv, IsTheActivationOfASum) {
  // Units of 1/1000 in and out, weights of 1/4096: silu(0.5 x0 - 0.25 x1 + 0.125).
  std::vector<int16_t> table(conv::kTableElems), x = {2000, -3000, 700}, y(3), history = {1500}, weights = {-1024, 2048};
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = static_cast<int16_t>(std::min(32767L, std::lround(32768 / (1 + std::exp((256 - double(std::min<size_t>(i, 512))) / 16)))));
  }
  const int32_t bias = 125 * 4096, multiplier = 1 << 30, index = static_cast<int32_t>(std::lround(2.048 * (1 << 24)));
  conv::Select(0)->run({y.data(), x.data(), history.data(), 1, 1, 1, 3, 1, 2, weights.data(), &bias, &multiplier, &index, 42, 24,
                        table.data()});
  double before = 1.5;
  for (size_t i = 0; i < 3; ++i) {
    const double now = x[i] / 1000.0, v = 0.5 * now - 0.25 * before + 0.125;
    EXPECT_NEAR(y[i] / 1000.0, v / (1 + std::exp(-v)), 0.0015);
    before = now;
  }
  EXPECT_EQ(history[0], 700);
}

}  // namespace
}  // namespace acorn
