// What convert does for --profiles: the model in order of importance, and the widths of every rate.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "passes/sorted_model.h"
#include "quantize/recipe.h"

namespace acorn::compiler {

/// "0,15,25" as rising rates beyond 0. Throws Error(kUsage).
std::vector<int> ParseRates(const std::string &text);

struct ElasticModel {
  std::unique_ptr<SortedModel> model;  // of the source, which outlives it
  std::string summary;                 // what was asked for and what came of it, for people
};

/// Sorts `source` by the first of the windows, and puts the profiles of the rates into the recipe. Throws Error(kUsage) where a
/// rate cannot be had.
ElasticModel MakeElastic(const SourceModel &source, const std::vector<int> &rates, const CalibrationWindows &windows,
                         RecipeOptions *recipe);

}  // namespace acorn::compiler
