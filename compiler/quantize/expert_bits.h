// Bits by expert, after EdgeMoE (Yi et al., 2023, arXiv 2308.14352): the routed experts that a model misses least get 2 bits,
// those that it misses most 8, the others 4. What is lost with one of them alone in 2 bits is measured, or, cheaper, each layer's
// loss is shared out among its experts; in 4 bits it is so much less as the square of the expert's error is. Then experts go down
// one after the other, who loses least for a bit first, as far as the budget asks or allows.
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
  double loss = 0;  // that the estimate of perplexity may exceed the one of all experts in 8 bits by, 0.02: 2 %
};

struct ExpertChoice {
  std::vector<std::vector<WeightFormat>> formats;      // [layers, experts]; empty for dense layers
  std::vector<std::vector<double>> importance;         // the same; what the ranking says: a loss in 2 bits, tokens, or chance
  std::optional<std::vector<int32_t>> prefix_tokens;  // of the measurements; absent where nothing was measured
  int64_t experts = 0, in_two = 0, in_four = 0;  // the rest has 8 bits
  double bits = 0;                               // on average
  // Estimates in nats a token, of the choice and of all alike; 0 for kUsage and kRandom.
  double loss = 0, loss_of_four = 0, loss_of_two = 0;
};

/// Quantises the model with `four_bits`, whose experts have 4 bits alike, on a few of the windows and runs trials on others.
/// Experts get 8 bits only where the budget is of more bits than all of them in 4 take, or of less loss than they cause.
/// Throws Error(kUsage) for a budget of bits below what 2 (or, if less, 4) for all experts take, or above what 8 do.
ExpertChoice ChooseExpertBits(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &four_bits,
                              ExpertRanking ranking, const ExpertBudget &budget, uint64_t seed);

/// What an expert may be.
struct ExpertPoint {
  WeightFormat format;
  double bits, loss;  // of a weight; in nats a token
};

/// An expert goes from one of its points to another.
struct ExpertStep {
  size_t expert, from, to;
  double price, loss;  // what a bit less of each weight loses; what the step loses
};

/// experts: the points of each, from the most bits to the fewest, the first one what it has
/// Returns: all steps down, who loses least for a bit first. An expert's own steps follow one another, each dearer than the one
/// before: a point that saves less for what it loses than the next one is passed over, as is one that saves nothing.
std::vector<ExpertStep> StepsDown(const std::vector<std::vector<ExpertPoint>> &experts);

/// Bits of a weight of an expert [ffn, hidden] in this format, multipliers and a scale of 32 bits for each channel included.
double BitsOfExpert(WeightFormat format, int64_t hidden, int64_t ffn);

}  // namespace acorn::compiler
