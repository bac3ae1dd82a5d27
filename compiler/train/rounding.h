// Rounding: GPTQ on grids that were learned, with the second moments that the device's own integers give.
#pragma once

#include <cstdint>
#include <vector>

#include "quantize/quantized_model.h"
#include "train/model_twin.h"
#include "train/shaping.h"

namespace acorn::compiler {

/// Rounds the weights of all layers anew, layer by layer, each on what the layers before it leave of `windows` (token ids). Scales
/// and multipliers stay as shaping learned them, but that each channel's scale is fitted to its integers at the end: choosing
/// them anew would throw away most of what was learned.
void RoundOnLearnedGrids(const Shaping &shaping, const std::vector<std::vector<int32_t>> &windows, ModelTwin *twin,
                         QuantizedModel *model);

}  // namespace acorn::compiler
