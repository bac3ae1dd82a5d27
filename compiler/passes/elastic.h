// Elastic pruning after UniQL: one run of the calibration tokens through the float model gives the order of every layer's
// channels and the widths of every rate. docs/ELASTIC.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "passes/profiles.h"
#include "passes/sort_layer.h"
#include "passes/sorted_model.h"

namespace acorn::compiler {

struct ElasticOptions {
  std::vector<int> rates;  // percent, ascending, 0 to kHighestElasticRate
  SortParts parts;
  bool layer_rates = true;  // by influence; else every layer has the same
};
inline constexpr int kHighestElasticRate = 60;

struct ElasticPlan {
  std::vector<LayerPlan> layers;       // [layers], for a SortedModel
  std::vector<LayerWidths> steps;      // [layers], StepsOf()
  std::vector<double> influence;       // [layers]
  std::vector<RateProfile> profiles;   // one a rate
};

/// ids: windows of `window` tokens, one after the other.
ElasticPlan PlanElastic(const SourceModel &source, const std::vector<int32_t> &ids, int64_t window, const ElasticOptions &options);

}  // namespace acorn::compiler
