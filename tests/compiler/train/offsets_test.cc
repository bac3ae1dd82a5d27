// Offsets: integers follow the gradient, within what their format holds, and nothing is lost in a checkpoint.
#include "train/offsets.h"

#include <gtest/gtest.h>

#include <torch/torch.h>

namespace acorn::compiler {
namespace {

QuantizedMatrix Zeros(WeightFormat format, int64_t n, int64_t k) {
  QuantizedMatrix matrix;
  matrix.format = format;
  matrix.n = n;
  matrix.k = k;
  matrix.weights.assign(static_cast<size_t>(n * k), 0);
  matrix.scale.assign(static_cast<size_t>(n), 0.25);
  if (matrix.group() != 0) matrix.multipliers.assign(static_cast<size_t>(n * k / matrix.group()), 3);
  return matrix;
}

TEST(Offsets, IntegersFollowTheGradientToTheEndsOfTheirRange) {
  struct Case {
    WeightFormat format;
    int least, most;
  };
  for (const Case &c : {Case{WeightFormat::kW8, -127, 127}, Case{WeightFormat::kW4, -8, 7}, Case{WeightFormat::kW4G32, -8, 7}}) {
    QuantizedMatrix matrix = Zeros(c.format, 3, 64);
    Offsets offsets(&matrix);
    torch::Tensor gradient = torch::zeros({3, 64});  // the first row stays
    gradient[1] = 2.0f;
    gradient[2] = -0.001f;  // a step's length does not depend on the gradient's size, only on its size within the channel
    offsets.Step(gradient.clone(), 0.4);
    EXPECT_EQ(matrix.weight(1, 0), 0);
    offsets.Step(gradient.clone(), 0.4);
    EXPECT_EQ(matrix.weight(0, 5), 0);
    EXPECT_EQ(matrix.weight(1, 5), -1);
    EXPECT_EQ(matrix.weight(2, 63), 1);
    for (int i = 0; i < 400; ++i) offsets.Step(gradient.clone(), 0.4);
    EXPECT_EQ(matrix.weight(0, 5), 0);
    EXPECT_EQ(matrix.weight(1, 5), c.least);
    EXPECT_EQ(matrix.weight(2, 63), c.most);
  }
}

TEST(Offsets, WeightsOfSmallGradientsMoveLess) {
  QuantizedMatrix matrix = Zeros(WeightFormat::kW4G32, 1, 64);
  Offsets offsets(&matrix);
  torch::Tensor gradient = torch::full({1, 64}, 1.0f);
  gradient[0][7] = 0.01f;
  for (int i = 0; i < 20; ++i) offsets.Step(gradient.clone(), 0.1);
  EXPECT_LT(matrix.weight(0, 6), 0);
  EXPECT_EQ(matrix.weight(0, 7), 0);
}

TEST(Offsets, GoOnFromTheirState) {
  torch::manual_seed(3);
  QuantizedMatrix whole = Zeros(WeightFormat::kW4G32, 4, 96), halves = whole;
  std::vector<torch::Tensor> gradients;
  for (int i = 0; i < 20; ++i) gradients.push_back(torch::randn({4, 96}) + 0.3f);
  Offsets once(&whole), before(&halves);
  for (const torch::Tensor &gradient : gradients) once.Step(gradient.clone(), 0.2);
  for (int i = 0; i < 10; ++i) before.Step(gradients[static_cast<size_t>(i)].clone(), 0.2);
  const std::vector<torch::Tensor> state = before.State();
  ASSERT_EQ(state.size(), Offsets::kStateTensors);
  const torch::Tensor integers = before.Integers();
  std::fill(halves.weights.begin(), halves.weights.end(), int8_t{1});
  Offsets after(&halves);
  after.SetIntegers(integers);
  after.SetState(state.data());
  for (int i = 10; i < 20; ++i) after.Step(gradients[static_cast<size_t>(i)].clone(), 0.2);
  EXPECT_EQ(whole.weights, halves.weights);
}

}  // namespace
}  // namespace acorn::compiler
