// How much of each layer a pruning rate leaves.
#pragma once

#include <cstdint>
#include <vector>

#include "import/source_model.h"
#include "passes/profiles.h"

namespace acorn::compiler {

/// The part of each layer that a mean rate drops: phi_l = s * softmax(-influence / 0.1)_l, at most 0.85, with s such that the
/// mean over `elems` is `rate`, in [0, 0.85] (UniQL, section 3). influence [layers]: 1 - cos(input, output); infinite: drops nothing.
std::vector<double> LayerRates(const std::vector<double> &influence, const std::vector<int64_t> &elems, double rate);

/// What a layer's widths are multiples of where they are not whole; 0: the part is always whole. FFN channels go by blocks of the
/// transform before down: of `block`, or less where that would pad too much (ChooseHadamardBlock()).
LayerWidths StepsOf(const ModelConfig &config, int64_t layer, const LayerOrder &order, int64_t block);

struct ProfileRequest {
  std::vector<int> rates;          // percent, ascending
  std::vector<LayerWidths> steps;  // [layers]
  std::vector<double> influence;   // [layers]; empty: the same part of every layer
  double mixer_share = 1;          // of a layer's part, which its FFN drops, what its attention or state-space half is to drop
};
/// One profile for each rate, such that the elements dropped of all that can be are `rate`, half a step more or less. Widths are
/// taken down step by step, the one first that stands furthest above what LayerRates() and mixer_share leave of it. So a higher rate
/// never keeps more of any width. No part falls below one step, or below 15 %.
std::vector<RateProfile> MakeProfiles(const ModelConfig &config, const ProfileRequest &request);

/// The part that a profile drops of all elements that can be dropped.
double RealisedRate(const ModelConfig &config, const std::vector<LayerWidths> &steps, const RateProfile &profile);

}  // namespace acorn::compiler
