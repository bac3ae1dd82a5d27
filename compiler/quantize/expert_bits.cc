#include "quantize/expert_bits.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>

#include "base/error.h"
#include "base/progress.h"
#include "quantize/activations.h"
#include "quantize/grid.h"
#include "quantize/layer_quantizer.h"
#include "quantize/trials.h"

namespace acorn::compiler {
namespace {

constexpr WeightFormat kLow = WeightFormat::kW2G32;
constexpr int64_t kTrialWindows = 8;
constexpr double kScaleBits = 32;

/// The transforms that the weights of down and of a state-space layer's out expect.
class TransformObserver : public LayerObserver {
 public:
  explicit TransformObserver(const LayerView &view) : view_(view) {}
  bool Wants(Edge edge) const override { return edge == Edge::kGlu || edge == Edge::kSsmNormed; }
  void OnEdge(Edge edge, int64_t, int64_t, MatrixRef values) override {
    if (edge == Edge::kGlu) HadamardRows(values, view_.hadamard_block);
    if (edge == Edge::kSsmNormed) HadamardRows(values, StateBlock(view_.config));
  }
  void OnExpertEdge(Edge edge, int64_t, int64_t expert, const std::vector<int64_t> &, MatrixRef values) override {
    if (edge == Edge::kGlu) HadamardRows(values, expert == kSharedExpert ? view_.hadamard_block : view_.grid.expert_block);
  }

 private:
  const LayerView &view_;
};

/// Counts the tokens of each expert and adds up what its error makes of the residual stream: the square of the difference, times
/// that of the expert's weight in the sum, over the square of the stream. (A norm follows: what is large anyway hides errors.)
class ShareObserver : public TransformObserver {
 public:
  ShareObserver(const LayerView &view, const std::vector<ExpertWeights> &low)
      : TransformObserver(view), view_(view), low_(low), error_(low.size()), tokens_(low.size()) {}
  bool Wants(Edge edge) const override {
    return edge == Edge::kResidualMid || edge == Edge::kFfnIn || edge == Edge::kRouterLogits || edge == Edge::kDownOut ||
           TransformObserver::Wants(edge);
  }
  void OnEdge(Edge edge, int64_t layer, int64_t first_token, MatrixRef values) override {
    if (edge == Edge::kResidualMid) stream_ = values.rowwise().squaredNorm().cwiseMax(1e-20f);
    if (edge == Edge::kFfnIn) {
      ffn_in_ = values;
      first_ = first_token;
    }
    if (edge == Edge::kRouterLogits) routing_ = Route(view_.config, values);
    TransformObserver::OnEdge(edge, layer, first_token, values);
  }
  void OnExpertEdge(Edge edge, int64_t layer, int64_t expert, const std::vector<int64_t> &at, MatrixRef values) override {
    TransformObserver::OnExpertEdge(edge, layer, expert, at, values);
    if (edge != Edge::kDownOut || expert == kSharedExpert) return;
    const Matrix out = Low(low_[static_cast<size_t>(expert)], at);
    const auto top_k = static_cast<size_t>(view_.config.experts_per_token);
    for (size_t i = 0; i < at.size(); ++i) {
      const int64_t token = at[i] - first_;
      const size_t first = static_cast<size_t>(token) * top_k;
      for (size_t j = first; j < first + top_k; ++j) {
        if (routing_.experts[j] != expert) continue;
        const auto row = static_cast<int64_t>(i);
        const auto weight = static_cast<double>(routing_.weights[j]);
        const auto difference = static_cast<double>((out.row(row) - values.row(row)).squaredNorm() / stream_[token]);
        error_[static_cast<size_t>(expert)] += difference * weight * weight;
      }
    }
    tokens_[static_cast<size_t>(expert)] += static_cast<double>(at.size());
  }
  /// [experts]
  const std::vector<double> &error() const { return error_; }
  const std::vector<double> &tokens() const { return tokens_; }

 private:
  /// What the expert in 2 bits makes of the same tokens.
  Matrix Low(const ExpertWeights &expert, const std::vector<int64_t> &at) const {
    const auto rows = static_cast<int64_t>(at.size());
    Matrix x(rows, ffn_in_.cols());
    for (int64_t i = 0; i < rows; ++i) x.row(i) = ffn_in_.row(at[static_cast<size_t>(i)] - first_);
    Matrix gate(rows, expert.gate.rows()), up(rows, expert.up.rows()), out(rows, expert.down.rows());
    ExpertLinear(gate, x, expert.gate);
    ExpertLinear(up, x, expert.up);
    ApplyActivation(gate, view_.config.activation);
    gate.array() *= up.array();
    HadamardRows(gate, view_.grid.expert_block);
    ExpertLinear(out, gate, expert.down);
    return out;
  }

  const LayerView &view_;
  const std::vector<ExpertWeights> &low_;
  Eigen::VectorXf stream_;  // [tokens]
  Matrix ffn_in_;           // [tokens, hidden]
  int64_t first_ = 0;
  Routing routing_;
  std::vector<double> error_, tokens_;
};

/// Carries the hidden states of every trial through the layers beside those of the float model.
class ExpertProbe : public LayerProbe {
 public:
  struct Trial {
    int64_t layer, expert;  // -1: all experts of the layer
    Matrix x;
  };

  ExpertProbe(const Matrix &x, int64_t window, ExpertRanking ranking)
      : window_(window), ranking_(ranking), float_x_(x), low_x_(x) {}

  void OnLayer(const LayerView &view) override {
    for (Trial &trial : trials_) Run(view, &trial.x);
    if (!view.rounded.experts.empty()) return TryExperts(view);
    Run(view, &low_x_);
    Run(view, &float_x_);
  }

  const std::vector<Trial> &trials() const { return trials_; }
  const Matrix &float_x() const { return float_x_; }
  const Matrix &low_x() const { return low_x_; }
  /// [layers, experts]: an expert's part of the error of its layer, and its tokens; empty for dense layers.
  const std::vector<std::vector<double>> &errors() const { return errors_; }
  const std::vector<std::vector<double>> &tokens() const { return tokens_; }

 private:
  void Run(const LayerView &view, Matrix *x, TransformObserver *observer = nullptr) const {
    TransformObserver plain(view);
    RunLayer(view.config, *view.weights, view.layer, *x, EvenBoundaries(x->rows(), window_), view.rope, view.prefix,
             observer == nullptr ? &plain : observer);
  }

  void TryExperts(const LayerView &view) {
    std::vector<ExpertWeights> low;
    for (const ExpertMatrices &expert : view.round_experts(kLow)) {
      low.push_back({Dequantize(expert.gate), Dequantize(expert.up), Dequantize(expert.down)});
    }
    const auto layer = static_cast<size_t>(view.layer);
    errors_.resize(layer + 1);
    tokens_.resize(layer + 1);
    Matrix float_out = float_x_;
    ShareObserver shares(view, low);
    Run(view, &float_out, &shares);
    errors_[layer] = shares.error();
    tokens_[layer] = shares.tokens();
    const ExpertLoader whole = view.weights->experts;
    const auto lower = [&](int64_t only) {
      view.weights->experts = [&whole, &low, only](int64_t e) {
        if (only >= 0 && e != only) return whole(e);
        return std::shared_ptr<const ExpertWeights>(std::shared_ptr<void>(), &low[static_cast<size_t>(e)]);
      };
    };
    const auto attempt = [&](int64_t only) {
      lower(only);
      trials_.push_back({view.layer, only, float_x_});
      Run(view, &trials_.back().x);
    };
    if (ranking_ == ExpertRanking::kImportance) {
      for (int64_t e = 0; e < view.config.experts; ++e) attempt(e);
    } else if (ranking_ == ExpertRanking::kLoss) {
      attempt(-1);
    }
    lower(-1);
    Run(view, &low_x_);
    view.weights->experts = whole;
    float_x_ = std::move(float_out);
  }

  int64_t window_;
  ExpertRanking ranking_;
  Matrix float_x_, low_x_;
  std::vector<Trial> trials_;
  std::vector<std::vector<double>> errors_, tokens_;
};

struct Place {
  size_t layer, expert;
  double importance;
};

/// Numbers that are the same on every machine.
std::vector<double> RandomNumbers(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<double> numbers;
  for (size_t i = 0; i < count; ++i) numbers.push_back(static_cast<double>(random() >> 11));
  return numbers;
}

/// Runs the trials and fills `choice->importance`; loss_of_all too where the ranking measures losses.
void Measure(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &options, ExpertRanking ranking,
             ExpertChoice *choice) {
  const ModelConfig &config = source.config();
  const std::vector<int32_t> prefix = PrefixOf(source, windows, options);
  choice->prefix_tokens = prefix;
  const int64_t trials = config.layers * (ranking == ExpertRanking::kImportance ? config.experts : 1);
  const SearchTokens tokens = ChooseSearchTokens(windows, kTrialWindows, trials, config.hidden);
  LayerQuantizer quantizer(source, options, FfnShapeOf(config, options), windows.window, Embed(source, tokens.calibration),
                           prefix.empty() ? Matrix(0, config.hidden) : Embed(source, prefix));
  ExpertProbe probe(Embed(source, tokens.trial), tokens.trial_window, ranking);
  Progress progress("ranking experts, layers", config.layers);
  ConversionReport unused;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    quantizer.Quantize(layer, nullptr, &unused, &probe);
    progress.Update(layer + 1);
  }
  progress.Finish();

  choice->importance = ranking == ExpertRanking::kUsage ? probe.tokens() : probe.errors();
  choice->importance.resize(static_cast<size_t>(config.layers));
  if (ranking == ExpertRanking::kUsage) return;
  const HeadScorer scorer(source);
  const Matrix reference = scorer.Logits(ScoredRows(probe.float_x()));
  const auto loss_of = [&](const Matrix &x) { return std::max(0.0, Divergence(reference, scorer.Logits(ScoredRows(x)))); };
  Progress scoring("ranking experts, losses", static_cast<int64_t>(probe.trials().size()));
  int64_t done = 0;
  for (const ExpertProbe::Trial &trial : probe.trials()) {
    std::vector<double> &layer = choice->importance[static_cast<size_t>(trial.layer)];
    const double loss = loss_of(trial.x);
    if (trial.expert >= 0) {
      layer[static_cast<size_t>(trial.expert)] = loss;
    } else {
      const double sum = std::max(std::accumulate(layer.begin(), layer.end(), 0.0), 1e-30);
      for (double &error : layer) error *= loss / sum;
    }
    scoring.Update(++done);
  }
  scoring.Finish();
  choice->loss_of_all = loss_of(probe.low_x());
}

void CheckBits(double bits, double low, double high) {
  if (bits >= low && bits <= high) return;
  char text[160];
  std::snprintf(text, sizeof text, "convert: --expert-budget: %.4g bits are %s than the %.4g that experts of %d bits take", bits,
                bits < low ? "less" : "more", bits < low ? low : high, bits < low ? 2 : 4);
  throw Error(ExitCode::kUsage, text);
}

}  // namespace

double BitsOfExpert(WeightFormat format, int64_t hidden, int64_t ffn) {
  const auto bits = [&](int64_t n, int64_t k) {
    const WeightFormat stored = FormatForDepth(format, k);
    const uint32_t group = GroupSize(stored);
    const double weight = WeightBits(stored) + (group == 0 ? 0 : 8.0 / group);
    return static_cast<double>(n * k) * weight + static_cast<double>(n) * kScaleBits;
  };
  return (2 * bits(ffn, hidden) + bits(hidden, ffn)) / static_cast<double>(3 * hidden * ffn);
}

ExpertChoice ChooseExpertBits(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &options,
                              ExpertRanking ranking, const ExpertBudget &budget, uint64_t seed) {
  const ModelConfig &config = source.config();
  ExpertChoice choice;
  choice.formats.resize(static_cast<size_t>(config.layers));
  WeightFormat high = options.body_format;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    if (!config.IsSparse(layer)) continue;
    choice.formats[static_cast<size_t>(layer)] = ExpertFormatsOf(options, config, layer);
    high = choice.formats[static_cast<size_t>(layer)][0];
    choice.experts += config.experts;
  }
  const int64_t ffn = ExpertShapeOf(config, options).padded;
  const double high_bits = BitsOfExpert(high, config.hidden, ffn), low_bits = BitsOfExpert(kLow, config.hidden, ffn);
  if (budget.bits != 0) CheckBits(budget.bits, low_bits, high_bits);
  if (ranking == ExpertRanking::kRandom) {
    const std::vector<double> numbers = RandomNumbers(static_cast<size_t>(config.layers * config.experts), seed);
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      const auto first = numbers.begin() + layer * config.experts;
      choice.importance.emplace_back(first, config.IsSparse(layer) ? first + config.experts : first);
    }
  } else {
    Measure(source, windows, options, ranking, &choice);
  }

  std::vector<Place> order;
  double sum = 0;
  for (size_t layer = 0; layer < choice.importance.size(); ++layer) {
    for (size_t e = 0; e < choice.importance[layer].size(); ++e) order.push_back({layer, e, choice.importance[layer][e]});
  }
  std::stable_sort(order.begin(), order.end(), [](const Place &a, const Place &b) { return a.importance < b.importance; });
  for (const Place &place : order) sum += place.importance;

  // Errors of experts know nothing of one another, so that their losses nearly add up: to what all together were measured at.
  const double unit = sum > 0 ? choice.loss_of_all / sum : 0;
  const auto count = static_cast<double>(order.size());
  const auto average = [&](double lowered) { return (low_bits * lowered + high_bits * (count - lowered)) / count; };
  for (const Place &place : order) {
    const double loss = choice.loss + unit * place.importance;
    if (budget.bits != 0 ? average(static_cast<double>(choice.lowered)) <= budget.bits : std::expm1(loss) > budget.loss) break;
    choice.formats[place.layer][place.expert] = kLow;
    choice.loss = loss;
    ++choice.lowered;
  }
  choice.bits = average(static_cast<double>(choice.lowered));
  return choice;
}

}  // namespace acorn::compiler
