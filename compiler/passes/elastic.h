// Elastic pruning after UniQL: one run of the calibration tokens through the float model gives the order of every layer's
// channels and the widths of every rate. docs/ELASTIC.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "passes/cut_costs.h"
#include "passes/profiles.h"
#include "passes/sort_layer.h"
#include "passes/sorted_model.h"

namespace acorn::compiler {

/// How a rate is spread over the layers.
enum class LayerRule {
  kInfluence,  // by block influence, UniQL's rule: all parts of a layer alike
  kCosts,      // by what cutting each part of each layer by itself costs
  kUniform,
};

struct ElasticOptions {
  std::vector<int> rates;  // percent, ascending, 0 to kHighestElasticRate
  SortParts parts;
  LayerRule rule = LayerRule::kInfluence;
};
inline constexpr int kHighestElasticRate = 60;

struct ElasticPlan {
  std::vector<LayerPlan> layers;       // [layers], for a SortedModel
  std::vector<double> influence;       // [layers]
  std::vector<CutCosts> costs;         // [layers], with kCosts
  std::vector<LayerWidths> steps;      // [layers], StepsOf()
  std::vector<RateProfile> profiles;   // one a rate
};

/// ids: windows of `window` tokens, one after the other.
ElasticPlan PlanElastic(const SourceModel &source, const std::vector<int32_t> &ids, int64_t window, const ElasticOptions &options);

}  // namespace acorn::compiler
