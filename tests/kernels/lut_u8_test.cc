// lut_u8: every variant of this machine against the formula, on exact buffers between unreadable pages.
#include "kernels/lut_u8/kernel.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/support/guarded_buffer.h"
#include "tests/support/host_features.h"

namespace acorn {
namespace {

using test::Guard;
using test::GuardedBuffer;

TEST(LutU8, EqualsFormula) {
  std::mt19937 random(3);
  GuardedBuffer<uint8_t> table(256);
  for (uint8_t &value : table) value = static_cast<uint8_t>(random());
  std::vector<size_t> sizes = {511, 512, 513, 1536, 4099};
  for (size_t n = 0; n <= 260; ++n) sizes.push_back(n);
  for (const lut_u8::Kernel &kernel : lut_u8::Kernels()) {
    if ((kernel.needs & ~test::HostFeatures()) != 0) continue;
    for (const Guard guard : {Guard::kEnd, Guard::kBegin}) {
      for (const size_t n : sizes) {
        GuardedBuffer<uint8_t> x(n, guard), y(n, guard);
        for (size_t i = 0; i < n; ++i) x[i] = static_cast<uint8_t>(n < 256 ? random() : i);
        std::vector<uint8_t> want(n);
        for (size_t i = 0; i < n; ++i) want[i] = table[x[i]];
        kernel.run({y.data(), x.data(), table.data(), n});
        ASSERT_EQ(std::vector<uint8_t>(y.begin(), y.end()), want) << kernel.name << " n " << n;
        kernel.run({x.data(), x.data(), table.data(), n});
        ASSERT_EQ(std::vector<uint8_t>(x.begin(), x.end()), want) << kernel.name << " in place, n " << n;
      }
    }
  }
}

TEST(LutU8, SelectsByFeatures) {
  EXPECT_EQ(lut_u8::Select(0)->needs, 0u);
  for (const lut_u8::Kernel &kernel : lut_u8::Kernels()) EXPECT_EQ(lut_u8::Select(kernel.needs)->needs & ~kernel.needs, 0u);
}

}  // namespace
}  // namespace acorn
