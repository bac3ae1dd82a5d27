#include "passes/prefix.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <numeric>

#include "base/progress.h"
#include "graph/float_model.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kWindows = 4;
constexpr int64_t kWindowTokens = 256;
constexpr double kWorseLoss = 1.01;   // a prefix may cost so much loss at most
constexpr double kMinimumGain = 0.4;  // bits of range, mean over all edges, that a further token must save
constexpr size_t kMassiveCandidates = 2;
constexpr size_t kSecondCandidates = 3;  // best single tokens that are tried as the second one

/// Bits between the largest and the typical magnitude of the inputs of linear layers and of the stream, summed.
class RangeBits : public LayerObserver {
 public:
  bool Wants(Edge edge) const override {
    return edge == Edge::kAttnIn || edge == Edge::kAttnOut || edge == Edge::kSsmNormed || edge == Edge::kFfnIn ||
           edge == Edge::kGlu || edge == Edge::kResidualOut;
  }
  void OnEdge(Edge edge, int64_t, int64_t, MatrixRef values) override {
    const double largest = static_cast<double>(values.cwiseAbs().maxCoeff());
    const double typical = std::sqrt(values.cast<double>().squaredNorm() / static_cast<double>(values.size()));
    if (largest > 0) bits_ += std::log2(largest / typical);
    ++edges_;
    if (edge != Edge::kResidualOut) return;
    for (int64_t t = 0; t < values.rows(); ++t) {
      const double magnitude = static_cast<double>(values.row(t).cwiseAbs().maxCoeff());
      massive_.resize(static_cast<size_t>(values.rows()), 0.0);
      massive_[static_cast<size_t>(t)] = std::max(massive_[static_cast<size_t>(t)], magnitude / typical);
    }
  }
  double MeanBits() const { return edges_ == 0 ? 0 : bits_ / edges_; }
  /// For each token, its largest residual over all layers in units of the typical one.
  const std::vector<double> &massive() const { return massive_; }

 private:
  double bits_ = 0;
  int64_t edges_ = 0;
  std::vector<double> massive_;
};

struct Trial {
  std::vector<int32_t> prefix;
  Matrix prefix_x, x;
  RangeBits bits;
  double loss = 0;
};

/// Runs all trials through the model together, so that each layer is read once.
void RunTrials(const SourceModel &source, const std::vector<int32_t> &ids, int64_t window, std::vector<Trial> *trials) {
  const ModelConfig &config = source.config();
  const RopeTable rope = MakeRopeTable(config, window + 2);
  const std::vector<int64_t> boundaries = EvenBoundaries(static_cast<int64_t>(ids.size()), window);
  for (Trial &trial : *trials) {
    trial.x = Embed(source, ids);
    if (!trial.prefix.empty()) trial.prefix_x = Embed(source, trial.prefix);
  }
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const LayerWeights weights = LoadLayer(source, layer);
    for (Trial &trial : *trials) {
      LayerPrefix prefix;
      if (!trial.prefix.empty()) prefix = RunPrefix(config, weights, layer, trial.prefix_x, rope, nullptr);
      RunLayer(config, weights, layer, trial.x, boundaries, rope, trial.prefix.empty() ? nullptr : &prefix, &trial.bits);
    }
  }
  const HeadScorer scorer(source);
  std::vector<int64_t> rows;
  std::vector<int32_t> targets;
  for (int64_t t = 0; t + 1 < static_cast<int64_t>(ids.size()); ++t) {
    if ((t + 1) % window == 0) continue;
    rows.push_back(t);
    targets.push_back(ids[static_cast<size_t>(t + 1)]);
  }
  for (Trial &trial : *trials) {
    Matrix picked(static_cast<int64_t>(rows.size()), trial.x.cols());
    for (size_t i = 0; i < rows.size(); ++i) picked.row(static_cast<int64_t>(i)) = trial.x.row(rows[i]);
    const std::vector<double> losses = scorer.Losses(picked, targets);
    trial.loss = std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
  }
}

/// Tokens that are massive where they stand, most massive first; not the first of a window, which always is.
std::vector<int32_t> MassiveTokens(const RangeBits &bits, const std::vector<int32_t> &ids, int64_t window) {
  std::map<int32_t, double> largest;
  for (size_t t = 0; t < bits.massive().size(); ++t) {
    if (static_cast<int64_t>(t) % window == 0) continue;
    double &value = largest[ids[t]];
    value = std::max(value, bits.massive()[t]);
  }
  std::vector<std::pair<int32_t, double>> order(largest.begin(), largest.end());
  std::stable_sort(order.begin(), order.end(), [](const auto &a, const auto &b) { return a.second > b.second; });
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < std::min(kMassiveCandidates, order.size()); ++i) tokens.push_back(order[i].first);
  return tokens;
}

const Trial *Best(const std::vector<Trial> &trials, double loss_limit, double bits_limit) {
  const Trial *best = nullptr;
  for (const Trial &trial : trials) {
    if (trial.loss > loss_limit || trial.bits.MeanBits() > bits_limit) continue;
    if (best == nullptr || trial.bits.MeanBits() < best->bits.MeanBits()) best = &trial;
  }
  return best;
}

}  // namespace

std::vector<int32_t> ChoosePrefix(const SourceModel &source, const PrefixSearch &search) {
  const int64_t window = std::min(search.window, kWindowTokens);
  const int64_t available = static_cast<int64_t>(search.ids.size()) / search.window;
  const int64_t windows = std::min(available, kWindows);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < windows; ++i) {
    const auto first = search.ids.begin() + i * available / windows * search.window;
    ids.insert(ids.end(), first, first + window);
  }
  Progress progress("constant prefix", 3);
  std::vector<Trial> none(1);
  RunTrials(source, ids, window, &none);
  progress.Update(1);
  std::vector<int32_t> candidates = search.candidates;
  for (const int32_t token : MassiveTokens(none[0].bits, ids, window)) candidates.push_back(token);
  std::sort(candidates.begin(), candidates.end());
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());

  const double loss_limit = none[0].loss * kWorseLoss;
  std::vector<int32_t> chosen;
  double bits = none[0].bits.MeanBits();
  for (int length = 1; length <= 2; ++length) {
    std::vector<Trial> trials(candidates.size());
    for (size_t i = 0; i < candidates.size(); ++i) {
      trials[i].prefix = chosen;
      trials[i].prefix.push_back(candidates[i]);
    }
    RunTrials(source, ids, window, &trials);
    progress.Update(1 + length);
    const Trial *best = Best(trials, loss_limit, bits - kMinimumGain);
    if (best == nullptr && length <= search.least) best = Best(trials, INFINITY, INFINITY);
    if (best == nullptr) break;
    chosen = best->prefix;
    bits = best->bits.MeanBits();
    std::stable_sort(trials.begin(), trials.end(),
                     [](const Trial &a, const Trial &b) { return a.bits.MeanBits() < b.bits.MeanBits(); });
    candidates.clear();
    for (size_t i = 0; i < std::min(kSecondCandidates, trials.size()); ++i) candidates.push_back(trials[i].prefix.back());
  }
  std::string note = std::to_string(chosen.size()) + " tokens";
  for (const int32_t token : chosen) note += " " + std::to_string(token);
  char ranges[80];
  std::snprintf(ranges, sizeof ranges, ", ranges of %.2f bits before, %.2f after", none[0].bits.MeanBits(), bits);
  note += ranges;
  progress.Finish(note);
  return chosen;
}

}  // namespace acorn::compiler
