// What convert does for --profiles and --heal: the model in order of importance, healed, and the widths of every rate.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "passes/elastic.h"
#include "passes/healed_model.h"
#include "passes/sorted_model.h"
#include "quantize/calibration.h"
#include "quantize/recipe.h"
#include "train/heal.h"

namespace acorn::compiler {

/// "0,15,25" as rising rates beyond 0. Throws Error(kUsage).
std::vector<int> ParseRates(const std::string &text);

/// --elastic-without: what is left out to see what it is worth. Values: sort, svd, rates, shares; of convert also segments, GPTQ's
/// (RecipeOptions::separate_rates).
void LeaveOut(const std::vector<std::string> &parts, ElasticOptions *options);

struct ElasticSource {
  std::unique_ptr<SortedModel> sorted;  // of the source, which outlives it
  std::unique_ptr<HealedModel> model;   // of sorted, with whatever healing added
  std::string summary;                  // what was asked for and what came of it, for people
  std::vector<HealedRate> healed;       // of each rate, where it was healed
};

struct ElasticRequest {
  std::vector<int> rates;         // ParseRates()
  CalibrationOptions calibration;  // what is healed on
  HealOptions heal;               // without minutes: no healing
  std::vector<std::string> without;  // LeaveOut()
};

/// Sorts `source` by the first of the windows, heals it, and puts the profiles of the rates into the recipe. Throws Error(kUsage)
/// where a rate cannot be had.
ElasticSource MakeElastic(const SourceModel &source, const ElasticRequest &request, const CalibrationWindows &windows,
                         RecipeOptions *recipe);

}  // namespace acorn::compiler
