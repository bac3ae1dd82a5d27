// gemm_s8_w4g: scalar against the formula read through layout.h, every variant of this machine against scalar, on exact buffers
// between unreadable pages.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "acorn_schema/layout.h"
#include "kernels/gemm_s8_w4g/kernel.h"
#include "platform/features.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

using test::Guard;
using test::GuardedBuffer;

constexpr int32_t kUntouched = 0x5a5a5a5a;

enum class Values { kRandom, kLargest, kSmallest, kAlternating };

struct Problem {
  size_t m, n, k;
  uint32_t group;
  Values values;
};

std::string Describe(const Problem &p) {
  return "m " + std::to_string(p.m) + " n " + std::to_string(p.n) + " k " + std::to_string(p.k) + " group " +
         std::to_string(p.group) + " values " + std::to_string(static_cast<int>(p.values)) + " seed 7";
}

// A matrix and rows of a problem; the weights also as plain numbers.
struct Data {
  explicit Data(const Problem &p)
      : x_stride(p.k + 5),
        x((p.m - 1) * x_stride + p.k),
        packed(c4::PackedBytes(p.n, p.k, p.group)),
        weights(p.n * p.k),
        multipliers(p.n * (p.k / p.group)) {
    std::mt19937 random(7);
    for (size_t m = 0; m < p.m; ++m) {
      for (size_t i = 0; i < p.k; ++i) x[m * x_stride + i] = static_cast<int8_t>(X(p, random, i));
    }
    std::memset(packed.data(), 0, packed.size());
    for (size_t t = 0; t < c4::Tiles(p.n); ++t) {  // padding as the packer leaves it
      std::memset(packed.data() + t * c4::TileBytes(p.k, p.group) + c4::HeaderBytes(p.k, p.group), c4::kZeroByte, p.k * 8);
    }
    for (size_t n = 0; n < p.n; ++n) {
      for (size_t i = 0; i < p.k; ++i) {
        const int w = W(p, random, i);
        weights[n * p.k + i] = w;
        uint8_t &byte = packed[c4::WeightOffset(n, i, p.k, p.group)];
        const int shift = c4::NibbleShift(i);
        byte = static_cast<uint8_t>((byte & ~(15 << shift)) | ((w + 8) << shift));
      }
      for (size_t g = 0; g < p.k / p.group; ++g) {
        const uint8_t multiplier = p.values == Values::kRandom ? static_cast<uint8_t>(random() % 256) : 255;
        multipliers[n * (p.k / p.group) + g] = multiplier;
        packed[c4::MultiplierOffset(n, g, p.k, p.group)] = multiplier;
      }
    }
  }

  static int X(const Problem &p, std::mt19937 &random, size_t i) {
    switch (p.values) {
      case Values::kRandom:
        return static_cast<int>(random() % 255) - 127;
      case Values::kLargest:
        return -127;
      case Values::kSmallest:
        return 127;
      default:
        return i % 2 == 0 ? 127 : -127;
    }
  }
  static int W(const Problem &p, std::mt19937 &random, size_t i) {
    switch (p.values) {
      case Values::kRandom:
        return static_cast<int>(random() % 16) - 8;
      case Values::kLargest:
      case Values::kSmallest:
        return -8;
      default:
        return i % 2 == 0 ? -8 : 7;
    }
  }

  size_t x_stride;
  GuardedBuffer<int8_t> x;
  GuardedBuffer<uint8_t> packed;  // a multiple of 64 bytes: ends at the guard and is aligned
  std::vector<int> weights;
  std::vector<int> multipliers;
};

std::vector<int32_t> RunKernel(const GemmKernel &kernel, const Problem &p, const Data &data, size_t n_begin, size_t n_end) {
  const size_t width = n_end - n_begin, stride = width + 3;
  GuardedBuffer<int32_t> acc((p.m - 1) * stride + width);
  for (int32_t &value : acc) value = kUntouched;
  const size_t scratch_bytes = (kernel.scratch_bytes(p.m, p.k) + 63) / 64 * 64;
  GuardedBuffer<uint8_t> scratch(scratch_bytes);
  std::memset(scratch.data(), 0xa5, scratch.size());
  const GemmArgs args = {data.x.data(), data.x_stride, data.packed.data(), p.m,    p.k,           p.group, 0, n_begin,
                         n_end,         p.n,           acc.data(),         stride, scratch.data()};
  kernel.run(args);
  std::vector<int32_t> result;
  for (size_t m = 0; m < p.m; ++m) {
    for (size_t n = 0; n < width; ++n) result.push_back(acc[m * stride + n]);
    for (size_t n = width; n < stride && m + 1 < p.m; ++n)
      EXPECT_EQ(acc[m * stride + n], kUntouched) << "row " << m << " gap " << n;
  }
  return result;
}

// The formula of kernels/gemm.h.
std::vector<int32_t> Formula(const Problem &p, const Data &data, size_t n_begin, size_t n_end) {
  std::vector<int32_t> result;
  const size_t groups = p.k / p.group;
  for (size_t m = 0; m < p.m; ++m) {
    for (size_t n = n_begin; n < n_end; ++n) {
      int64_t sum = 0;
      for (size_t i = 0; i < p.k && n < p.n; ++i) {
        sum += int64_t{data.multipliers[n * groups + i / p.group]} * data.x[m * data.x_stride + i] * data.weights[n * p.k + i];
      }
      EXPECT_EQ(sum, static_cast<int32_t>(sum)) << "the problem breaks the compiler's bound";
      result.push_back(static_cast<int32_t>(sum));
    }
  }
  return result;
}

void ExpectEqual(const std::vector<int32_t> &got, const std::vector<int32_t> &want, size_t width, const std::string &what) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i], want[i]) << what << ": row " << i / width << " channel " << i % width;
  }
}

std::vector<Problem> Problems(const GemmKernel &kernel) {
  const size_t mr = kernel.mr;
  std::vector<Problem> problems;
  for (uint32_t group : {32u, 64u, 128u}) {
    for (size_t k : {size_t{group}, size_t{group} * 3, size_t{640}, size_t{1152}}) {
      for (size_t m : {size_t{1}, size_t{2}, size_t{3}, mr - 1, mr, mr + 1, 2 * mr + 1, 3 * mr + 1, size_t{37}}) {
        if (m == 0) continue;
        for (size_t n : {1, 15, 16, 17, 31, 53, 128, 151}) {
          if (k == 1152 && n != 53) continue;
          problems.push_back({m, n, k, group, Values::kRandom});
        }
      }
      for (Values values : {Values::kLargest, Values::kSmallest, Values::kAlternating}) {
        for (size_t m : {size_t{1}, size_t{2}, mr, 3 * mr + 2}) problems.push_back({m, 33, k, group, values});
      }
    }
  }
  return problems;
}

class GemmS8W4g : public testing::TestWithParam<GemmKernel> {
 protected:
  void SetUp() override {
    if ((GetParam().needs & ~test::HostFeatures()) != 0)
      GTEST_SKIP() << "this machine lacks what " << GetParam().name << " needs";
  }
};

TEST_P(GemmS8W4g, EqualsFormula) {
  const GemmKernel &kernel = GetParam();
  for (const Problem &p : Problems(kernel)) {
    const Data data(p);
    ExpectEqual(RunKernel(kernel, p, data, 0, p.n), Formula(p, data, 0, p.n), p.n, Describe(p));
    if (HasFatalFailure()) return;
  }
}

TEST_P(GemmS8W4g, EqualsScalar) {
  const GemmKernel &kernel = GetParam();
  const GemmKernel &scalar = *gemm_s8_w4g::Select(0);
  for (const Problem &p : {Problem{1, 4096, 576, 32, Values::kRandom}, Problem{2, 1013, 1536, 64, Values::kRandom},
                           Problem{128, 83, 1536, 32, Values::kRandom}, Problem{509, 48, 640, 128, Values::kRandom}}) {
    const Data data(p);
    ExpectEqual(RunKernel(kernel, p, data, 0, p.n), RunKernel(scalar, p, data, 0, p.n), p.n, Describe(p));
    if (HasFatalFailure()) return;
  }
}

TEST_P(GemmS8W4g, AnyRangeOfTiles) {
  const GemmKernel &kernel = GetParam();
  for (size_t m : {1, 2, 5, 40}) {
    const Problem p = {m, 150, 320, 64, Values::kRandom};
    const Data data(p);
    for (size_t begin = 0; begin < p.n; begin += kernel.nr) {
      for (size_t end : {begin + 1, begin + 16, begin + 40, size_t{149}, size_t{160}}) {  // 160: the padded width
        if (end <= begin || end > 160) continue;
        ExpectEqual(RunKernel(kernel, p, data, begin, end), Formula(p, data, begin, end), end - begin,
                    Describe(p) + " range " + std::to_string(begin) + " " + std::to_string(end));
        if (HasFatalFailure()) return;
      }
    }
  }
}

// What comes before x and the weights, where the guard is, is not read either.
TEST_P(GemmS8W4g, ReadsNothingBeforeItsBuffers) {
  const GemmKernel &kernel = GetParam();
  const Problem p = {7, 33, 128, 32, Values::kRandom};
  Data data(p);
  GuardedBuffer<int8_t> x(data.x.size(), Guard::kBegin);
  std::memcpy(x.data(), data.x.data(), x.size());
  GuardedBuffer<uint8_t> packed(data.packed.size(), Guard::kBegin);
  std::memcpy(packed.data(), data.packed.data(), packed.size());
  GuardedBuffer<int32_t> acc(p.m * p.n, Guard::kBegin);
  GuardedBuffer<uint8_t> scratch(kernel.scratch_bytes(p.m, p.k), Guard::kBegin);
  kernel.run({x.data(), data.x_stride, packed.data(), p.m, p.k, p.group, 0, 0, p.n, p.n, acc.data(), p.n, scratch.data()});
  ExpectEqual(std::vector<int32_t>(acc.begin(), acc.end()), Formula(p, data, 0, p.n), p.n, Describe(p));
}

TEST_P(GemmS8W4g, ScratchGrowsWithRowsAndDepth) {
  const GemmKernel &kernel = GetParam();
  for (size_t k = 32; k < 5000; k += 32) {
    EXPECT_GE(kernel.scratch_bytes(1, k + 32), kernel.scratch_bytes(1, k));
    EXPECT_GE(kernel.scratch_bytes(17, k), kernel.scratch_bytes(1, k));
    EXPECT_GE(kernel.scratch_bytes(5000, k), kernel.scratch_bytes(17, k));
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, GemmS8W4g,
                         testing::ValuesIn(std::vector<GemmKernel>(gemm_s8_w4g::Kernels().begin(),
                                                                   gemm_s8_w4g::Kernels().end())),
                         [](const auto &param_info) { return "k" + std::string(param_info.param.name); });

TEST(GemmS8W4gSelect, TakesTheBestThatTheFeaturesAllow) {
  EXPECT_STREQ(gemm_s8_w4g::Select(0)->name, "1x16c4__scalar");
#if defined(__x86_64__)
  EXPECT_STREQ(gemm_s8_w4g::Select(kFeatureAvx2)->name, "3x16c4__avx2");
  EXPECT_STREQ(gemm_s8_w4g::Select(kFeatureAvx2 | kFeatureAvxVnni)->name, "3x16c4__avxvnni");
  EXPECT_STREQ(gemm_s8_w4g::Select(kFeatureAvx2 | kFeatureAvx512Vnni)->name, "6x16c4__avx512vnni");
  EXPECT_STREQ(gemm_s8_w4g::Select(kFeatureAvx2 | kFeatureAvxVnni | kFeatureAvx512Vnni | kFeatureGfni)->name,
               "6x16c4__avx512vnni_gfni");
  EXPECT_STREQ(gemm_s8_w4g::Select(kFeatureGfni)->name, "1x16c4__scalar");
#elif defined(__aarch64__)
  EXPECT_STREQ(gemm_s8_w4g::Select(kFeatureNeon)->name, "2x16c4__neon");
  EXPECT_STREQ(gemm_s8_w4g::Select(kFeatureNeon | kFeatureNeonDot)->name, "3x16c4__neondot");
  EXPECT_STREQ(gemm_s8_w4g::Select(kFeatureNeon | kFeatureI8mm)->name, "2x16c4__neon");  // i8mm streams with sdot
  EXPECT_STREQ(gemm_s8_w4g::Select(kFeatureNeon | kFeatureNeonDot | kFeatureI8mm)->name, "8x16c8__i8mm");
#endif
}

TEST(LayoutC4, EveryElementHasItsOwnPlace) {
  for (uint32_t group : {32u, 64u, 128u}) {
    const size_t n = 35, k = 384;
    std::vector<int> used(c4::PackedBytes(n, k, group), 0);
    for (size_t channel = 0; channel < n; ++channel) {
      for (size_t i = 0; i < k; ++i) {
        const uint64_t offset = c4::WeightOffset(channel, i, k, group);
        ASSERT_LT(offset, used.size());
        const int bit = c4::NibbleShift(i) == 0 ? 1 : 2;
        ASSERT_EQ(used[offset] & (bit | 4), 0);
        used[offset] |= bit;
      }
      for (size_t g = 0; g < k / group; ++g) {
        const uint64_t offset = c4::MultiplierOffset(channel, g, k, group);
        ASSERT_LT(offset, used.size());
        ASSERT_EQ(used[offset], 0);
        used[offset] = 4;
      }
    }
    EXPECT_EQ(c4::TileBytes(k, group) % 64, 0u);
  }
}

}  // namespace
}  // namespace acorn
