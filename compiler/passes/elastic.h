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
  bool layer_rates = true;   // by influence; else every layer has the same
  bool mixer_shares = true;  // tried out; else attention and state-space halves drop as much as FFNs
  int64_t least_block = 32;  // of FFN channels: a power of two, at most 128
};
inline constexpr int kHighestElasticRate = 60;

struct ElasticPlan {
  std::vector<LayerPlan> layers;       // [layers], for a SortedModel
  std::vector<double> influence;       // [layers]
  std::vector<LayerWidths> steps;      // [layers], StepsOf()
  std::vector<RateProfile> profiles;   // one a rate
  double mixer_share = 1;              // ProfileRequest's: of those tried the one that loses least
  int64_t block = 128;                 // of FFN channels, whole ones of which every width is made
};

/// ids: windows of `window` tokens, one after the other.
ElasticPlan PlanElastic(const SourceModel &source, const std::vector<int32_t> &ids, int64_t window, const ElasticOptions &options);

}  // namespace acorn::compiler
