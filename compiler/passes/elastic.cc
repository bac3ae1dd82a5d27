#include "passes/elastic.h"

#include <algorithm>
#include <cmath>

#include "base/progress.h"
#include "passes/layer_moments.h"
#include "passes/layer_rates.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kBlocks[] = {128, 64, 32};  // of FFN channels
constexpr double kNear = 0.03;

/// Profiles by the largest block with which the FFNs give about what every rate asks of all.
void ChooseProfiles(const ModelConfig &config, const ElasticOptions &options, ElasticPlan *plan) {
  for (const int64_t block : kBlocks) {
    if (block < options.least_block) return;
    plan->block = block;
    plan->steps.clear();
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      plan->steps.push_back(StepsOf(config, layer, plan->layers[static_cast<size_t>(layer)].order, block));
      if (config.IsSparse(layer) && !options.cut_experts) plan->steps.back().ffn = 0;
    }
    const std::vector<double> influence = options.layer_rates ? plan->influence : std::vector<double>();
    plan->profiles = MakeProfiles(config, {options.rates, plan->steps, influence});
    const auto is_near = [&](const RateProfile &profile) {
      return std::abs(RealisedFfnRate(config, plan->steps, profile) - RealisedRate(config, plan->steps, profile)) <= kNear;
    };
    const bool any = std::any_of(plan->steps.begin(), plan->steps.end(), [](const LayerWidths &steps) { return steps.ffn != 0; });
    if (!any || std::all_of(plan->profiles.begin(), plan->profiles.end(), is_near)) return;
  }
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
  ChooseProfiles(config, options, &plan);
  return plan;
}

}  // namespace acorn::compiler
