// How much of each layer a pruning rate leaves.
#pragma once

#include <cstdint>
#include <vector>

#include "import/source_model.h"
#include "passes/profiles.h"

namespace acorn::compiler {

/// The part of each layer that a mean rate drops: phi_l = s * softmax(-influence / 0.1)_l, at most 0.85, with s such that the
/// mean over `elems` is `rate`, in [0, 0.85] (UniQL, section 3). influence [layers]: 1 - cos(input, output).
std::vector<double> LayerRates(const std::vector<double> &influence, const std::vector<int64_t> &elems, double rate);

/// What a layer's widths are multiples of where they are not whole; 0: the part is always whole.
LayerWidths StepsOf(const ModelConfig &config, int64_t layer, const LayerOrder &order, int64_t ffn_step);

/// One profile for each of the ascending `rates` (percent): widths by `steps` [layers], as near to the parts that
/// layer_rates(rate) drops as possible, and such that the elements dropped are as near to `rate` of those that can be as one
/// step allows. A higher rate never keeps more of any width. Every width keeps one step at least.
struct ProfileRequest {
  std::vector<int> rates;
  std::vector<LayerWidths> steps;
  std::vector<double> influence;  // [layers]; empty: the same part of every layer
};
std::vector<RateProfile> MakeProfiles(const ModelConfig &config, const ProfileRequest &request);

/// Elements that can be dropped, of all layers, and the part of them that a profile drops.
double RealisedRate(const ModelConfig &config, const std::vector<LayerWidths> &steps, const RateProfile &profile);

}  // namespace acorn::compiler
