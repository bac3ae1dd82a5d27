// What the tests of gemm_s8_w4g and gemm_s8_w2g share: scalar against the formula read through layout.h, every variant of this
// machine against scalar, on exact buffers between unreadable pages.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "acorn_schema/layout.h"
#include "kernels/gemm.h"
#include "platform/features.h"
#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn::grouped_gemm {

using test::Guard;
using test::GuardedBuffer;

inline constexpr int32_t kUntouched = 0x5a5a5a5a;

enum class Values { kRandom, kLargest, kSmallest, kAlternating };

struct Problem {
  size_t m, n, k;
  WeightFormat format;
  Values values;
  size_t used_k = 0;  // the first columns; 0: all
  size_t depth() const { return used_k == 0 ? k : used_k; }
  uint32_t group() const { return GroupSize(format); }
};

/// A family: its formats and its variants.
struct Family {
  std::vector<WeightFormat> formats;
  std::vector<GemmKernel> kernels;
};

inline std::string Describe(const Problem &p) {
  return "m " + std::to_string(p.m) + " n " + std::to_string(p.n) + " k " + std::to_string(p.depth()) + "/" + std::to_string(p.k) +
         " format " + std::to_string(static_cast<int>(p.format)) + " values " + std::to_string(static_cast<int>(p.values)) + " seed 7";
}

// A matrix and rows of a problem; the weights also as plain numbers.
struct Data {
  explicit Data(const Problem &p)
      : x_stride(p.depth() + 5),
        x((p.m - 1) * x_stride + p.depth()),
        packed(c4::PackedBytes(p.format, p.n, p.k)),
        weights(p.n * p.k),
        multipliers(p.n * (p.k / p.group())) {
    std::mt19937 random(7);
    for (size_t m = 0; m < p.m; ++m) {
      for (size_t i = 0; i < p.depth(); ++i) x[m * x_stride + i] = static_cast<int8_t>(X(p, random, i));
    }
    std::memset(packed.data(), 0, packed.size());
    for (size_t t = 0; t < c4::Tiles(p.n); ++t) {  // padding as the packer leaves it
      const size_t tile_bytes = c4::TileBytes(p.format, p.k), header_bytes = c4::HeaderBytes(p.k, p.group());
      std::memset(packed.data() + t * tile_bytes + header_bytes, c4::PaddingByte(p.format), tile_bytes - header_bytes);
    }
    for (size_t n = 0; n < p.n; ++n) {
      for (size_t i = 0; i < p.k; ++i) {
        const int w = W(p, random, i);
        weights[n * p.k + i] = w;
        uint8_t &byte = packed[c4::WeightOffset(p.format, n, i, p.k)];
        const uint32_t shift = c4::Shift(p.format, i);
        byte = static_cast<uint8_t>((byte & ~(c4::Mask(p.format) << shift)) | c4::Encode(p.format, w) << shift);
      }
      for (size_t g = 0; g < p.k / p.group(); ++g) {
        const uint8_t multiplier = p.values == Values::kRandom ? static_cast<uint8_t>(random() % 256) : 255;
        multipliers[n * (p.k / p.group()) + g] = multiplier;
        packed[c4::MultiplierOffset(p.format, n, g, p.k)] = multiplier;
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
    const bool two_bits = WeightBits(p.format) == 2;
    const int low = two_bits ? -3 : -8, high = two_bits ? 3 : 7;
    switch (p.values) {
      case Values::kRandom:
        return two_bits ? 2 * static_cast<int>(random() % 4) - 3 : static_cast<int>(random() % 16) - 8;
      case Values::kLargest:
      case Values::kSmallest:
        return low;
      default:
        return i % 2 == 0 ? low : high;
    }
  }

  size_t x_stride;
  GuardedBuffer<int8_t> x;
  GuardedBuffer<uint8_t> packed;  // a multiple of 64 bytes: ends at the guard and is aligned
  std::vector<int> weights;
  std::vector<int> multipliers;
};

inline std::vector<int32_t> RunKernel(const GemmKernel &kernel, const Problem &p, const Data &data, size_t n_begin, size_t n_end) {
  const size_t width = n_end - n_begin, stride = width + 3;
  GuardedBuffer<int32_t> acc((p.m - 1) * stride + width);
  for (int32_t &value : acc) value = kUntouched;
  const size_t scratch_bytes = (kernel.scratch_bytes(p.m, p.depth()) + 63) / 64 * 64;
  GuardedBuffer<uint8_t> scratch(scratch_bytes);
  std::memset(scratch.data(), 0xa5, scratch.size());
  const GemmArgs args = {data.x.data(), data.x_stride, data.packed.data(), p.m,        p.depth(), p.k,           p.group(), 0,
                         n_begin,       n_end,         p.n,                acc.data(), stride,    scratch.data()};
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
inline std::vector<int32_t> Formula(const Problem &p, const Data &data, size_t n_begin, size_t n_end) {
  std::vector<int32_t> result;
  const size_t groups = p.k / p.group();
  for (size_t m = 0; m < p.m; ++m) {
    for (size_t n = n_begin; n < n_end; ++n) {
      int64_t sum = 0;
      for (size_t i = 0; i < p.depth() && n < p.n; ++i) {
        sum += int64_t{data.multipliers[n * groups + i / p.group()]} * data.x[m * data.x_stride + i] * data.weights[n * p.k + i];
      }
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

inline std::vector<Problem> Problems(const Family &family, const GemmKernel &kernel) {
  const size_t mr = kernel.mr;
  std::vector<Problem> problems;
  for (const WeightFormat format : family.formats) {
    const size_t group = GroupSize(format);
    for (size_t k : {group, group * 3, size_t{640}, size_t{768}, size_t{1152}}) {
      for (size_t m : {size_t{1}, size_t{2}, size_t{3}, mr - 1, mr, mr + 1, 2 * mr + 1, 3 * mr + 1, size_t{37}}) {
        if (m == 0) continue;
        for (size_t n : {1, 15, 16, 17, 31, 53, 128, 151}) {
          if (k > 640 && n != 53) continue;
          problems.push_back({m, n, k, format, Values::kRandom});
        }
      }
      for (Values values : {Values::kLargest, Values::kSmallest, Values::kAlternating}) {
        for (size_t m : {size_t{1}, size_t{2}, mr, 3 * mr + 2}) problems.push_back({m, 33, k, format, values});
      }
    }
  }
  return problems;
}

inline bool Runs(const GemmKernel &kernel) { return (kernel.needs & ~test::HostFeatures()) == 0; }

inline std::string TestName(const testing::TestParamInfo<GemmKernel> &param_info) {
  return "k" + std::string(param_info.param.name);
}

inline void CheckAgainstFormula(const Family &family, const GemmKernel &kernel) {
  for (const Problem &p : Problems(family, kernel)) {
    const Data data(p);
    ExpectEqual(RunKernel(kernel, p, data, 0, p.n), Formula(p, data, 0, p.n), p.n, Describe(p));
    if (testing::Test::HasFatalFailure()) return;
  }
}

inline void CheckAgainstScalar(const Family &family, const GemmKernel &kernel) {
  const GemmKernel &scalar = family.kernels.back();
  const auto format = [&](size_t i) { return family.formats[i % family.formats.size()]; };
  for (const Problem &p : {Problem{1, 4096, 576, format(0), Values::kRandom}, Problem{2, 1013, 1536, format(1), Values::kRandom},
                           Problem{128, 83, 1536, format(0), Values::kRandom}, Problem{509, 48, 640, format(2), Values::kRandom}}) {
    const Data data(p);
    ExpectEqual(RunKernel(kernel, p, data, 0, p.n), RunKernel(scalar, p, data, 0, p.n), p.n, Describe(p));
    if (testing::Test::HasFatalFailure()) return;
  }
}

inline void CheckRanges(const Family &family, const GemmKernel &kernel) {
  for (size_t m : {1, 2, 5, 40}) {
    const Problem p = {m, 150, 320, family.formats[family.formats.size() / 2], Values::kRandom};
    const Data data(p);
    for (size_t begin = 0; begin < p.n; begin += kernel.nr) {
      for (size_t end : {begin + 1, begin + 16, begin + 40, size_t{149}, size_t{160}}) {  // 160: the padded width
        if (end <= begin || end > 160) continue;
        ExpectEqual(RunKernel(kernel, p, data, begin, end), Formula(p, data, begin, end), end - begin,
                    Describe(p) + " range " + std::to_string(begin) + " " + std::to_string(end));
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

/// The first columns of a matrix give the sums of a matrix that has no others, whatever rows and channels there are.
inline void CheckDepths(const Family &family, const GemmKernel &kernel) {
  const size_t mr = kernel.mr;
  for (const WeightFormat format : family.formats) {
    const size_t group = GroupSize(format);
    for (size_t k : {group * 2, size_t{640}, size_t{1152}}) {
      for (size_t used : {group, k / 2 / group * group, k - group}) {
        for (size_t m : {size_t{1}, size_t{2}, size_t{3}, mr + 1, 3 * mr + 1, size_t{37}}) {
          for (size_t n : {1, 17, 151}) {
            const Problem p = {m, n, k, format, Values::kRandom, used};
            const Data data(p);
            ExpectEqual(RunKernel(kernel, p, data, 0, p.n), Formula(p, data, 0, p.n), p.n, Describe(p));
            if (testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

/// Runs of channels give the sums of each on its own, side by side.
inline void CheckRuns(const Family &family, const GemmKernel &kernel) {
  struct Comb {
    size_t begin, channels, runs, step;
  };
  for (const Comb &c : {Comb{0, 16, 5, 48}, Comb{16, 48, 3, 64}, Comb{32, 32, 2, 32}, Comb{0, 64, 3, 80}, Comb{48, 16, 9, 16}}) {
    for (size_t m : {size_t{1}, size_t{2}, size_t{3}, size_t{kernel.mr} + 1, size_t{37}}) {
      const Problem p = {m, 250, 640, family.formats[0], Values::kRandom, 608};
      const Data data(p);
      const size_t width = c.channels * c.runs;
      GuardedBuffer<int32_t> acc(m * width);
      GuardedBuffer<uint8_t> scratch((kernel.scratch_bytes(m, p.depth()) + 63) / 64 * 64);
      GemmArgs args = {data.x.data(), data.x_stride, data.packed.data(), m, p.depth(), p.k, p.group(), 0,
                       c.begin, c.begin + c.channels, p.n, acc.data(), width, scratch.data()};
      args.runs = c.runs;
      args.run_step = c.step;
      kernel.run(args);
      for (size_t run = 0; run < c.runs; ++run) {
        const size_t begin = c.begin + run * c.step;
        const std::vector<int32_t> want = Formula(p, data, begin, begin + c.channels);
        for (size_t i = 0; i < want.size(); ++i) {
          const size_t row = i / c.channels, channel = i % c.channels;
          ASSERT_EQ(acc[row * width + run * c.channels + channel], want[i])
              << Describe(p) << " run " << run << " of " << c.channels << " row " << row << " channel " << channel;
        }
      }
    }
  }
}

/// What a call has made of x serves the next one, of other channels.
inline void CheckPrepared(const Family &family, const GemmKernel &kernel) {
  for (const size_t k : {size_t{320}, size_t{640}, size_t{1152}}) {
    for (size_t m : {size_t{1}, size_t{2}, size_t{3}, size_t{kernel.mr} + 1, size_t{37}, size_t{128}, size_t{250}}) {
      const Problem p = {m, 150, k, family.formats[0], Values::kRandom};
      const Data data(p);
      GuardedBuffer<uint8_t> scratch((kernel.scratch_bytes(m, k) + 63) / 64 * 64);
      bool prepared = false;
      for (const auto &[begin, end] : {std::pair<size_t, size_t>{0, 48}, {48, 149}, {16, 32}}) {
        const size_t width = end - begin;
        GuardedBuffer<int32_t> acc(m * width);
        GemmArgs args = {data.x.data(), data.x_stride, data.packed.data(), m,   p.depth(),  p.k,   p.group(),     0,
                         begin,         end,           p.n,                acc.data(), width, scratch.data()};
        args.prepared = prepared;
        kernel.run(args);
        ExpectEqual(std::vector<int32_t>(acc.begin(), acc.end()), Formula(p, data, begin, end), width, Describe(p));
        if (testing::Test::HasFatalFailure()) return;
        prepared = true;
      }
    }
  }
}

/// What comes before x and the weights, where the guard is, is not read either.
inline void CheckBeginnings(const Family &family, const GemmKernel &kernel) {
  const Problem p = {7, 33, 128, family.formats[0], Values::kRandom};
  Data data(p);
  GuardedBuffer<int8_t> x(data.x.size(), Guard::kBegin);
  std::memcpy(x.data(), data.x.data(), x.size());
  GuardedBuffer<uint8_t> packed(data.packed.size(), Guard::kBegin);
  std::memcpy(packed.data(), data.packed.data(), packed.size());
  GuardedBuffer<int32_t> acc(p.m * p.n, Guard::kBegin);
  GuardedBuffer<uint8_t> scratch(kernel.scratch_bytes(p.m, p.k), Guard::kBegin);
  kernel.run({x.data(), data.x_stride, packed.data(), p.m, p.k, p.k, p.group(), 0, 0, p.n, p.n, acc.data(), p.n, scratch.data()});
  ExpectEqual(std::vector<int32_t>(acc.begin(), acc.end()), Formula(p, data, 0, p.n), p.n, Describe(p));
}

inline void CheckScratch(const GemmKernel &kernel) {
  for (size_t k = 32; k < 5000; k += 32) {
    EXPECT_GE(kernel.scratch_bytes(1, k + 32), kernel.scratch_bytes(1, k));
    EXPECT_GE(kernel.scratch_bytes(17, k), kernel.scratch_bytes(1, k));
    EXPECT_GE(kernel.scratch_bytes(5000, k), kernel.scratch_bytes(17, k));
  }
}

/// The best variant that the features allow is selected.
template <typename Select>
void CheckSelection(const Select &select) {
  EXPECT_STREQ(select(0)->name, "1x16c4__scalar");
#if defined(__x86_64__)
  EXPECT_STREQ(select(kFeatureAvx2)->name, "3x16c4__avx2");
  EXPECT_STREQ(select(kFeatureAvx2 | kFeatureAvxVnni)->name, "3x16c4__avxvnni");
  EXPECT_STREQ(select(kFeatureAvx2 | kFeatureAvx512Vnni)->name, "6x16c4__avx512vnni");
  EXPECT_STREQ(select(kFeatureAvx2 | kFeatureAvxVnni | kFeatureAvx512Vnni | kFeatureGfni)->name, "6x16c4__avx512vnni_gfni");
  EXPECT_STREQ(select(kFeatureGfni)->name, "1x16c4__scalar");
#elif defined(__aarch64__)
  EXPECT_STREQ(select(kFeatureNeon)->name, "2x16c4__neon");
  EXPECT_STREQ(select(kFeatureNeon | kFeatureNeonDot)->name, "3x16c4__neondot");
  EXPECT_STREQ(select(kFeatureNeon | kFeatureI8mm)->name, "2x16c4__neon");  // i8mm streams with sdot
  EXPECT_STREQ(select(kFeatureNeon | kFeatureNeonDot | kFeatureI8mm)->name, "8x16c8__i8mm");
#endif
}

/// Every bit of a packed matrix is one weight's, one multiplier's or padding.
inline void CheckPlaces(const Family &family) {
  for (const WeightFormat format : family.formats) {
    const size_t n = 35, k = 384;
    const uint32_t group = GroupSize(format);
    std::vector<uint32_t> used(c4::PackedBytes(format, n, k), 0);
    for (size_t channel = 0; channel < n; ++channel) {
      for (size_t i = 0; i < k; ++i) {
        const uint64_t offset = c4::WeightOffset(format, channel, i, k);
        ASSERT_LT(offset, used.size());
        const uint32_t bits = c4::Mask(format) << c4::Shift(format, i);
        ASSERT_LT(bits, 256u);
        ASSERT_EQ(used[offset] & bits, 0u);
        used[offset] |= bits;
      }
      for (size_t g = 0; g < k / group; ++g) {
        const uint64_t offset = c4::MultiplierOffset(format, channel, g, k);
        ASSERT_LT(offset, used.size());
        ASSERT_EQ(used[offset], 0u);
        used[offset] = 255;
      }
    }
    EXPECT_EQ(c4::TileBytes(format, k) % 64, 0u);
  }
}

}  // namespace acorn::grouped_gemm
