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

std::vector<LayerWidths> AllSteps(const ModelConfig &config, const std::vector<LayerPlan> &layers, int64_t block) {
  std::vector<LayerWidths> steps;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    steps.push_back(StepsOf(config, layer, layers[static_cast<size_t>(layer)].order, block));
  }
  return steps;
}

/// Profiles by the largest block that realises every rate.
void ChooseProfiles(const ModelConfig &config, const ElasticOptions &options, ElasticPlan *plan) {
  ProfileRequest request{options.rates, {}, {}, plan->costs};
  if (options.rule == LayerRule::kInfluence) request.influence = plan->influence;
  for (const int64_t block : kBlocks) {
    request.steps = AllSteps(config, plan->layers, block);
    plan->profiles = MakeProfiles(config, request);
    const auto is_near = [&](const RateProfile &profile) {
      return std::abs(RealisedRate(config, request.steps, profile) - profile.rate / 100.0) <= kNear;
    };
    if (std::all_of(plan->profiles.begin(), plan->profiles.end(), is_near)) break;
  }
  plan->steps = std::move(request.steps);
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
  if (options.rule == LayerRule::kCosts) {
    const SortedModel sorted(source, plan.layers);
    const std::vector<int32_t> last(ids.end() - window, ids.end());
    plan.costs = MeasureCutCosts(sorted, AllSteps(config, plan.layers, kBlocks[0]), last);
  }
  ChooseProfiles(config, options, &plan);
  return plan;
}

}  // namespace acorn::compiler
