#include "passes/cut_costs.h"

#include <algorithm>
#include <cmath>

#include "base/progress.h"

namespace acorn::compiler {
namespace {

struct Part {
  int64_t LayerWidths::*width;
  double CutCosts::*cost;
};
constexpr Part kParts[] = {{&LayerWidths::ffn, &CutCosts::ffn},
                           {&LayerWidths::qk, &CutCosts::qk},
                           {&LayerWidths::v, &CutCosts::v},
                           {&LayerWidths::state, &CutCosts::state},
                           {&LayerWidths::channels, &CutCosts::channels}};

/// One part of one layer, cut.
struct Cut {
  int64_t layer = 0;
  double CutCosts::*cost = nullptr;
  double part = 0;  // that is dropped
};

/// About 3/4 of a width, in whole steps; 0 where it has one step only.
int64_t ThreeQuarters(int64_t whole, int64_t step) {
  const int64_t kept = std::max<int64_t>(1, (whole * 3 / 4 + step / 2) / step) * step;
  return kept < whole ? kept : (whole - 1) / step * step;
}

}  // namespace

std::vector<CutCosts> MeasureCutCosts(const SourceModel &sorted, const std::vector<LayerWidths> &steps,
                                      const std::vector<int32_t> &ids) {
  const ModelConfig &config = sorted.config();
  const auto window = static_cast<int64_t>(ids.size());
  const RopeTable rope = MakeRopeTable(config, window);
  Matrix x = Embed(sorted, ids);  // the whole model's window first, then that of each cut
  std::vector<Cut> cuts;
  Progress progress("costs of cuts, layers", config.layers);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const LayerWeights weights = LoadLayer(sorted, layer);
    const Matrix entering = x.topRows(window);
    RunLayer(config, weights, layer, x, EvenBoundaries(x.rows(), window), rope, nullptr, nullptr);
    const LayerWidths whole = WholeWidths(config, layer);
    for (const Part &part : kParts) {
      const int64_t step = steps[static_cast<size_t>(layer)].*part.width;
      if (step == 0) continue;
      LayerWidths widths = whole;
      widths.*part.width = ThreeQuarters(whole.*part.width, step);
      if (widths.*part.width == 0) continue;
      LayerWeights narrow = weights;
      DropBeyond(config, widths, &narrow);
      Matrix cut = entering;
      RunLayer(config, narrow, layer, cut, {0, window}, rope, nullptr, nullptr);
      x.conservativeResize(x.rows() + window, Eigen::NoChange);
      x.bottomRows(window) = cut;
      cuts.push_back({layer, part.cost, 1 - static_cast<double>(widths.*part.width) / static_cast<double>(whole.*part.width)});
    }
    progress.Update(layer + 1);
  }
  NormRows(x, x, config, LoadVector(sorted, TensorRole::kFinalNorm), LoadVector(sorted, TensorRole::kFinalNormBias));
  const auto states = x.topRows(window);
  const Eigen::ArrayXf energy = states.rowwise().squaredNorm().array().max(1e-20f);
  std::vector<CutCosts> costs(static_cast<size_t>(config.layers));
  for (size_t i = 0; i < cuts.size(); ++i) {
    const auto changed = x.middleRows(static_cast<int64_t>(i + 1) * window, window);
    const auto loss = static_cast<double>(((changed - states).rowwise().squaredNorm().array() / energy).mean());
    costs[static_cast<size_t>(cuts[i].layer)].*cuts[i].cost = loss / std::pow(cuts[i].part, kCutExponent);
  }
  progress.Finish();
  return costs;
}

}  // namespace acorn::compiler
