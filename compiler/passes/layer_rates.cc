#include "passes/layer_rates.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "passes/hadamard.h"

namespace acorn::compiler {
namespace {

constexpr double kTemperature = 0.1;
constexpr double kHighestRate = 0.85;  // of a layer
constexpr int64_t kStateStep = 16;

constexpr int64_t LayerWidths::*kParts[] = {&LayerWidths::ffn, &LayerWidths::qk, &LayerWidths::v, &LayerWidths::state,
                                            &LayerWidths::channels};

/// The next smaller width in a ladder of steps; `kept` itself at its end.
int64_t NextWidth(int64_t whole, int64_t kept, int64_t step) {
  if (step == 0) return kept;
  const int64_t next = (kept - 1) / step * step;
  return next > 0 && static_cast<double>(next) >= (1 - kHighestRate) * static_cast<double>(whole) ? next : kept;
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

/// Narrower widths of one layer.
struct Step {
  int64_t layer = 0;
  LayerWidths widths;
  double elems = 0;  // that it drops
  double merit = 0;  // the highest is taken
};

class Narrowing {
 public:
  Narrowing(const ModelConfig &config, const ProfileRequest &request) : config_(config), request_(request) {
    for (const bool ffn : {true, false}) {
      for (int64_t layer = 0; layer < config.layers; ++layer) {
        LayerWidths steps = request.steps[static_cast<size_t>(layer)];
        steps = ffn ? LayerWidths{steps.ffn, 0, 0, 0, 0} : LayerWidths{0, steps.qk, steps.v, steps.state, steps.channels};
        elems_.push_back(PrunableElems(config, layer, steps));
        const double own = request.influence.empty() ? 0 : request.influence[static_cast<size_t>(layer)];
        // A share is a factor of what LayerRates() makes of it.
        influence_.push_back(ffn ? own : own - kTemperature * std::log(request.mixer_share));
      }
    }
  }

  /// Takes the profile's widths down to `rate`, in [0, 1].
  void Narrow(double rate, RateProfile *profile) const {
    const std::vector<double> parts = LayerRates(influence_, elems_, rate);
    const auto all = static_cast<double>(std::accumulate(elems_.begin(), elems_.end(), int64_t{0}));
    double left = rate * all - all * RealisedRate(config_, request_.steps, *profile);
    for (std::optional<Step> step = Best(*profile, parts); step && left > step->elems / 2; step = Best(*profile, parts)) {
      profile->layers[static_cast<size_t>(step->layer)] = step->widths;
      left -= step->elems;
    }
  }

 private:
  std::optional<Step> Best(const RateProfile &profile, const std::vector<double> &parts) const {
    std::optional<Step> best;
    for (int64_t layer = 0; layer < config_.layers; ++layer) {
      const auto l = static_cast<size_t>(layer);
      const LayerWidths whole = WholeWidths(config_, layer), &kept = profile.layers[l];
      for (const auto part : kParts) {
        Step step{layer, kept, 0, 0};
        step.widths.*part = NextWidth(whole.*part, kept.*part, request_.steps[l].*part);
        if (step.widths == kept) continue;
        step.elems = static_cast<double>(KeptElems(config_, layer, kept) - KeptElems(config_, layer, step.widths));
        const double dropped = parts[part == &LayerWidths::ffn ? l : l + parts.size() / 2];
        step.merit = static_cast<double>(kept.*part) / static_cast<double>(whole.*part) - (1 - dropped);
        if (dropped == 0) step.merit -= 1;  // only when nothing else is left
        if (!best || step.merit > best->merit) best = step;
      }
    }
    return best;
  }

  const ModelConfig &config_;
  const ProfileRequest &request_;
  // Of the FFNs, then of what mixes tokens: [2 * layers].
  std::vector<int64_t> elems_;  // that can be dropped
  std::vector<double> influence_;
};

}  // namespace

std::vector<double> LayerRates(const std::vector<double> &influence, const std::vector<int64_t> &elems, double rate) {
  std::vector<double> shares(elems.size(), 1);
  for (size_t i = 0; i < influence.size(); ++i) shares[i] = std::exp(-influence[i] / kTemperature);
  const auto rates_of = [&](double scale) {
    std::vector<double> rates;
    rates.reserve(shares.size());
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
  double least = 1;
  for (const double share : shares) {
    if (share > 0) least = std::min(least, share);
  }
  double low = 0, high = kHighestRate / least;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (mean(rates_of(middle)) < rate ? low : high) = middle;
  }
  return rates_of(high);
}

LayerWidths StepsOf(const ModelConfig &config, int64_t layer, const LayerOrder &order, int64_t block) {
  LayerWidths steps;
  if (config.HasFfn(layer)) steps.ffn = std::min(block, ChooseHadamardBlock(WholeWidths(config, layer).ffn).block);
  if (!order.pairs.empty()) steps.qk = 2 * LayerOrder::kPairBlock;
  if (order.rank_major) steps.v = LayerOrder::kRankBlock;
  if (config.IsStateSpace(layer)) steps.state = kStateStep;
  // Whole blocks of the transform before out, and whole groups of its weights: of 128 columns at most.
  for (int64_t step = LayerOrder::kChannelBlock; order.channel_major && step < config.ssm.head_dim; step += LayerOrder::kChannelBlock) {
    if (config.ssm.heads * step % 128 != 0 || config.ssm.head_dim % step != 0) continue;
    steps.channels = step;
    break;
  }
  return steps;
}

std::vector<RateProfile> MakeProfiles(const ModelConfig &config, const ProfileRequest &request) {
  RateProfile widest;
  for (int64_t layer = 0; layer < config.layers; ++layer) widest.layers.push_back(WholeWidths(config, layer));
  const Narrowing narrowing(config, request);
  std::vector<RateProfile> profiles;
  for (const int rate : request.rates) {
    RateProfile profile = profiles.empty() ? widest : profiles.back();
    profile.rate = rate;
    narrowing.Narrow(rate / 100.0, &profile);
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
