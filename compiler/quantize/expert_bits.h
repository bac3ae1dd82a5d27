// Bits by expert, after EdgeMoE (Yi et al., 2023, arXiv 2308.14352): the routed experts that a model misses least get 2 bits, the
// others keep 4. Experts are ranked by what is lost when one of them alone has 2 bits, or, cheaper, by each layer's loss shared out
// among its experts; then as many as the budget allows are lowered, the least important first.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "import/source_model.h"
#include "quantize/recipe.h"

namespace acorn::compiler {

enum class ExpertRanking {
  kImportance,  // a trial for each expert
  kLoss,        // a trial for each layer; an expert's share is that of its error in the layer's output
  kUsage,       // how many tokens choose the expert; to compare with
  kRandom,      // by seed; to compare with
};

/// One of the two is set.
struct ExpertBudget {
  double bits = 0;  // that an expert's weight takes at most on average, multipliers and scales included
  double loss = 0;  // that the estimate of perplexity may exceed the one of all experts in 4 bits by, 0.02: 2 %
};

struct ExpertChoice {
  std::vector<std::vector<WeightFormat>> formats;      // [layers, experts]; empty for dense layers
  std::vector<std::vector<double>> importance;         // the same; what the ranking says of an expert, in its own unit
  std::optional<std::vector<int32_t>> prefix_tokens;  // of the measurements; absent where nothing was measured
  int64_t lowered = 0, experts = 0;
  double bits = 0;  // on average
  double loss = 0, loss_of_all = 0;  // estimates, nats a token: of the choice, of all experts in 2 bits. Not for kUsage, kRandom
};

/// Quantises the model with `options`, whose experts have 4 bits alike, on a few of the windows and runs trials on others.
/// Throws Error(kUsage) for a budget of bits below what 2 for all experts take, or above what 4 do.
ExpertChoice ChooseExpertBits(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &options,
                              ExpertRanking ranking, const ExpertBudget &budget, uint64_t seed);

/// Bits of a weight of an expert [ffn, hidden] in this format, multipliers and a scale of 32 bits for each channel included.
double BitsOfExpert(WeightFormat format, int64_t hidden, int64_t ffn);

}  // namespace acorn::compiler
