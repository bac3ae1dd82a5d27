// A model of random weights that behaves: no edge is empty or saturated in any layer, and its routers choose as those of trained
// models do, some experts more often than others and those of the last token again. For load tests; it can say nothing.
#pragma once

#include <cstdint>

#include "import/source_model.h"
#include "quantize/recipe.h"

namespace acorn::compiler {

/// Hands the parts of the model to `sink`, with the memory of one layer. The same for the same arguments on every machine.
/// options: formats, layouts and the input of down; nothing else of it counts.
void MakeRandomModel(const ModelConfig &config, const RecipeOptions &options, uint64_t seed, ModelSink *sink);

}  // namespace acorn::compiler
