// What the tests of the per-channel matrix families share: problems, matrices packed through layout_xnnpack.h on exact buffers
// between unreadable pages, and the formula of kernels/gemm.h as a loop.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "acorn_schema/layout_xnnpack.h"
#include "base/span.h"
#include "kernels/gemm.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn::channel_gemm {

enum class Values { kRandom, kLargest, kSmallest, kAlternating };

struct Problem {
  size_t m, n, k, k_panel;
  Values values;
  size_t used_k = 0;  // the first columns; 0: all
  size_t depth() const { return used_k == 0 ? k : used_k; }
};

inline std::string Describe(const Problem &p) {
  return "m " + std::to_string(p.m) + " n " + std::to_string(p.n) + " k " + std::to_string(p.depth()) + "/" + std::to_string(p.k) +
         " k_panel " + std::to_string(p.k_panel) + " values " + std::to_string(static_cast<int>(p.values)) + " seed 11";
}

class Data {
 public:
  Data(WeightFormat format, Layout layout, const Problem &p, test::Guard guard = test::Guard::kEnd)
      : matrix{format, layout, p.n, p.k, p.k_panel == 0 ? p.k : p.k_panel},
        x_stride(p.depth() + 3),
        x((p.m - 1) * x_stride + p.depth(), guard),
        packed((XnnPackedBytes(matrix) + 63) / 64 * 64, guard),  // the end at the guard, aligned to 64 all the same
        weights(p.n * p.k) {
    std::mt19937 random(11);
    for (int8_t &value : x) value = static_cast<int8_t>(X(p, random, static_cast<size_t>(&value - x.data())));
    const int high = format == WeightFormat::kW8 ? 127 : 7, low = format == WeightFormat::kW8 ? -127 : -8;
    for (size_t i = 0; i < weights.size(); ++i) {
      switch (p.values) {
        case Values::kRandom: weights[i] = low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1)); break;
        case Values::kAlternating: weights[i] = i % 2 == 0 ? low : high; break;
        default: weights[i] = low;
      }
    }
    Pack();
  }

  /// Packs `weights`, as the model compiler does.
  void Pack() {
    std::fill(packed.begin(), packed.end(), XnnPadding(matrix.format, matrix.layout));
    const uint64_t padded_n = XnnTiles(matrix.layout, matrix.n) * XnnNr(matrix.layout);
    for (uint64_t n = 0; n < padded_n; ++n) {
      for (uint64_t panel = 0; panel < XnnPanels(matrix.k, matrix.k_panel); ++panel) {
        int32_t sum = 0;
        for (uint64_t i = 0; i < XnnPanelDepth(matrix.k, matrix.k_panel, panel) && n < matrix.n; ++i) {
          sum += weights[n * matrix.k + panel * matrix.k_panel + i];
        }
        const int32_t ksum = XnnKsum(matrix.format, matrix.layout, sum);
        std::memcpy(packed.data() + XnnKsumOffset(matrix, n, panel), &ksum, 4);
        std::memcpy(packed.data() + XnnScaleOffset(matrix, n, panel), &kXnnScale, 4);
        std::memcpy(packed.data() + XnnBiasOffset(matrix, n, panel), &kXnnBias, 4);
      }
      for (uint64_t i = 0; i < matrix.k && n < matrix.n; ++i) {
        const XnnWeightPlace place = XnnWeight(matrix, n, i);
        const uint32_t mask = (matrix.format == WeightFormat::kW8 ? 255u : 15u) << place.shift;
        const uint32_t bits = uint32_t{XnnEncode(matrix.format, matrix.layout, weights[n * matrix.k + i])} << place.shift;
        uint8_t &byte = packed[place.offset];
        byte = static_cast<uint8_t>((byte & ~mask) | bits);
      }
    }
  }

  static int X(const Problem &p, std::mt19937 &random, size_t i) {
    switch (p.values) {
      case Values::kRandom: return static_cast<int>(random() % 255) - 127;
      case Values::kLargest: return -127;
      case Values::kSmallest: return 127;
      default: return i % (p.depth() + 3) % 2 == 0 ? 127 : -127;
    }
  }

  XnnMatrix matrix;
  size_t x_stride;
  test::GuardedBuffer<int8_t> x;
  test::GuardedBuffer<uint8_t> packed;
  std::vector<int> weights;
};

/// acc of channels [n_begin, n_end) on an exact buffer; the gaps between its rows stay untouched.
inline std::vector<int32_t> RunKernel(const GemmKernel &kernel, const Problem &p, const Data &data, size_t n_begin, size_t n_end,
                                      test::Guard guard = test::Guard::kEnd) {
  constexpr int32_t kUntouched = 0x5a5a5a5a;
  const size_t width = n_end - n_begin, stride = width + 3;
  test::GuardedBuffer<int32_t> acc((p.m - 1) * stride + width, guard);
  for (int32_t &value : acc) value = kUntouched;
  test::GuardedBuffer<uint8_t> scratch((kernel.scratch_bytes(p.m, p.depth()) + 63) / 64 * 64, guard);
  std::memset(scratch.data(), 0xa5, scratch.size());
  const GemmArgs args = {data.x.data(),
                         data.x_stride,
                         data.packed.data(),
                         p.m,
                         p.depth(),
                         p.k,
                         0,
                         static_cast<uint32_t>(p.k_panel),
                         n_begin,
                         n_end,
                         p.n,
                         acc.data(),
                         stride,
                         scratch.data()};
  kernel.run(args);
  std::vector<int32_t> result;
  for (size_t m = 0; m < p.m; ++m) {
    for (size_t n = 0; n < width; ++n) result.push_back(acc[m * stride + n]);
    for (size_t n = width; n < stride && m + 1 < p.m; ++n) EXPECT_EQ(acc[m * stride + n], kUntouched) << "row " << m << " gap " << n;
  }
  return result;
}

inline std::vector<int32_t> Formula(const Problem &p, const Data &data, size_t n_begin, size_t n_end) {
  std::vector<int32_t> result;
  for (size_t m = 0; m < p.m; ++m) {
    for (size_t n = n_begin; n < n_end; ++n) {
      int64_t sum = 0;
      for (size_t i = 0; i < p.depth() && n < p.n; ++i) sum += int64_t{data.x[m * data.x_stride + i]} * data.weights[n * p.k + i];
      EXPECT_EQ(sum, static_cast<int32_t>(sum)) << "the problem breaks the compiler's bound";
      result.push_back(static_cast<int32_t>(sum));
    }
  }
  return result;
}

inline void ExpectEqual(const std::vector<int32_t> &got, const std::vector<int32_t> &want, size_t width, const std::string &what) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i], want[i]) << what << ": row " << i / width << " channel " << i % width;
  }
}

/// Every kind of edge: rows around mr, channels around nr, depths that end inside a step, one panel and several.
inline void CheckAgainstFormula(WeightFormat format, const GemmKernel &kernel) {
  const size_t mr = kernel.mr, nr = kernel.nr;
  std::vector<Problem> problems;
  for (size_t k : {1, 3, 7, 8, 9, 15, 16, 17, 24, 31, 64, 67, 101, 200}) {
    for (size_t m : {size_t{1}, size_t{2}, mr, mr + 1}) {
      for (size_t n : {size_t{1}, nr - 1, nr, nr + 1, 5 * nr + 3}) problems.push_back({m, n, k, 0, Values::kRandom});
    }
  }
  for (size_t m = 1; m <= 17; ++m) {
    for (size_t n : {size_t{37}, 4 * nr, 9 * nr - 1}) problems.push_back({m, n, 72, 0, Values::kRandom});
  }
  for (size_t k_panel : {16, 48, 80}) {
    for (size_t k : {81, 96, 160, 175, 320}) {
      for (size_t m : {size_t{1}, size_t{3}, mr, 2 * mr + 1}) problems.push_back({m, 6 * nr + 5, k, k_panel, Values::kRandom});
    }
  }
  for (Values values : {Values::kLargest, Values::kSmallest, Values::kAlternating}) {
    for (size_t m : {size_t{1}, size_t{2}, mr, mr + 3}) {
      problems.push_back({m, 2 * nr + 1, 999, 0, values});
      problems.push_back({m, 2 * nr + 1, 2600, 528, values});
    }
  }
  for (const Problem &p : problems) {
    const Data data(format, kernel.layout, p);
    ExpectEqual(RunKernel(kernel, p, data, 0, p.n), Formula(p, data, 0, p.n), p.n, Describe(p));
    if (testing::Test::HasFatalFailure()) return;
  }
}

inline void CheckAgainstScalar(WeightFormat format, const GemmKernel &kernel) {
  const GemmKernel &scalar = *SelectGemm(format, kernel.layout, 0);
  for (const Problem &p : {Problem{1, 4099, 576, 0, Values::kRandom}, Problem{2, 1013, 1040, 0, Values::kRandom},
                           Problem{128, 83, 1536, 512, Values::kRandom}, Problem{509, 48, 640, 0, Values::kRandom}}) {
    const Data data(format, kernel.layout, p);
    ExpectEqual(RunKernel(kernel, p, data, 0, p.n), RunKernel(scalar, p, data, 0, p.n), p.n, Describe(p));
    if (testing::Test::HasFatalFailure()) return;
  }
}

/// Any tile may begin a range, and a range may end anywhere up to the padded width.
inline void CheckRanges(WeightFormat format, const GemmKernel &kernel) {
  for (size_t k_panel : {0, 32}) {
    for (size_t m : {1, 2, 5, 20}) {
      const Problem p = {m, 150, 72, k_panel, Values::kRandom};
      const Data data(format, kernel.layout, p);
      const size_t padded = XnnTiles(kernel.layout, p.n) * kernel.nr;
      for (size_t begin = 0; begin < p.n; begin += kernel.nr) {
        for (size_t end : {begin + 1, begin + 16, begin + 40, size_t{149}, padded}) {
          if (end <= begin || end > padded) continue;
          ExpectEqual(RunKernel(kernel, p, data, begin, end), Formula(p, data, begin, end), end - begin,
                      Describe(p) + " range " + std::to_string(begin) + " " + std::to_string(end));
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

/// The first panels of a matrix give the sums of a matrix that has no others.
inline void CheckDepths(WeightFormat format, const GemmKernel &kernel) {
  for (size_t k_panel : {16, 48}) {
    for (size_t k : {4 * k_panel, 3 * k_panel + 7}) {
      for (size_t used = k_panel; used < k; used += k_panel) {
        for (size_t m : {size_t{1}, size_t{3}, size_t{kernel.mr}, size_t{2} * kernel.mr + 1}) {
          const Problem p = {m, size_t{6} * kernel.nr + 5, k, k_panel, Values::kRandom, used};
          const Data data(format, kernel.layout, p);
          ExpectEqual(RunKernel(kernel, p, data, 0, p.n), Formula(p, data, 0, p.n), p.n, Describe(p));
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

inline void CheckBeginnings(WeightFormat format, const GemmKernel &kernel) {
  for (size_t m : {1, 7}) {
    const Problem p = {m, 33, 75, 0, Values::kRandom};
    const Data data(format, kernel.layout, p, test::Guard::kBegin);
    ExpectEqual(RunKernel(kernel, p, data, 0, p.n, test::Guard::kBegin), Formula(p, data, 0, p.n), p.n, Describe(p));
  }
}

/// A plan asks for the largest m and k that can come; any smaller ones must do with that.
inline void CheckScratch(const GemmKernel &kernel) {
  for (size_t k : {1, 16, 17, 64, 576, 577}) {
    for (size_t m = 1; m <= 300; ++m) {
      ASSERT_GE(kernel.scratch_bytes(m + 1, k), kernel.scratch_bytes(m, k)) << "m " << m << " k " << k;
      ASSERT_GE(kernel.scratch_bytes(m, k + 1), kernel.scratch_bytes(m, k)) << "m " << m << " k " << k;
    }
  }
}

inline std::string TestName(const testing::TestParamInfo<GemmKernel> &info) {
  std::string name = info.param.name;
  for (char &c : name) {
    if (!isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

inline bool Runs(const GemmKernel &kernel) { return (kernel.needs & ~test::HostFeatures()) == 0; }

}  // namespace acorn::channel_gemm
