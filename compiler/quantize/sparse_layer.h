// The routed experts of a sparse layer on their way to integers: in memory with down transformed, their common ranges, their
// rounding. layer_quantizer.h does the rest of the layer.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "graph/float_model.h"
#include "passes/hadamard.h"
#include "quantize/activations.h"
#include "quantize/quantized_model.h"

namespace acorn::compiler {

/// All experts of one layer, float.
using ExpertList = std::vector<std::shared_ptr<ExpertWeights>>;

/// Loads the layer's experts, pads them to `shape` and transforms their down; weights->experts gives them from now on. The shared
/// expert becomes `shared_shape`.
ExpertList LoadExperts(const ModelConfig &config, FfnShape shape, FfnShape shared_shape, LayerWeights *weights);

/// Some of the weights that read the FFN's input, stacked: what stands for all of them when its range is chosen.
Matrix ProbeOfInputs(const ExpertList &experts, const LayerWeights &weights);

/// The FFN's input over `factors`: the columns of all weights that read it times them.
void ScaleInputs(const RowVector &factors, ExpertList *experts, LayerWeights *weights);

/// Units of the edges that all experts of the layer share. measured: down's input clipped for the smallest error. narrow_reach: the
/// farthest that an expert's output reaches at the rates beyond 0; 0: there are none.
void ChooseExpertScales(const RangeObserver &ranges, const ExpertList &experts, bool measured, double narrow_reach,
                        ActivationGrid *grid, ExpertScales *scales);

struct ExpertRounding {
  std::vector<WeightFormat> formats;  // of each expert
  const GridObserver *moments = nullptr;  // null: to nearest
  const RangeObserver *ranges = nullptr;
  ActivationKind activation = ActivationKind::kSilu;
  std::vector<int64_t> depths;  // of down, at which rates beyond 0 end
  bool separate_rates = true;     // RecipeOptions
};
struct RoundedExperts {
  std::vector<ExpertMatrices> experts;
  double in_error = 0, down_error = 0;  // relative squared errors of the outputs, mean of the experts
};
/// An expert that few calibration tokens chose is rounded for what all tokens would have made of it as well.
RoundedExperts RoundExperts(const ExpertList &experts, const ActivationGrid &grid, const ExpertRounding &rounding);

/// Inner channels of the slices that an expert of `whole` channels is stored in, so that each of `depths` ends with one.
std::vector<int64_t> SlicesOf(std::vector<int64_t> depths, int64_t whole);

/// weights->experts gives what the integers stand for.
void ReplaceExperts(const QuantizedExperts &rounded, LayerWeights *weights);

}  // namespace acorn::compiler
