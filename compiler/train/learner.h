// Learner: what a stage of training moves, and how it gets into the model.
#pragma once

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
  virtual Adam &adam() = 0;
};

}  // namespace acorn::compiler
