// SelectGemm: every legal pair of format and layout has a kernel with any features, and no other pair has.
#include <gtest/gtest.h>

#include "kernels/gemm.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::kW8, WeightFormat::kW4, WeightFormat::kW4G32, WeightFormat::kW4G64,
                                     WeightFormat::kW4G128, WeightFormat::kW2G32};
constexpr Layout kLayouts[] = {Layout::kX16C8, Layout::kX8C8,  Layout::kC4,
                               Layout::kX16C4, Layout::kX16C1, Layout::kX8C2S4};

TEST(SelectGemm, NullExactlyWhereTheLayoutCannotHoldTheFormat) {
  for (const uint32_t features : {uint32_t{0}, uint32_t{kFeatureAvx2}, test::HostFeatures(), ~uint32_t{0}}) {
    for (const WeightFormat format : kFormats) {
      for (const Layout layout : kLayouts) {
        const GemmKernel *kernel = SelectGemm(format, layout, features);
        ASSERT_EQ(kernel != nullptr, LayoutHolds(layout, format))
            << static_cast<int>(format) << " " << static_cast<int>(layout);
        if (kernel == nullptr) continue;
        EXPECT_EQ(kernel->layout, layout);
        EXPECT_EQ(kernel->needs & ~features, 0u) << kernel->name;
      }
    }
  }
}

}  // namespace
}  // namespace acorn
