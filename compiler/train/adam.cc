#include "train/adam.h"

#include <cmath>

namespace acorn::compiler {
namespace {

constexpr double kFirstDecay = 0.9, kSecondDecay = 0.99;  // for a few hundred to a few thousand steps
constexpr double kEpsilon = 1e-12;

}  // namespace

size_t Adam::New(int64_t size, double rate) {
  parameters_.push_back({torch::zeros({size}), {}, torch::zeros({size}), torch::zeros({size}), rate});
  return parameters_.size() - 1;
}

void Adam::SetGradient(size_t index, const torch::Tensor &gradient) {
  if (gradient.defined() && gradient.numel() != 0) parameters_[index].gradient = gradient;
}

void Adam::Step(double rate) {
  ++steps_;
  const double first_correction = 1 - std::pow(kFirstDecay, static_cast<double>(steps_));
  const double second_correction = 1 - std::pow(kSecondDecay, static_cast<double>(steps_));
  for (Parameter &parameter : parameters_) {
    if (!parameter.gradient.defined()) continue;
    const torch::Tensor &g = parameter.gradient;
    parameter.first.mul_(kFirstDecay).add_(g, 1 - kFirstDecay);
    parameter.second.mul_(kSecondDecay).addcmul_(g, g, 1 - kSecondDecay);
    const torch::Tensor size = (parameter.second / second_correction).sqrt_().add_(kEpsilon);
    parameter.value.addcdiv_(parameter.first, size, -rate * parameter.rate / first_correction);
    parameter.gradient = torch::Tensor();
  }
}

std::vector<torch::Tensor> Adam::Values() const {
  std::vector<torch::Tensor> values;
  for (const Parameter &parameter : parameters_) values.push_back(parameter.value.clone());
  return values;
}

void Adam::SetValues(const std::vector<torch::Tensor> &values) {
  for (size_t i = 0; i < parameters_.size(); ++i) parameters_[i].value.copy_(values[i]);
}

std::vector<torch::Tensor> Adam::State() const {
  std::vector<torch::Tensor> state = {torch::full({1}, steps_, torch::kLong)};
  for (const Parameter &parameter : parameters_) {
    state.push_back(parameter.first.clone());
    state.push_back(parameter.second.clone());
  }
  return state;
}

void Adam::SetState(const std::vector<torch::Tensor> &state) {
  steps_ = state[0].item<int64_t>();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    parameters_[i].first.copy_(state[1 + 2 * i]);
    parameters_[i].second.copy_(state[2 + 2 * i]);
  }
}

}  // namespace acorn::compiler
