// Sensitivity: what a model loses when one part of it alone is rounded as a conversion would round it and all the rest stays in
// float. Rounding errors of different weights know nothing of one another, so that such losses nearly add up: which parts
// deserve more bits can be read from them.
#pragma once

#include <cstdint>
#include <vector>

#include "quantize/recipe.h"

namespace acorn::compiler {

/// What is chosen apart: the format of each weight, and in how many bits inputs come.
enum class Part : uint8_t { kQkv, kO, kGateUp, kDown, kAttnIn, kFfnIn, kDownIn, kHead };
inline constexpr int kParts = 8, kWeightParts = 4, kInputParts = 3;  // of a layer: weights and inputs
const char *PartName(Part part);
inline bool IsInput(Part part) { return part == Part::kAttnIn || part == Part::kFfnIn || part == Part::kDownIn; }

struct Sensitivity {
  int64_t layer = 0;  // the number of layers for the head
  Part part = Part::kQkv;
  WeightFormat format = WeightFormat::kW4G32;  // of a weight; inputs are measured at 8 bits
  double loss = 0;                             // nats per token: mean divergence from the float model
};

struct Sensitivities {
  std::vector<Sensitivity> parts;  // in the order of the model
  double together = 0;             // loss with all layers in the options' formats at once, inputs included
  std::vector<int32_t> prefix_tokens;
};

/// Formats that are measured for a weight which would be `plain`: itself, and groups of 32 where it is coarser. Eight bits count
/// as lossless beside them, as do 15 beside 8 for an input.
std::vector<WeightFormat> MeasuredFormats(WeightFormat plain);

/// Quantises the model with `options` on a few of the windows and measures each part on others, where there are others.
/// `options` is plain: without formats of its own for each layer.
Sensitivities MeasureSensitivities(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &options);

}  // namespace acorn::compiler
