// Offsets: real weights behind the integers of a matrix, so that training can move integers as well. A weight is (q + f) steps,
// with f in [-1/2, 1/2]; the device multiplies by q, gradients by the weight go to f as they are (straight-through estimation), and
// where f leaves its range, q follows. Learned this way, rounding is decided by the loss of the whole model instead of the
// error of one layer (as AdaRound does for layers: Nagel et al., ICML 2020; with a straight-through gradient: LLM-QAT, Liu et
// al., 2023).
#pragma once

#include <torch/torch.h>

#include <vector>

#include "base/matrix.h"
#include "pack/quantized_matrix.h"

namespace acorn::compiler {

class Offsets {
 public:
  /// matrix: outlives this; its integers move with Step. Offsets start at 0.
  explicit Offsets(QuantizedMatrix *matrix);
  /// real: [n, k], what the integers stand for. Offsets start at what rounding left, so that a weight between two integers changes
  /// easily and one close to its integer does not; an integer farther away (GPTQ rounds for a whole row) starts near the bound.
  void StartFrom(const Matrix &real);

  /// One step of Adam with second moments of rows and columns, of whose product each weight's is estimated (Shazeer and Stern,
  /// Adafactor, ICML 2018, section 3). gradient: [n, k], by the real weight; used up. rate: in steps of the grid.
  void Step(const torch::Tensor &gradient, double rate);

  /// The integers as they are now [n, k], and back. Offsets stay.
  torch::Tensor Integers() const;
  void SetIntegers(const torch::Tensor &integers);
  /// Everything else that later steps depend on.
  std::vector<torch::Tensor> State() const;
  void SetState(const torch::Tensor *state);
  static constexpr size_t kStateTensors = 5;

 private:
  QuantizedMatrix *matrix_;
  double StepOf(int64_t row, int64_t group) const;

  torch::Tensor offset_, first_;  // [n, k]
  torch::Tensor rows_, columns_;  // [n], [k]: mean squares of the gradient by the weight in steps
  int64_t steps_ = 0;
};

}  // namespace acorn::compiler
