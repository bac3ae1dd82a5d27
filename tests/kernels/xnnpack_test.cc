// XNNPACK's microkernels as exact integer engines: float32 holds every sum below 2^24, so up to the last one the bound kernels
// must give the integer, at both ends of the range, for every row and channel of a tile. Skipped in a build without the archive.
#include "tests/kernels/channel_gemm.h"

#include "kernels/gemm_s8_w4/kernel.h"
#include "kernels/gemm_s8_w8/kernel.h"

namespace acorn {
namespace {

using channel_gemm::Data;
using channel_gemm::Problem;
using channel_gemm::Values;

struct Bound {
  WeightFormat format;
  GemmKernel kernel;
};

std::vector<Bound> BoundKernels() {
  std::vector<Bound> bound;
  for (const GemmKernel &kernel : gemm_s8_w8::Kernels()) {
    if (std::strstr(kernel.name, "xnnpack") != nullptr && channel_gemm::Runs(kernel)) bound.push_back({WeightFormat::kW8, kernel});
  }
  for (const GemmKernel &kernel : gemm_s8_w4::Kernels()) {
    if (std::strstr(kernel.name, "xnnpack") != nullptr && channel_gemm::Runs(kernel)) bound.push_back({WeightFormat::kW4, kernel});
  }
  return bound;
}

// Scales the random weights of a channel so that the sum of its products with the row 0 of x is exactly `target`:
// all products at their largest with the target's sign, then the surplus taken out weight by weight.
void Aim(Data *data, const Problem &p, size_t n, int64_t target) {
  const int high = data->matrix.format == WeightFormat::kW8 ? 127 : 7;
  int64_t sum = 0;
  for (size_t i = 0; i < p.k; ++i) {
    const int sign = (data->x[i] > 0) == (target > 0) ? 1 : -1;
    data->weights[n * p.k + i] = sign * high;
    sum += int64_t{data->x[i]} * sign * high;
  }
  for (size_t i = 0; i < p.k && sum != target; ++i) {
    int &w = data->weights[n * p.k + i];
    while (w != 0) {
      const int step = w > 0 ? -1 : 1;
      const int64_t next = sum + int64_t{data->x[i]} * step;
      if (target > 0 ? next < target : next > target) break;
      w += step;
      sum = next;
    }
  }
}

TEST(Xnnpack, ExactUpToTheLimit) {
  const std::vector<Bound> bound = BoundKernels();
  if (bound.empty()) GTEST_SKIP() << "no microkernel of XNNPACK in this build, or none that this machine runs";
  for (const auto &[format, kernel] : bound) {
    // Deep enough for sums of 2^24 - 1; the last values of x are 1, so that the surplus comes out to the last unit.
    const size_t k = format == WeightFormat::kW8 ? 1248 : 19200;
    for (const size_t m : {size_t{1}, size_t{kernel.mr}, size_t{kernel.mr} + 1}) {
      const Problem p = {m, size_t{3} * kernel.nr, k, 0, Values::kRandom};
      Data data(format, kernel.layout, p);
      std::mt19937 random(5);
      for (size_t row = 0; row < m; ++row) {  // all rows alike, so that each is tried at the limit
        for (size_t i = 0; i < k; ++i) {
          int8_t &x = data.x[row * data.x_stride + i];
          x = row > 0 ? data.x[i] : static_cast<int8_t>((random() % 2 == 0 ? 1 : -1) * (i + 200 < k ? 127 : 1));
        }
      }
      std::vector<int64_t> targets;
      for (size_t n = 0; n < p.n; ++n) {
        const int64_t distance = static_cast<int64_t>(n / 2);
        targets.push_back(n % 2 == 0 ? kXnnSumLimit - 1 - distance : -(kXnnSumLimit - 1 - distance));
        Aim(&data, p, n, targets.back());
      }
      data.Pack();
      const std::vector<int32_t> acc = channel_gemm::RunKernel(kernel, p, data, 0, p.n);
      for (size_t row = 0; row < m; ++row) {
        for (size_t n = 0; n < p.n; ++n) {
          ASSERT_EQ(acc[row * p.n + n], targets[n]) << kernel.name << " m " << m << " row " << row << " channel " << n;
        }
      }
    }
  }
}

// Beyond the limit of one panel the panels' integers are added, in s32.
TEST(Xnnpack, PanelsGoBeyondTheLimit) {
  const std::vector<Bound> bound = BoundKernels();
  if (bound.empty()) GTEST_SKIP() << "no microkernel of XNNPACK in this build, or none that this machine runs";
  for (const auto &[format, kernel] : bound) {
    const size_t k_panel = format == WeightFormat::kW8 ? 1040 : 16512;
    const Problem p = {size_t{kernel.mr} + 1, size_t{2} * kernel.nr + 1, 3 * k_panel + 21, k_panel, Values::kLargest};
    const Data data(format, kernel.layout, p);
    const std::vector<int32_t> want = channel_gemm::Formula(p, data, 0, p.n);
    ASSERT_GT(std::abs(int64_t{want[0]}), kXnnSumLimit);
    channel_gemm::ExpectEqual(channel_gemm::RunKernel(kernel, p, data, 0, p.n), want, p.n, kernel.name);
  }
}

TEST(Xnnpack, EveryInstructionSetOfThisMachineIsServed) {
  const std::vector<Bound> bound = BoundKernels();
  if (bound.empty()) GTEST_SKIP() << "no microkernel of XNNPACK in this build, or none that this machine runs";
  for (const uint32_t feature : {kFeatureAvx2, kFeatureAvx512Vnni, kFeatureNeon, kFeatureNeonDot, kFeatureI8mm}) {
    if ((feature & test::HostFeatures()) == 0) continue;
    for (const WeightFormat format : {WeightFormat::kW8, WeightFormat::kW4}) {
      EXPECT_TRUE(std::any_of(bound.begin(), bound.end(), [&](const Bound &b) { return b.format == format && b.kernel.needs == feature; }))
          << "feature " << feature << " format " << static_cast<int>(format);
    }
  }
}

}  // namespace
}  // namespace acorn
