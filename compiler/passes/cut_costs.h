// What a model loses when a part of one layer alone is cut: how a rate is spread over the layers and their parts.
#pragma once

#include <cstdint>
#include <vector>

#include "passes/profiles.h"

namespace acorn::compiler {

/// The loss when a part of a layer is dropped whole, in the law that fits small and large cuts alike: loss = cost * (part
/// dropped) ^ kCutExponent. A loss is the mean over tokens of |change|^2 / |states|^2 of the states that enter the head. Parts
/// that the layer lacks, or that are always whole, cost 0.
struct CutCosts {
  double ffn = 0, qk = 0, v = 0, state = 0, channels = 0;
};
/// Of SmolLM2's heads (layers 1 to 7), cut to 3/4 and to 1/2: Q and K as well as V.
inline constexpr double kCutExponent = 1.35;

/// Cuts each part in turn to about 3/4 and runs the window through the rest of the model, all cuts together so that each layer is
/// loaded once: [layers]. sorted: in the order of importance. steps: StepsOf() of each layer. ids: of one window.
/// Working memory: the states of the window for every part of every layer.
std::vector<CutCosts> MeasureCutCosts(const SourceModel &sorted, const std::vector<LayerWidths> &steps,
                                      const std::vector<int32_t> &ids);

}  // namespace acorn::compiler
