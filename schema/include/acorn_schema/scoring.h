// How a router's logits become weights of the chosen experts. Values are frozen in the model file.
#pragma once

#include <cstdint>

namespace acorn {

enum class Scoring : uint8_t {
  kSoftmaxOfChosen = 1,  // a softmax over the chosen
  kSoftmaxOfAll = 2,     // over all, of which the others' share is lost
  kSigmoid = 3,
  kSigmoidOfChosen = 4,  // sigmoids divided by their sum
};

}  // namespace acorn
