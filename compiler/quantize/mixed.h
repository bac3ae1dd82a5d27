// Mixed widths: under a budget, 8-bit weights (or smaller groups) and 15-bit inputs for those parts of a model that gain most
// for each byte. Which parts those are is measured (quantize/sensitivity.h); any recipe can then be run with the choice.
#pragma once

#include <cstdint>
#include <vector>

#include "import/source_model.h"
#include "quantize/recipe.h"
#include "quantize/sensitivity.h"

namespace acorn::compiler {

/// One of the two is set.
struct MixedBudget {
  uint64_t file_bytes = 0;  // that the whole file may have at most
  double loss = 0;          // that the estimate of perplexity may exceed the one of all weights in 8 bits by, 0.02: 2 %
};

struct MixedChoice {
  RecipeOptions options;  // with formats for each layer, and the prefix of the measurements
  std::vector<SensitivityReport> sensitivities;  // of all parts
  int raised_weights = 0, raised_inputs = 0;
  double plain_loss = 0, loss = 0;  // estimates, nats per token: before and after
  uint64_t file_bytes = 0;          // upper bound
};

/// Raises parts one by one, always the one that loses least for each byte, until nothing fits the budget any more or the loss
/// is small enough. `plain` must fit it. tokenizer_bytes: of the compiled segment.
MixedChoice ChooseMixed(const ModelConfig &config, const RecipeOptions &plain, const Sensitivities &sensitivities,
                        const MixedBudget &budget, uint64_t tokenizer_bytes);

}  // namespace acorn::compiler
