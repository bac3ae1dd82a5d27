// What convert does for --profiles and --heal: the model in order of importance, healed, and the widths of every rate.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "passes/healed_model.h"
#include "passes/sorted_model.h"
#include "quantize/calibration.h"
#include "quantize/recipe.h"
#include "train/heal.h"

namespace acorn::compiler {

/// "0,15,25" as rising rates beyond 0. Throws Error(kUsage).
std::vector<int> ParseRates(const std::string &text);

struct ElasticSource {
  std::unique_ptr<SortedModel> sorted;  // of the source, which outlives it
  std::unique_ptr<HealedModel> model;   // of sorted, with whatever healing added
  std::string summary;                  // what was asked for and what came of it, for people
};

struct ElasticRequest {
  std::vector<int> rates;         // ParseRates()
  CalibrationOptions calibration;  // what is healed on
  HealOptions heal;               // without minutes: no healing
};

/// Sorts `source` by the first of the windows, heals it, and puts the profiles of the rates into the recipe. Throws Error(kUsage)
/// where a rate cannot be had.
ElasticSource MakeElastic(const SourceModel &source, const ElasticRequest &request, const CalibrationWindows &windows,
                         RecipeOptions *recipe);

}  // namespace acorn::compiler
