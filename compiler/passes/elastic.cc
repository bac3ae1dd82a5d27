#include "passes/elastic.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/progress.h"
#include "graph/float_model.h"
#include "passes/layer_moments.h"
#include "passes/layer_rates.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kBlocks[] = {128, 64, 32};  // of FFN channels
constexpr double kNear = 0.03;
constexpr double kMixerShares[] = {1, 0.5, 0};  // that are tried
constexpr int64_t kTrialWindows = 4;

/// FFNs of few channels have transforms of smaller blocks than a step may have: groups of weights stay whole.
std::vector<LayerWidths> AllSteps(const ModelConfig &config, const std::vector<LayerPlan> &layers, int64_t block,
                                  int64_t least_block) {
  std::vector<LayerWidths> steps;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    steps.push_back(StepsOf(config, layer, layers[static_cast<size_t>(layer)].order, block));
    if (steps.back().ffn != 0) steps.back().ffn = std::max(steps.back().ffn, least_block);
  }
  return steps;
}

/// Profiles by the largest block that realises every rate.
void ChooseProfiles(const ModelConfig &config, const ElasticOptions &options, ElasticPlan *plan) {
  ProfileRequest request{options.rates, {}, {}, plan->mixer_share};
  if (options.layer_rates) request.influence = plan->influence;
  for (const int64_t block : kBlocks) {
    if (block < options.least_block) break;
    plan->block = block;
    request.steps = AllSteps(config, plan->layers, block, options.least_block);
    plan->profiles = MakeProfiles(config, request);
    const auto is_near = [&](const RateProfile &profile) {
      return std::abs(RealisedRate(config, request.steps, profile) - profile.rate / 100.0) <= kNear;
    };
    if (std::all_of(plan->profiles.begin(), plan->profiles.end(), is_near)) break;
  }
  plan->steps = std::move(request.steps);
}

/// True if there are two kinds of parts to spread a rate over.
bool HasShares(const ElasticPlan &plan) {
  const auto any = [&](auto has) { return std::any_of(plan.steps.begin(), plan.steps.end(), has); };
  return !plan.profiles.empty() && plan.profiles.back().rate != 0 && any([](const LayerWidths &steps) { return steps.ffn != 0; }) &&
         any([](const LayerWidths &steps) { return steps.qk + steps.v + steps.state + steps.channels != 0; });
}

/// Mean loss of all rates beyond 0 on some windows.
double LossOf(const SortedModel &sorted, const std::vector<RateProfile> &profiles, const std::vector<int32_t> &ids, int64_t window) {
  PerplexityOptions options;
  options.window = window;
  double loss = 0;
  for (const RateProfile &profile : profiles) {
    if (profile.rate == 0) continue;
    options.change = [&](int64_t layer, LayerWeights *weights) {
      DropBeyond(sorted.config(), profile.layers[static_cast<size_t>(layer)], weights);
    };
    loss += Perplexity(sorted, ids, options).mean_loss;
  }
  return loss;
}

/// Tries how much of a rate attention and state-space halves are to bear.
void ChooseMixerShare(const SourceModel &source, const std::vector<int32_t> &ids, int64_t window, const ElasticOptions &options,
                      ElasticPlan *plan) {
  const int64_t windows = static_cast<int64_t>(ids.size()) / window, used = std::min(windows, kTrialWindows);
  std::vector<int32_t> trial;
  for (int64_t i = 0; i < used; ++i) {
    const auto begin = ids.begin() + i * windows / used * window;
    trial.insert(trial.end(), begin, begin + window);
  }
  const SortedModel sorted(source, plan->layers);
  Progress progress("spreading rates", static_cast<int64_t>(std::size(kMixerShares)));
  ElasticPlan best = *plan;
  double least = INFINITY;
  int64_t tried = 0;
  for (const double share : kMixerShares) {
    plan->mixer_share = share;
    ChooseProfiles(source.config(), options, plan);
    const double loss = LossOf(sorted, plan->profiles, trial, window);
    if (loss < least) best = *plan;
    least = std::min(least, loss);
    progress.Update(++tried);
  }
  progress.Finish();
  *plan = std::move(best);
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
  if (options.mixer_shares && HasShares(plan)) ChooseMixerShare(source, ids, window, options, &plan);
  return plan;
}

}  // namespace acorn::compiler
