#include "quantize/expert_bits.h"

#include <algorithm>
#include <array>
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

constexpr int64_t kTrialWindows = 8;
constexpr double kScaleBits = 32;
constexpr double kTiny = 1e-30;  // no error is divided by less

/// What an expert may be lowered to, from 8 bits: 4 first, then 2.
enum Level : size_t { kFour, kTwo, kLevels };
constexpr WeightFormat kTwoBits = WeightFormat::kW2G32;
/// [layers, experts] for each level
using Losses = std::array<std::vector<std::vector<double>>, kLevels>;

/// Of an expert in 4 bits where one in 2 bits loses 1 and nobody measures: a quarter of the step, a sixteenth of the squared error.
constexpr double kUnmeasuredFour = 1.0 / 16;

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
  /// What the lowered expert makes of the same tokens.
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

/// Carries the hidden states of every trial, in which experts have 2 bits, through the layers beside those of the float model.
class ExpertProbe : public LayerProbe {
 public:
  struct Trial {
    int64_t layer, expert;  // -1: all experts of the layer
    Matrix x;
  };

  ExpertProbe(const Matrix &x, int64_t window, ExpertRanking ranking) : window_(window), ranking_(ranking), float_x_(x) {
    low_x_.fill(x);
  }

  void OnLayer(const LayerView &view) override {
    for (Trial &trial : trials_) Run(view, &trial.x);
    if (!view.rounded.experts.empty()) return TryExperts(view);
    for (Matrix &x : low_x_) Run(view, &x);
    Run(view, &float_x_);
  }

  const std::vector<Trial> &trials() const { return trials_; }
  const Matrix &float_x() const { return float_x_; }
  /// All experts at this level.
  const Matrix &low_x(Level level) const { return low_x_[level]; }
  /// [layers, experts]: an expert's part of the squared error of its layer, and its tokens; empty for dense layers.
  const Losses &errors() const { return errors_; }
  const std::vector<std::vector<double>> &tokens() const { return tokens_; }

 private:
  void Run(const LayerView &view, Matrix *x, TransformObserver *observer = nullptr) const {
    TransformObserver plain(view);
    RunLayer(view.config, *view.weights, view.layer, *x, EvenBoundaries(x->rows(), window_), view.rope, view.prefix,
             observer == nullptr ? &plain : observer);
  }

  void TryExperts(const LayerView &view) {
    Matrix float_out;
    for (const Level level : {kFour, kTwo}) float_out = TryLevel(view, level);
    float_x_ = std::move(float_out);
  }

  /// Returns what the layer itself makes of float_x_.
  Matrix TryLevel(const LayerView &view, Level level) {
    std::vector<ExpertWeights> low;
    std::vector<ExpertMatrices> two_bits;
    if (level == kTwo) two_bits = view.round_experts(kTwoBits);
    for (const ExpertMatrices &expert : level == kTwo ? two_bits : view.rounded.experts.experts) {
      low.push_back({Dequantize(expert.gate), Dequantize(expert.up), Dequantize(expert.down)});
    }
    const auto layer = static_cast<size_t>(view.layer);
    errors_[level].resize(layer + 1);
    tokens_.resize(layer + 1);
    Matrix float_out = float_x_;
    ShareObserver shares(view, low);
    Run(view, &float_out, &shares);
    errors_[level][layer] = shares.error();
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
    if (level == kTwo && ranking_ == ExpertRanking::kImportance) {
      for (int64_t e = 0; e < view.config.experts; ++e) attempt(e);
    } else if (level == kTwo && ranking_ == ExpertRanking::kLoss) {
      attempt(-1);
    }
    lower(-1);
    Run(view, &low_x_[level]);
    view.weights->experts = whole;
    return float_out;
  }

  int64_t window_;
  ExpertRanking ranking_;
  Matrix float_x_;
  std::array<Matrix, kLevels> low_x_;
  std::vector<Trial> trials_;
  Losses errors_;
  std::vector<std::vector<double>> tokens_;
};

/// Numbers that are the same on every machine.
std::vector<double> RandomNumbers(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<double> numbers;
  for (size_t i = 0; i < count; ++i) numbers.push_back(static_cast<double>(random() >> 11));
  return numbers;
}

/// Makes the numbers add up to `sum`.
void Scale(std::vector<std::vector<double>> *layers, double sum) {
  double before = 0;
  for (const auto &layer : *layers) before += std::accumulate(layer.begin(), layer.end(), 0.0);
  for (auto &layer : *layers) {
    for (double &number : layer) number *= sum / std::max(before, kTiny);
  }
}

/// What experts cost whose importance is no loss.
Losses Unmeasured(const std::vector<std::vector<double>> &importance) {
  Losses losses = {importance, importance};
  for (auto &layer : losses[kFour]) {
    for (double &loss : layer) loss *= kUnmeasuredFour;
  }
  return losses;
}

/// Runs the trials. Fills prefix_tokens and importance, and where the ranking measures losses loss_of_four and loss_of_two;
/// returns what an expert costs at each level, in nats a token where it is measured.
Losses Measure(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &options, ExpertRanking ranking,
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

  if (ranking == ExpertRanking::kUsage) {
    choice->importance = probe.tokens();
    choice->importance.resize(static_cast<size_t>(config.layers));
    return Unmeasured(choice->importance);
  }
  const HeadScorer scorer(source);
  const Matrix reference = scorer.Logits(ScoredRows(probe.float_x()));
  const auto loss_of = [&](const Matrix &x) { return std::max(0.0, Divergence(reference, scorer.Logits(ScoredRows(x)))); };
  Progress scoring("ranking experts, losses", static_cast<int64_t>(probe.trials().size()));
  int64_t done = 0;
  choice->importance = probe.errors()[kTwo];
  choice->importance.resize(static_cast<size_t>(config.layers));
  for (const ExpertProbe::Trial &trial : probe.trials()) {
    std::vector<double> &layer = choice->importance[static_cast<size_t>(trial.layer)];
    const double loss = loss_of(trial.x);
    if (trial.expert >= 0) {
      layer[static_cast<size_t>(trial.expert)] = loss;
    } else {
      const double sum = std::max(std::accumulate(layer.begin(), layer.end(), 0.0), kTiny);
      for (double &error : layer) error *= loss / sum;
    }
    scoring.Update(++done);
  }
  scoring.Finish();
  choice->loss_of_four = loss_of(probe.low_x(kFour));
  choice->loss_of_two = loss_of(probe.low_x(kTwo));

  // A loss goes with the square of the error that makes it.
  Losses losses = {choice->importance, choice->importance};
  for (size_t layer = 0; layer < losses[kFour].size(); ++layer) {
    for (size_t e = 0; e < losses[kFour][layer].size(); ++e) {
      losses[kFour][layer][e] *= probe.errors()[kFour][layer][e] / std::max(probe.errors()[kTwo][layer][e], kTiny);
    }
  }
  // Errors of experts know nothing of one another, so that their losses nearly add up: to what all together were measured at.
  Scale(&losses[kFour], choice->loss_of_four);
  Scale(&losses[kTwo], choice->loss_of_two);
  return losses;
}

void CheckBits(double bits, double two, double four, double eight) {
  const double least = std::min(two, four);
  if (bits >= least && bits <= eight) return;
  char text[160];
  std::snprintf(text, sizeof text, "convert: --expert-budget: %.4g bits are %s than the %.4g that experts of %d bits take", bits,
                bits < least ? "less" : "more", bits < least ? least : eight, bits > eight ? 8 : two < four ? 2 : 4);
  throw Error(ExitCode::kUsage, text);
}

/// The options for experts as wide as groups of 32 want them, since some may get 2 bits.
RecipeOptions WithRoomForGroups(RecipeOptions options, const ModelConfig &config) {
  const std::vector<WeightFormat> layer(static_cast<size_t>(config.experts), options.body_format);
  if (options.expert_formats.empty()) options.expert_formats.assign(static_cast<size_t>(config.layers), layer);
  options.expert_formats.push_back({kTwoBits});  // of a layer that there is not
  return options;
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

std::vector<ExpertStep> StepsDown(const std::vector<std::vector<ExpertPoint>> &experts) {
  std::vector<ExpertStep> steps;
  for (size_t expert = 0; expert < experts.size(); ++expert) {
    const std::vector<ExpertPoint> &points = experts[expert];
    const auto price = [&](size_t from, size_t to) {
      const double saved = points[from].bits - points[to].bits;
      return saved > 0 ? (points[to].loss - points[from].loss) / saved : INFINITY;
    };
    for (size_t from = 0, to = 0; from + 1 < points.size(); from = to) {
      to = from + 1;
      for (size_t next = to + 1; next < points.size(); ++next) to = price(from, next) < price(from, to) ? next : to;
      if (price(from, to) == INFINITY) continue;
      steps.push_back({expert, from, to, price(from, to), points[to].loss - points[from].loss});
    }
  }
  std::stable_sort(steps.begin(), steps.end(), [](const ExpertStep &a, const ExpertStep &b) { return a.price < b.price; });
  return steps;
}

ExpertChoice ChooseExpertBits(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &four_bits,
                              ExpertRanking ranking, const ExpertBudget &budget, uint64_t seed) {
  const ModelConfig &config = source.config();
  const RecipeOptions options = WithRoomForGroups(four_bits, config);
  WeightFormat four_bit_format = options.body_format;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    if (config.IsSparse(layer)) four_bit_format = ExpertFormatsOf(options, config, layer)[0];
  }
  const int64_t ffn = ExpertShapeOf(config, options).padded;
  const auto bits_of = [&](WeightFormat format) { return BitsOfExpert(format, config.hidden, ffn); };
  const double two = bits_of(kTwoBits), four = bits_of(four_bit_format), eight = bits_of(WeightFormat::kW8);
  if (budget.bits != 0) CheckBits(budget.bits, two, four, eight);

  ExpertChoice choice;
  Losses losses;
  if (ranking == ExpertRanking::kRandom) {
    const std::vector<double> numbers = RandomNumbers(static_cast<size_t>(config.layers * config.experts), seed);
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      const auto first = numbers.begin() + layer * config.experts;
      choice.importance.emplace_back(first, config.IsSparse(layer) ? first + config.experts : first);
    }
    losses = Unmeasured(choice.importance);
  } else {
    losses = Measure(source, windows, options, ranking, &choice);
  }

  // Slots of the device are as large as the largest expert: 8 bits must be needed before anybody gets them.
  const bool from_four = budget.bits != 0 ? budget.bits <= four : std::expm1(choice.loss_of_four) <= budget.loss;
  std::vector<ExpertPoint> points = {{WeightFormat::kW8, eight, 0}, {four_bit_format, four, 0}, {kTwoBits, two, 0}};
  if (from_four) points.erase(points.begin());
  std::vector<std::vector<ExpertPoint>> experts;
  std::vector<WeightFormat *> formats;  // of each
  choice.formats.resize(choice.importance.size());
  for (size_t layer = 0; layer < choice.formats.size(); ++layer) {
    choice.formats[layer].assign(choice.importance[layer].size(), points[0].format);
    for (size_t e = 0; e < choice.formats[layer].size(); ++e) {
      for (const Level level : {kFour, kTwo}) points[points.size() - kLevels + level].loss = losses[level][layer][e];
      experts.push_back(points);
      formats.push_back(&choice.formats[layer][e]);
    }
  }

  std::vector<int64_t> count(points.size(), 0);
  count[0] = choice.experts = static_cast<int64_t>(experts.size());
  const auto average = [&] {
    double sum = 0;
    for (size_t i = 0; i < points.size(); ++i) sum += points[i].bits * static_cast<double>(count[i]);
    return sum / static_cast<double>(choice.experts);
  };
  choice.loss = from_four ? choice.loss_of_four : 0;
  for (const ExpertStep &step : StepsDown(experts)) {
    if (budget.bits != 0 ? average() <= budget.bits : std::expm1(choice.loss + step.loss) > budget.loss) break;
    --count[step.from];
    ++count[step.to];
    choice.loss += step.loss;
    *formats[step.expert] = points[step.to].format;
  }
  choice.in_two = count[count.size() - kLevels + kTwo];
  choice.in_four = count[count.size() - kLevels + kFour];
  if (choice.loss_of_two == 0) choice.loss = 0;  // nothing was measured
  choice.bits = average();
  return choice;
}

}  // namespace acorn::compiler
