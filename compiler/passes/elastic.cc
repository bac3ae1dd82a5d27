#include "passes/elastic.h"

#include <algorithm>
#include <cmath>

#include "base/progress.h"
#include "passes/layer_moments.h"
#include "passes/layer_rates.h"

namespace acorn::compiler {

namespace {

constexpr double kTolerance = 0.03;  // of a rate

/// Makes the profiles by the plan's FFN step. True if they are near enough to what was asked for.
bool Realises(const ModelConfig &config, const ElasticOptions &options, ElasticPlan *plan) {
  plan->steps.clear();
  for (size_t layer = 0; layer < plan->layers.size(); ++layer) {
    const auto index = static_cast<int64_t>(layer);
    plan->steps.push_back(StepsOf(config, index, plan->layers[layer].order, plan->ffn_step));
    if (config.IsSparse(index) && !options.cut_experts) plan->steps.back().ffn = 0;
  }
  plan->profiles = MakeProfiles(config, {options.rates, plan->steps, options.layer_rates ? plan->influence : std::vector<double>()});
  return std::all_of(plan->profiles.begin(), plan->profiles.end(), [&](const RateProfile &profile) {
    return std::abs(RealisedRate(config, plan->steps, profile) - profile.rate / 100.0) <= kTolerance;
  });
}

}  // namespace

ElasticPlan PlanElastic(const SourceModel &source, const std::vector<int32_t> &ids, int64_t window, const ElasticOptions &options) {
  const ModelConfig &config = source.config();
  const RopeTable rope = MakeRopeTable(config, window);
  const std::vector<int64_t> boundaries = EvenBoundaries(static_cast<int64_t>(ids.size()), window);
  Matrix x = Embed(source, ids);
  ElasticPlan plan;
  Progress progress("sorting channels, layers", config.layers);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const LayerWeights weights = LoadLayer(source, layer);
    LayerMoments moments(config, weights, window);
    RunLayer(config, weights, layer, x, boundaries, rope, nullptr, &moments);
    plan.layers.push_back(PlanLayer(config, weights, moments, options.parts));
    plan.influence.push_back(moments.influence());
    progress.Update(layer + 1);
  }
  progress.Finish();
  while (!Realises(config, options, &plan) && plan.ffn_step / 2 >= options.least_ffn_step) plan.ffn_step /= 2;
  return plan;
}

}  // namespace acorn::compiler
