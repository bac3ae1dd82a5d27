// What no check sees when a file is opened: bounds of sums that weights do not keep, and numbers that only kernels meet. A model
// made of them computes nonsense, inside its buffers, without undefined arithmetic, and the same nonsense in every kernel of our own.
#include "kernels/gemm.h"
#include "kernels/requantise/kernel.h"
#include "tests/evil/evil_file.h"
#include "tests/support/packed_weight.h"
#include "tests/support/thread_port.h"

namespace acorn::test {
namespace {

// Every weight at its most negative, every input too.
WeightMatrix Heavy(WeightKind kind, uint32_t n, uint32_t k) {
  Random random(3);
  WeightMatrix matrix = RandomWeights(kind, n, k, &random);
  const int8_t least = kind.format == WeightFormat::kW8 ? -127 : kind.format == WeightFormat::kW2G32 ? -3 : -8;
  for (int8_t &w : matrix.w) w = least;
  for (uint8_t &multiplier : matrix.multipliers) multiplier = 255;
  return matrix;
}

void ExpectWraps(const WeightMatrix &matrix, uint32_t features) {
  const GemmKernel *kernel = SelectGemm(matrix.kind.format, matrix.kind.layout, features);
  ASSERT_NE(kernel, nullptr);
  constexpr size_t kRows = 3;
  const AlignedBytes weights(Pack(matrix)), x(Bytes(kRows * matrix.k, static_cast<uint8_t>(-127)));
  AlignedBytes scratch(Bytes(kernel->scratch_bytes(kRows, matrix.k) + 64));
  std::vector<int32_t> acc(kRows * matrix.n);
  GemmArgs args = {};
  args.x = reinterpret_cast<const int8_t *>(x.data());
  args.x_stride = args.k = args.k_stored = matrix.k;
  args.w = weights.data();
  args.m = kRows;
  args.group = GroupSize(matrix.kind.format);
  args.k_panel = args.group != 0 ? 0 : matrix.PanelDepth();
  args.n = args.n_end = args.acc_stride = matrix.n;
  args.acc = acc.data();
  args.scratch = scratch.data();
  kernel->run(args);
  const int64_t exact = -127 * matrix.RowSum(0);
  ASSERT_GT(exact, INT32_MAX);
  for (const int32_t sum : acc) ASSERT_EQ(sum, static_cast<int32_t>(static_cast<uint32_t>(exact))) << kernel->name;
}

TEST(EvilLies, SumsWrapInEveryKernel) {
  for (const WeightFormat format : {WeightFormat::kW4G32, WeightFormat::kW4G64, WeightFormat::kW4G128, WeightFormat::kW2G32}) {
    for (const uint32_t features : FeatureLevels()) ExpectWraps(Heavy({format, Layout::kC4}, 16, 32768), features);
  }
  // Sums of 4 bits cannot leave s32 within the depth that a matrix may have.
  for (const Layout layout : {Layout::kX16C8, Layout::kX8C8, Layout::kX16C4, Layout::kX8C2S4}) {
    ExpectWraps(Heavy({WeightFormat::kW8, layout, 1024}, 16, 1 << 18), 0);
  }
}

TEST(EvilLies, ProductsWrapAlike) {
  const std::vector<int32_t> acc = {INT32_MIN, INT32_MAX, INT32_MIN, INT32_MAX, -1, 1, 0, INT32_MIN + 1};
  const std::vector<int32_t> low = {INT32_MIN, INT32_MAX, INT32_MAX, INT32_MIN, -1, 1, 0, 7};
  const std::vector<int32_t> bias = {INT32_MIN + 1, INT32_MAX, INT32_MAX, INT32_MIN + 1, INT32_MAX, INT32_MAX, 5, -1};
  const std::vector<int32_t> multiplier = {INT32_MAX, INT32_MAX, INT32_MAX, 1 << 30, INT32_MAX, 1, INT32_MAX, INT32_MAX};
  // Not at large shifts: a product of two rows beyond 63 bits is no longer clamped there, and Arm's instruction rounds it without the
  // sum that wraps elsewhere (FORMAT.md, "Bounds").
  for (const int32_t shift : {1, 31, 32, 33}) {
    requantise::Args args = {};
    args.acc = acc.data();
    args.acc_low = low.data();
    args.acc_stride = args.y_stride = args.n = acc.size();
    args.m = 1;
    args.bias = bias.data();
    args.multiplier = multiplier.data();
    args.shift = shift;
    for (const auto function : {&requantise::Kernel::s8, &requantise::Kernel::s16, &requantise::Kernel::s32,
                                &requantise::Kernel::two_row_s8, &requantise::Kernel::two_row_s16, &requantise::Kernel::two_row_s32}) {
      std::vector<int32_t> expected(acc.size());
      args.y = expected.data();
      (requantise::Select(0)->*function)(args);
      for (const uint32_t features : FeatureLevels()) {
        std::vector<int32_t> y(acc.size());
        args.y = y.data();
        (requantise::Select(features)->*function)(args);
        EXPECT_EQ(y, expected) << requantise::Select(features)->name << ", shift " << shift;
      }
    }
  }
}

// Constants with flipped bits, under right checksums: refused, or computed with the same bits at every level.
TEST(EvilLies, FlippedConstantsComputeTheSame) {
  const std::vector<int32_t> tokens = {1, 2, 3, 40, 5};
  size_t opened = 0, refused = 0;
  for (const ModelSpec &spec : VariedSpecs()) {
    const AlignedBytes file = BuildModel(spec);
    const schema::Segment constants = *schema::GetModel(file.data() + kHeaderBytes)->segments()->Get(0);
    ASSERT_EQ(constants.kind(), schema::SegmentKind::Constants);
    Random random(spec.seed);
    for (int round = 0; round < 6; ++round) {
      AlignedBytes bad = file;
      for (int flip = 0; flip < 20; ++flip) {
        const auto at = static_cast<uint64_t>(random.Between(0, static_cast<int64_t>(constants.bytes()) - 1));
        bad.data()[constants.offset() + at] ^= static_cast<uint8_t>(1 << random.Between(0, 7));
      }
      Reseal(&bad);
      acorn_options options = {};
      options.context_tokens = 8;
      std::vector<int32_t> expected;
      for (const uint32_t features : FeatureLevels()) {
        ThreadPort port(features, 1);
        ModelSession session(bad, options, port.get());
        if (session.status() != ACORN_OK) {
          EXPECT_EQ(session.status(), static_cast<acorn_status>(ACORN_ERR_INVALID)) << spec.name << " " << round;
          refused += features == 0;
          continue;
        }
        opened += features == 0;
        std::vector<int32_t> logits = session.Score(tokens);
        EXPECT_EQ(session.status(), static_cast<acorn_status>(ACORN_OK));
        if (features == 0) expected = logits;
        EXPECT_EQ(logits, expected) << spec.name << " " << round << " at " << features;
      }
    }
  }
  EXPECT_GT(opened, 20u);
  EXPECT_GT(refused, 20u);
}

}  // namespace
}  // namespace acorn::test
