// gemm_s8_w4g: every variant of this machine against the formula and against scalar, on exact buffers between unreadable pages.
#include "kernels/gemm_s8_w4g/kernel.h"

#include "tests/kernels/grouped_gemm.h"

namespace acorn {
namespace {

const grouped_gemm::Family kFamily = {{WeightFormat::kW4G32, WeightFormat::kW4G64, WeightFormat::kW4G128},
                                      {gemm_s8_w4g::Kernels().begin(), gemm_s8_w4g::Kernels().end()}};

class GemmS8W4g : public testing::TestWithParam<GemmKernel> {
 protected:
  void SetUp() override {
    if (!grouped_gemm::Runs(GetParam())) GTEST_SKIP() << "this machine lacks what " << GetParam().name << " needs";
  }
};

TEST_P(GemmS8W4g, EqualsFormula) { grouped_gemm::CheckAgainstFormula(kFamily, GetParam()); }
TEST_P(GemmS8W4g, EqualsScalar) { grouped_gemm::CheckAgainstScalar(kFamily, GetParam()); }
TEST_P(GemmS8W4g, AnyRangeOfTiles) { grouped_gemm::CheckRanges(kFamily, GetParam()); }
TEST_P(GemmS8W4g, FirstGroupsOnly) { grouped_gemm::CheckDepths(kFamily, GetParam()); }
TEST_P(GemmS8W4g, RunsSideBySide) { grouped_gemm::CheckRuns(kFamily, GetParam()); }
TEST_P(GemmS8W4g, WhatWasMadeOfTheInputServesAgain) { grouped_gemm::CheckPrepared(kFamily, GetParam()); }
TEST_P(GemmS8W4g, ReadsNothingBeforeItsBuffers) { grouped_gemm::CheckBeginnings(kFamily, GetParam()); }
TEST_P(GemmS8W4g, ScratchGrowsWithRowsAndDepth) { grouped_gemm::CheckScratch(GetParam()); }

INSTANTIATE_TEST_SUITE_P(Kernels, GemmS8W4g, testing::ValuesIn(gemm_s8_w4g::Kernels().begin(), gemm_s8_w4g::Kernels().end()),
                         grouped_gemm::TestName);

TEST(GemmS8W4gSelect, TakesTheBestThatTheFeaturesAllow) { grouped_gemm::CheckSelection(&gemm_s8_w4g::Select); }

TEST(GemmS8W4gLayout, EveryElementHasItsOwnPlace) { grouped_gemm::CheckPlaces(kFamily); }

}  // namespace
}  // namespace acorn
