// gemm_s8_w4: every variant of this machine against the formula and against scalar, on exact buffers between unreadable pages.
#include "kernels/gemm_s8_w4/kernel.h"

#include "tests/kernels/channel_gemm.h"

namespace acorn {
namespace {

class GemmS8W4 : public testing::TestWithParam<GemmKernel> {
 protected:
  void SetUp() override {
    if (!channel_gemm::Runs(GetParam())) GTEST_SKIP() << "this machine lacks what " << GetParam().name << " needs";
  }
};

TEST_P(GemmS8W4, EqualsFormula) { channel_gemm::CheckAgainstFormula(WeightFormat::kW4, GetParam()); }
TEST_P(GemmS8W4, EqualsScalar) { channel_gemm::CheckAgainstScalar(WeightFormat::kW4, GetParam()); }
TEST_P(GemmS8W4, AnyRangeOfTiles) { channel_gemm::CheckRanges(WeightFormat::kW4, GetParam()); }
TEST_P(GemmS8W4, FirstPanelsOnly) { channel_gemm::CheckDepths(WeightFormat::kW4, GetParam()); }
TEST_P(GemmS8W4, ReadsNothingBeforeItsBuffers) { channel_gemm::CheckBeginnings(WeightFormat::kW4, GetParam()); }
TEST_P(GemmS8W4, ScratchGrows) { channel_gemm::CheckScratch(GetParam()); }

INSTANTIATE_TEST_SUITE_P(Kernels, GemmS8W4, testing::ValuesIn(gemm_s8_w4::Kernels().begin(), gemm_s8_w4::Kernels().end()),
                         channel_gemm::TestName);

TEST(GemmS8W4Select, FollowsFeaturesAndLayout) {
  for (const Layout layout : {Layout::kX16C8, Layout::kX8C8, Layout::kX16C4, Layout::kX16C1}) {
    EXPECT_EQ(gemm_s8_w4::Select(layout, 0)->needs, 0u);
    for (const GemmKernel &kernel : gemm_s8_w4::Kernels()) {
      const GemmKernel *selected = gemm_s8_w4::Select(layout, kernel.needs);
      ASSERT_NE(selected, nullptr);
      EXPECT_EQ(selected->layout, layout);
      EXPECT_EQ(selected->needs & ~kernel.needs, 0u);
    }
  }
  EXPECT_EQ(gemm_s8_w4::Select(Layout::kC4, ~0u), nullptr);
#if defined(__aarch64__)
  const uint32_t i8mm = kFeatureNeon | kFeatureI8mm;
  EXPECT_STRNE(gemm_s8_w4::Select(Layout::kX16C8, i8mm)->name, "6x16c8__i8mm");  // it takes one row with sdot
  EXPECT_STREQ(gemm_s8_w4::Select(Layout::kX16C8, i8mm | kFeatureNeonDot)->name, "6x16c8__i8mm");
#endif
}

}  // namespace
}  // namespace acorn
