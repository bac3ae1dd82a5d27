// Learner: what a stage of training moves, and how it gets into the model.
#pragma once

#include <vector>

#include "train/adam.h"
#include "train/model_twin.h"

namespace acorn::compiler {

class Learner {
 public:
  virtual ~Learner() = default;
  /// Does Step() want the gradients of the weights?
  virtual bool WantsWeights() const = 0;
  /// One step from the gradients of one window.
  virtual void Step(const ModelTwin &twin, const ModelGradients &gradients, double rate) = 0;
  /// Writes the present values into the model. Returns true when integers of weights changed.
  virtual bool Apply() = 0;

  /// Present values, for keeping the best; and back, which Apply() must follow.
  virtual std::vector<torch::Tensor> Values() const { return adam_.Values(); }
  virtual void SetValues(const std::vector<torch::Tensor> &values) { adam_.SetValues(values); }
  /// Everything else that later steps depend on.
  virtual std::vector<torch::Tensor> State() const { return adam_.State(); }
  virtual void SetState(const std::vector<torch::Tensor> &state) { adam_.SetState(state); }

 protected:
  Adam adam_;
};

}  // namespace acorn::compiler
