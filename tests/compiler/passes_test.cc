// The passes against their definitions.
#include <gtest/gtest.h>

#include <cmath>

#include "passes/hadamard.h"

namespace acorn::compiler {
namespace {

TEST(Hadamard, IsTheSylvesterMatrixInNaturalOrder) {
  for (const int64_t block : {1, 2, 32, 64, 128}) {
    Matrix rows = Matrix::Identity(block, block);
    HadamardRows(rows, block);
    for (int64_t i = 0; i < block; ++i) {
      for (int64_t j = 0; j < block; ++j) {
        // Entry (i, j) is -1 to the number of common one bits.
        const double sign = __builtin_popcountll(static_cast<uint64_t>(i & j)) % 2 == 0 ? 1 : -1;
        ASSERT_NEAR(rows(i, j), sign / std::sqrt(static_cast<double>(block)), 1e-6);
      }
    }
  }
}

TEST(Hadamard, FoldedIntoAWeightItChangesNothing) {
  Matrix x = Matrix::Random(5, 192), w = Matrix::Random(7, 192);
  const Matrix before = x * w.transpose();
  HadamardRows(x, 64);
  HadamardRows(w, 64);
  EXPECT_LT((x * w.transpose() - before).cwiseAbs().maxCoeff(), 1e-4);
}

TEST(Hadamard, BlockIsTheLargestThatPadsCheaply) {
  const auto expect = [](int64_t ffn, int64_t padded, int64_t block) {
    const FfnShape shape = ChooseHadamardBlock(ffn);
    EXPECT_EQ(shape.padded, padded) << ffn;
    EXPECT_EQ(shape.block, block) << ffn;
  };
  expect(1536, 1536, 128);
  expect(896, 896, 128);
  expect(5632, 5632, 128);
  expect(172, 192, 64);
  expect(96, 96, 32);
  expect(160, 160, 32);
  expect(1, 32, 32);
  EXPECT_EQ(WithoutHadamard(172, 32).padded, 192);
  EXPECT_EQ(WithoutHadamard(172, 0).padded, 172);
  EXPECT_EQ(WithoutHadamard(172, 32).block, 1);
}

}  // namespace
}  // namespace acorn::compiler
