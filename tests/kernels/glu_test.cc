// glu: every variant of this machine against the formula in 128-bit arithmetic, on exact buffers.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/glu/kernel.h"
#include "tests/support/formula.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

using test::Guard;
using test::GuardedBuffer;

constexpr size_t kWidths[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 48, 127, 1536};

enum class Table { kSigmoid, kExtreme };

void FillTable(GuardedBuffer<int16_t> *table, Table kind) {
  test::Corners corners(3);
  for (size_t i = 0; i < glu::kTableElems; ++i) {
    const double x = (static_cast<double>(i < 512 ? i : 512) - 256) / 16;
    (*table)[i] =
        static_cast<int16_t>(kind == Table::kSigmoid ? std::lrint(32767 / (1 + std::exp(-x))) : corners.Signed(32767));
  }
}

struct Factors {
  int32_t index_multiplier, index_shift, shift;
};
constexpr Factors kFactors[] = {{1, 1, 1},           {1 << 20, 20, 14},     {2147483647, 30, 16}, {1500000000, 33, 23},
                                {2147483647, 46, 7}, {-1500000000, 31, 62}, {2147483647, 62, 12}, {2147483647, 1, 20},
                                {-2147483647, 15, 9}, {1500000000, 30, 20},  {2147483647, 31, 31}, {-2147483647, 17, 17},
                                {2147483647, 17, 31}, {1 << 30, 31, 17},     {2147483647, 16, 18}, {1500000000, 31, 32},
                                {305432421, 24, 20},  {-305432421, 18, 8},   {-2147483647, 47, 9}, {-65537, 30, 20}};

int64_t Formula(int16_t g, int16_t u, const Factors &factors, const GuardedBuffer<int16_t> &table) {
  const int64_t w = test::Sat(test::Rs(test::Wide{g} * factors.index_multiplier, factors.index_shift), -32768, 32767);
  const int64_t j = (w + 32768) / 128, f = (w + 32768) % 128;
  const test::Wide t = table[j] + test::Rs(test::Wide{table[j + 1] - table[j]} * f, 7);
  return test::Sat16(test::Rs(test::Rs(g * t, 8) * u, factors.shift));
}

void Check(const glu::Kernel &kernel, size_t m, size_t n, const Factors &factors, Table kind, Guard guard) {
  SCOPED_TRACE(testing::Message() << kernel.name << " m=" << m << " n=" << n << " shifts " << factors.index_shift << ' '
                                  << factors.shift);
  test::Corners corners(m * 1000 + n);
  const size_t gate_stride = n + 1, up_stride = n + 4, y_stride = n + 2;
  GuardedBuffer<int16_t> gate((m - 1) * gate_stride + n, guard), up((m - 1) * up_stride + n, guard),
      y((m - 1) * y_stride + n, guard);
  GuardedBuffer<int16_t> table(glu::kTableElems, guard);
  FillTable(&table, kind);
  corners.FillSigned(&gate, 32767);
  corners.FillSigned(&up, 32767);
  for (int16_t &v : y) v = 12345;
  kernel.run({y.data(), gate.data(), up.data(), y_stride, gate_stride, up_stride, m, n, table.data(), factors.index_multiplier,
              factors.index_shift, factors.shift});
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t row = i / y_stride, column = i % y_stride;
    const int64_t expected =
        column >= n ? 12345 : Formula(gate[row * gate_stride + column], up[row * up_stride + column], factors, table);
    ASSERT_EQ(y[i], expected) << "row " << row << " column " << column;
  }
}

TEST(Glu, EveryVariantIsTheFormula) {
  const uint32_t features = test::HostFeatures();
  for (const glu::Kernel &kernel : glu::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    for (size_t n : kWidths) {
      for (const Factors &factors : kFactors) {
        for (Table table : {Table::kSigmoid, Table::kExtreme}) {
          for (Guard guard : {Guard::kEnd, Guard::kBegin}) {
            for (size_t m : {1, 3}) Check(kernel, m, n, factors, table, guard);
          }
        }
      }
    }
  }
}

TEST(Glu, InPlace) {
  const uint32_t features = test::HostFeatures();
  for (const glu::Kernel &kernel : glu::Kernels()) {
    if ((kernel.needs & ~features) != 0) continue;
    for (size_t n : kWidths) {
      test::Corners corners(n);
      GuardedBuffer<int16_t> gate(n), up(n), y(n), table(glu::kTableElems);
      FillTable(&table, Table::kSigmoid);
      corners.FillSigned(&gate, 32767);
      corners.FillSigned(&up, 32767);
      glu::Args args = {y.data(), gate.data(), up.data(), n, n, n, 1, n, table.data(), 1 << 24, 26, 17};
      kernel.run(args);
      args.y = gate.data();
      kernel.run(args);
      for (size_t i = 0; i < n; ++i) ASSERT_EQ(gate[i], y[i]) << kernel.name << " n=" << n << " at " << i;
    }
  }
}

}  // namespace
}  // namespace acorn
