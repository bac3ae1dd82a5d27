#include "passes/elastic.h"

#include "base/progress.h"
#include "passes/layer_moments.h"
#include "passes/layer_rates.h"

namespace acorn::compiler {

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
    plan.steps.push_back(StepsOf(config, layer, plan.layers.back().order, 128));
    progress.Update(layer + 1);
  }
  progress.Finish();
  plan.profiles = MakeProfiles(config, {options.rates, plan.steps, options.layer_rates ? plan.influence : std::vector<double>()});
  return plan;
}

}  // namespace acorn::compiler
