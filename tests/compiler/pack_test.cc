// Packed bytes read back element by element through the layouts' own definitions.
#include "pack/pack.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "acorn_schema/layout_xnnpack.h"
#include "tests/compiler/expect_error.h"

namespace acorn::compiler {
namespace {

QuantizedMatrix RandomMatrix(WeightFormat format, int64_t n, int64_t k, uint32_t seed) {
  std::mt19937 random(seed);
  QuantizedMatrix q;
  q.format = format;
  q.n = n;
  q.k = k;
  q.scale.assign(static_cast<size_t>(n), 1.0);
  for (int64_t i = 0; i < n * k; ++i) {
    const auto value = static_cast<int>(random() % 255);
    q.weights.push_back(static_cast<int8_t>(format == WeightFormat::kW8     ? value - 127
                                            : format == WeightFormat::kW2G32 ? 2 * (value % 4) - 3
                                                                             : value % 16 - 8));
  }
  if (q.group() != 0) {
    for (int64_t i = 0; i < n * (k / q.group()); ++i) q.multipliers.push_back(static_cast<uint8_t>(random()));
  }
  return q;
}

uint32_t Word(const std::vector<uint8_t> &bytes, uint64_t offset) {
  uint32_t value = 0;
  for (uint64_t i = 0; i < 4; ++i) value |= uint32_t{bytes[offset + i]} << (8 * i);
  return value;
}

class PackC4 : public testing::TestWithParam<WeightFormat> {};

TEST_P(PackC4, EveryElementAndPadding) {
  const QuantizedMatrix q = RandomMatrix(GetParam(), 21, 256, 1);
  const PackedWeight packed = Pack(q, Layout::kC4);
  const uint64_t n = 21, k = 256;
  const uint32_t group = GroupSize(GetParam());
  ASSERT_EQ(packed.bytes.size(), c4::PackedBytes(GetParam(), n, k));
  EXPECT_EQ(packed.k_panel, 256);
  for (uint64_t channel = 0; channel < 32; ++channel) {
    for (uint64_t i = 0; i < k; ++i) {
      const uint32_t byte = packed.bytes[c4::WeightOffset(GetParam(), channel, i, k)];
      const uint32_t code = byte >> c4::Shift(GetParam(), i) & c4::Mask(GetParam());
      const int32_t padding = GetParam() == WeightFormat::kW2G32 ? -3 : 0;  // multipliers of 0 make nothing of it
      ASSERT_EQ(c4::Decode(GetParam(), code), channel < n ? q.weights[channel * k + i] : padding) << channel << " " << i;
    }
    for (uint64_t g = 0; g < k / group; ++g) {
      ASSERT_EQ(packed.bytes[c4::MultiplierOffset(GetParam(), channel, g, k)],
                channel < n ? q.multipliers[channel * (k / group) + g] : 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Groups, PackC4,
                         testing::Values(WeightFormat::kW4G32, WeightFormat::kW4G64, WeightFormat::kW4G128, WeightFormat::kW2G32));

class PackChannels : public testing::TestWithParam<std::tuple<WeightFormat, Layout, int64_t>> {};

TEST_P(PackChannels, EveryElementSumAndPadding) {
  const auto [format, layout, depth] = GetParam();
  const QuantizedMatrix q = RandomMatrix(format, 19, depth, 2);
  const PackedWeight packed = Pack(q, layout);
  const uint64_t k = static_cast<uint64_t>(depth), k_panel = static_cast<uint64_t>(packed.k_panel);
  const XnnMatrix place{format, layout, 19, k, k_panel};
  ASSERT_EQ(packed.bytes.size(), XnnPackedBytes(place));
  const uint32_t mask = format == WeightFormat::kW4 ? 15 : 255;
  for (uint64_t channel = 0; channel < XnnTiles(layout, 19) * XnnNr(layout); ++channel) {
    std::vector<int32_t> sums(XnnPanels(k, k_panel), 0);
    for (uint64_t i = 0; i < k; ++i) {
      const XnnWeightPlace at = XnnWeight(place, channel, i);
      const int32_t w = XnnDecode(format, layout, uint32_t{packed.bytes[at.offset]} >> at.shift & mask);
      ASSERT_EQ(w, channel < 19 ? q.weight(static_cast<int64_t>(channel), static_cast<int64_t>(i)) : 0) << channel << " " << i;
      sums[i / k_panel] += w;
    }
    for (uint64_t panel = 0; panel < sums.size(); ++panel) {
      EXPECT_EQ(static_cast<int32_t>(Word(packed.bytes, XnnKsumOffset(place, channel, panel))),
                XnnKsum(format, layout, sums[panel]));
      EXPECT_EQ(Word(packed.bytes, XnnScaleOffset(place, channel, panel)), kXnnScale);
      EXPECT_EQ(Word(packed.bytes, XnnBiasOffset(place, channel, panel)), kXnnBias);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PackChannels,
                         testing::Combine(testing::Values(WeightFormat::kW8, WeightFormat::kW4),
                                          testing::Values(Layout::kX16C8, Layout::kX8C8, Layout::kX16C4),
                                          testing::Values(48, 100, 4096)));

INSTANTIATE_TEST_SUITE_P(EightBitsAlone, PackChannels,
                         testing::Combine(testing::Values(WeightFormat::kW8), testing::Values(Layout::kX8C2S4),
                                          testing::Values(48, 99, 4096)));

INSTANTIATE_TEST_SUITE_P(FourBitsAlone, PackChannels,
                         testing::Combine(testing::Values(WeightFormat::kW4), testing::Values(Layout::kX16C1),
                                          testing::Values(48, 99, 4096)));

TEST(Pack, PanelsAppearWhereASumMayLeaveFloat) {
  QuantizedMatrix q = RandomMatrix(WeightFormat::kW8, 2, 4096, 3);
  std::fill(q.weights.begin(), q.weights.end(), int8_t{0});
  EXPECT_EQ(ChoosePanelDepth(q), 4096);
  // 127 * 127 * 1041 is above 2^24, 127 * 127 * 1040 is not.
  std::fill_n(q.weights.begin(), 1040, int8_t{-127});
  EXPECT_EQ(ChoosePanelDepth(q), 4096);
  q.weights[1040] = 127;
  const int64_t depth = ChoosePanelDepth(q);
  EXPECT_LT(depth, 1041);
  EXPECT_EQ(depth % 16, 0);
  EXPECT_LT(127 * 127 * depth, kXnnSumLimit);
}

TEST(Pack, BoundIsThatOfTheLargestChannel) {
  QuantizedMatrix q = RandomMatrix(WeightFormat::kW4G32, 3, 64, 4);
  int64_t largest = 0;
  for (int64_t channel = 0; channel < 3; ++channel) {
    int64_t sum = 0;
    for (int64_t i = 0; i < 64; ++i)
      sum += std::abs(int{q.weights[static_cast<size_t>(channel * 64 + i)]}) *
             q.multipliers[static_cast<size_t>(channel * 2 + i / 32)];
    EXPECT_EQ(q.AbsoluteSum(channel), sum);
    largest = std::max(largest, sum);
  }
  EXPECT_EQ(Pack(q, Layout::kC4).acc_bound, static_cast<uint64_t>(127 * largest));
}

TEST(Pack, RefusesWhatCannotBeHeld) {
  EXPECT_THROW(Pack(RandomMatrix(WeightFormat::kW8, 1, 32, 5), Layout::kC4), Error);
  EXPECT_THROW(Pack(RandomMatrix(WeightFormat::kW4G32, 1, 32, 5), Layout::kX16C8), Error);
  EXPECT_THROW(Pack(RandomMatrix(WeightFormat::kW8, 1, 32, 5), Layout::kX16C1), Error);
  EXPECT_THROW(Pack(RandomMatrix(WeightFormat::kW4, 1, 32, 5), Layout::kX8C2S4), Error);
  QuantizedMatrix q = RandomMatrix(WeightFormat::kW4G32, 1, 32 * 300, 6);
  std::fill(q.weights.begin(), q.weights.end(), int8_t{-8});
  std::fill(q.multipliers.begin(), q.multipliers.end(), uint8_t{255});
  EXPECT_THROW(Pack(q, Layout::kC4), Error);  // 9600 * 8 * 255 * 127 > 2^31
}

}  // namespace
}  // namespace acorn::compiler
