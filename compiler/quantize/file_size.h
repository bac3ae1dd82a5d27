// How large a model file will be, before anything is quantised.
#pragma once

#include <cstdint>

#include "import/source_model.h"
#include "passes/hadamard.h"
#include "quantize/recipe.h"

namespace acorn::compiler {

/// Bytes of a weight [n, k] as packed; an upper bound where it may be cut along k (w8 deeper than 1,024).
uint64_t WeightBytes(WeightFormat format, const ChannelLayouts &layouts, int64_t n, int64_t k);

/// Upper bound of the size of the whole file, its reference run included. tokenizer_bytes: of the compiled segment.
uint64_t FileBytes(const ModelConfig &config, const FfnShape &ffn, const RecipeOptions &options, uint64_t tokenizer_bytes);

}  // namespace acorn::compiler
