#include "passes/layer_rates.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace acorn::compiler {
namespace {

constexpr double kTemperature = 0.1;
constexpr double kHighestRate = 0.85;  // of a layer

constexpr int64_t LayerWidths::*const kParts[] = {&LayerWidths::ffn, &LayerWidths::qk, &LayerWidths::v, &LayerWidths::state,
                                                  &LayerWidths::channels};

/// The next smaller width in a ladder of steps; `kept` itself at its end.
int64_t NextWidth(int64_t kept, int64_t step) {
  if (step == 0) return kept;
  const int64_t next = (kept - 1) / step * step;
  return next > 0 ? next : kept;
}

/// Elements of the layer that go with what can be cut.
int64_t PrunableElems(const ModelConfig &config, int64_t layer, const LayerWidths &steps) {
  const LayerWidths whole = WholeWidths(config, layer);
  LayerWidths fixed = whole;
  for (const auto part : kParts) {
    if (steps.*part != 0) fixed.*part = 0;
  }
  return KeptElems(config, layer, whole) - KeptElems(config, layer, fixed);
}

struct Step {
  int64_t layer = 0;
  int64_t LayerWidths::*part = nullptr;
  double excess = 0;  // of the kept width above what the layer's rate asks for, in units of the whole one
};

/// Takes the profile's widths down to `rate`.
void Narrow(const ModelConfig &config, const ProfileRequest &request, const std::vector<int64_t> &elems, double rate,
            RateProfile *profile) {
  const int64_t layers = config.layers;
  const std::vector<double> layer_rates = LayerRates(request.influence, elems, rate);
  const auto whole_elems = static_cast<double>(std::accumulate(elems.begin(), elems.end(), int64_t{0}));
  double dropped = 0;
  for (int64_t layer = 0; layer < layers; ++layer) {
    dropped += static_cast<double>(KeptElems(config, layer, WholeWidths(config, layer)) -
                                   KeptElems(config, layer, profile->layers[static_cast<size_t>(layer)]));
  }
  while (true) {
    Step best;
    best.excess = -1e30;
    for (int64_t layer = 0; layer < layers; ++layer) {
      const auto l = static_cast<size_t>(layer);
      const LayerWidths whole = WholeWidths(config, layer);
      for (const auto part : kParts) {
        const int64_t kept = profile->layers[l].*part;
        if (NextWidth(kept, request.steps[l].*part) == kept) continue;
        const double excess = static_cast<double>(kept) / static_cast<double>(whole.*part) - (1 - layer_rates[l]);
        if (excess > best.excess) best = {layer, part, excess};
      }
    }
    if (best.part == nullptr) return;
    LayerWidths &widths = profile->layers[static_cast<size_t>(best.layer)];
    LayerWidths narrower = widths;
    narrower.*best.part = NextWidth(widths.*best.part, request.steps[static_cast<size_t>(best.layer)].*best.part);
    const auto gone = static_cast<double>(KeptElems(config, best.layer, widths) - KeptElems(config, best.layer, narrower));
    if (dropped + gone / 2 > rate * whole_elems) return;
    widths = narrower;
    dropped += gone;
  }
}

}  // namespace

std::vector<double> LayerRates(const std::vector<double> &influence, const std::vector<int64_t> &elems, double rate) {
  std::vector<double> shares(elems.size(), 1);
  for (size_t i = 0; i < influence.size(); ++i) shares[i] = std::exp(-influence[i] / kTemperature);
  const auto rates_of = [&](double scale) {
    std::vector<double> rates;
    for (const double share : shares) rates.push_back(std::min(kHighestRate, scale * share));
    return rates;
  };
  const auto mean = [&](const std::vector<double> &rates) {
    double sum = 0, weight = 0;
    for (size_t i = 0; i < rates.size(); ++i) {
      sum += rates[i] * static_cast<double>(elems[i]);
      weight += static_cast<double>(elems[i]);
    }
    return weight > 0 ? sum / weight : 0;
  };
  double low = 0, high = kHighestRate / *std::min_element(shares.begin(), shares.end());
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (mean(rates_of(middle)) < rate ? low : high) = middle;
  }
  return rates_of(high);
}

LayerWidths StepsOf(const ModelConfig &config, int64_t layer, const LayerOrder &order, int64_t ffn_step) {
  LayerWidths steps;
  if (config.HasFfn(layer)) steps.ffn = ffn_step;
  if (!order.pairs.empty()) steps.qk = 2 * LayerOrder::kPairBlock;
  if (order.rank_major) steps.v = LayerOrder::kRankBlock;
  if (config.IsStateSpace(layer)) steps.state = 16;
  if (order.channel_major) steps.channels = LayerOrder::kChannelBlock;
  return steps;
}

std::vector<RateProfile> MakeProfiles(const ModelConfig &config, const ProfileRequest &request) {
  std::vector<int64_t> elems;
  RateProfile widest;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    elems.push_back(PrunableElems(config, layer, request.steps[static_cast<size_t>(layer)]));
    widest.layers.push_back(WholeWidths(config, layer));
  }
  std::vector<RateProfile> profiles;
  for (const int rate : request.rates) {
    RateProfile profile = profiles.empty() ? widest : profiles.back();
    profile.rate = rate;
    if (rate > 0) Narrow(config, request, elems, rate / 100.0, &profile);
    profiles.push_back(std::move(profile));
  }
  return profiles;
}

double RealisedRate(const ModelConfig &config, const std::vector<LayerWidths> &steps, const RateProfile &profile) {
  int64_t whole = 0, dropped = 0;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    whole += PrunableElems(config, layer, steps[static_cast<size_t>(layer)]);
    dropped += KeptElems(config, layer, WholeWidths(config, layer)) -
               KeptElems(config, layer, profile.layers[static_cast<size_t>(layer)]);
  }
  return whole == 0 ? 0 : static_cast<double>(dropped) / static_cast<double>(whole);
}

}  // namespace acorn::compiler
