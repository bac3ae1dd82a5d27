// What the float models of the gradient tests are made of: LibTorch's own operators, so that it can differentiate them.
#pragma once

#include <gtest/gtest.h>

#include <torch/torch.h>

#include <cmath>
#include <string>

#include "base/matrix.h"
#include "pack/quantized_matrix.h"

namespace acorn::compiler {

inline torch::Tensor ToTensor(const Matrix &m) {
  return torch::from_blob(const_cast<float *>(m.data()), {m.rows(), m.cols()}, torch::kFloat).clone();
}
inline torch::Tensor ToTensor(const RowVector &v) {
  return torch::from_blob(const_cast<float *>(v.data()), {v.size()}, torch::kFloat).clone();
}

inline torch::Tensor Leaf(torch::Tensor t) { return t.requires_grad_(true); }
inline torch::Tensor Real(const QuantizedMatrix &matrix) {
  Matrix real(matrix.n, matrix.k);
  for (int64_t n = 0; n < matrix.n; ++n) {
    for (int64_t k = 0; k < matrix.k; ++k) {
      real(n, k) = static_cast<float>(matrix.scale[static_cast<size_t>(n)] * matrix.multiplier(n, k) * matrix.weight(n, k));
    }
  }
  return ToTensor(real);
}

inline torch::Tensor Normed(const torch::Tensor &x, const torch::Tensor &gain, double eps) {
  return x * torch::rsqrt(x.square().mean(-1, true) + eps) * gain;
}

/// Orthonormal Hadamard transform of each block.
inline torch::Tensor Transformed(const torch::Tensor &x, int64_t block) {
  torch::Tensor y = x.reshape({-1, block});
  for (int64_t half = 1; half < block; half *= 2) {
    const torch::Tensor pairs = y.view({-1, block / (2 * half), 2, half});
    const torch::Tensor a = pairs.select(2, 0), b = pairs.select(2, 1);
    y = torch::stack({a + b, a - b}, 2).reshape({-1, block});
  }
  return (y / std::sqrt(static_cast<double>(block))).view(x.sizes());
}

/// Directions by the cosine of the angle between them, lengths by their ratio.
inline void ExpectClose(const torch::Tensor &got, const torch::Tensor &want, const std::string &what) {
  ASSERT_TRUE(got.defined()) << what;
  ASSERT_EQ(got.numel(), want.numel()) << what;
  const double cosine = (got.flatten() * want.flatten()).sum().item<double>() /
                        (got.norm().item<double>() * want.norm().item<double>());
  // Both are taken at rounded and at exact activations, and 8 bits differ by a percent or so.
  EXPECT_GT(cosine, 0.995) << what;
  EXPECT_NEAR(got.norm().item<double>() / want.norm().item<double>(), 1, 0.05) << what;
}

}  // namespace acorn::compiler
