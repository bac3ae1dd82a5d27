// Adam (Kingma and Ba, 2015) over numbered parameters.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <vector>

namespace acorn::compiler {

class Adam {
 public:
  /// A parameter of `size` numbers that starts at 0 and moves at `rate` times the common rate. Returns its number.
  size_t New(int64_t size, double rate = 1);

  const torch::Tensor &value(size_t index) const { return parameters_[index].value; }
  double number(size_t index) const { return parameters_[index].value.item<double>(); }
  /// Gradient for the next step; undefined or empty: the parameter stays.
  void SetGradient(size_t index, const torch::Tensor &gradient);
  /// Moves every parameter that has a gradient, and forgets the gradients.
  void Step(double rate);

  /// Present values, for keeping the best; and back.
  std::vector<torch::Tensor> Values() const;
  void SetValues(const std::vector<torch::Tensor> &values);
  /// Everything else that later steps depend on.
  std::vector<torch::Tensor> State() const;
  void SetState(const std::vector<torch::Tensor> &state);

 private:
  struct Parameter {
    torch::Tensor value, gradient, first, second;
    double rate = 1;
  };
  std::vector<Parameter> parameters_;
  int64_t steps_ = 0;
};

}  // namespace acorn::compiler
