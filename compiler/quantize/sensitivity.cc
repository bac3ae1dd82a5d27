#include "quantize/sensitivity.h"

#include <algorithm>
#include <optional>

#include "base/progress.h"
#include "quantize/grid.h"
#include "quantize/layer_quantizer.h"
#include "quantize/trials.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kTrialWindows = 4;
constexpr double kHeadDamping = 0.01;
constexpr int64_t kRowsAtOnce = 4096;

/// Down's transform, which its weights expect, and one input rounded to its grid if asked for.
class TrialObserver : public LayerObserver {
 public:
  TrialObserver(const LayerView &view, std::optional<Part> rounded) : view_(view), rounded_(rounded) {}
  bool Wants(Edge edge) const override { return edge == Edge::kAttnIn || edge == Edge::kFfnIn || edge == Edge::kGlu; }
  void OnEdge(Edge edge, int64_t, int64_t, MatrixRef values) override {
    const ActivationGrid &grid = view_.grid;
    if (edge == Edge::kGlu) HadamardRows(values, view_.hadamard_block);
    if (edge == Edge::kAttnIn && rounded_ == Part::kAttnIn) RoundToStep(values, grid.attn_in, grid.attn_in_limit);
    if (edge == Edge::kFfnIn && rounded_ == Part::kFfnIn) RoundToStep(values, grid.ffn_in, grid.ffn_in_limit);
    if (edge == Edge::kGlu && rounded_ == Part::kDownIn) RoundToStep(values, grid.down_in, grid.down_in_limit);
  }

 private:
  const LayerView &view_;
  std::optional<Part> rounded_;
};

/// Carries the hidden states of every trial through the layers beside those of the float model, so that each layer is
/// loaded and rounded once.
class TrialProbe : public LayerProbe {
 public:
  struct Trial {
    Sensitivity part;
    Matrix x;
  };

  TrialProbe(const Matrix &x, int64_t window) : window_(window), float_x_(x), together_x_(x) {}

  void OnLayer(const LayerView &view) override {
    for (Trial &trial : trials_) Run(view, &trial.x, {});
    LayerWeights &w = *view.weights;
    const QuantizedLayer &rounded = view.rounded;
    Try(view, Part::kQkv, LinearInput::kQkv, rounded.qkv, {&w.q, &w.k, &w.v});
    Try(view, Part::kO, LinearInput::kO, rounded.o, {&w.o});
    Try(view, Part::kGateUp, LinearInput::kGateUp, rounded.gate_up, {&w.gate, &w.up});
    Try(view, Part::kDown, LinearInput::kDown, rounded.down, {&w.down});
    for (const Part input : {Part::kAttnIn, Part::kFfnIn, Part::kDownIn}) {
      if (input == Part::kDownIn && rounded.inputs.down_in == EdgeType::kS15) continue;
      trials_.push_back({{view.layer, input, WeightFormat::kW8, 0}, float_x_});
      Run(view, &trials_.back().x, input);
    }
    Run(view, &float_x_, {});
    LayerWeights together = w;
    ReplaceByRounded(rounded, &together);
    GridObserver grid(view.config, view.grid, view.hadamard_block);
    RunLayer(view.config, together, view.layer, together_x_, EvenBoundaries(together_x_.rows(), window_), view.rope, view.prefix,
             &grid);
  }

  const std::vector<Trial> &trials() const { return trials_; }
  const Matrix &float_x() const { return float_x_; }
  const Matrix &together_x() const { return together_x_; }

 private:
  void Run(const LayerView &view, Matrix *x, std::optional<Part> rounded) const {
    TrialObserver observer(view, rounded);
    RunLayer(view.config, *view.weights, view.layer, *x, EvenBoundaries(x->rows(), window_), view.rope, view.prefix, &observer);
  }

  /// A trial for each format of a weight that is worth one. weights: those that are stacked in it, from the top.
  void Try(const LayerView &view, Part part, LinearInput input, const QuantizedMatrix &plain,
           const std::vector<Matrix *> &weights) {
    for (const WeightFormat format : MeasuredFormats(plain.format)) {
      if (FormatForDepth(format, plain.k) != format) continue;
      const Matrix rounded = Dequantize(format == plain.format ? plain : view.round(input, format));
      std::vector<Matrix> kept;
      int64_t row = 0;
      for (Matrix *weight : weights) {
        kept.push_back(*weight);
        *weight = rounded.middleRows(row, weight->rows());
        row += weight->rows();
      }
      trials_.push_back({{view.layer, part, format, 0}, float_x_});
      Run(view, &trials_.back().x, {});
      for (size_t i = 0; i < kept.size(); ++i) *weights[i] = std::move(kept[i]);
    }
  }

  int64_t window_;
  Matrix float_x_, together_x_;
  std::vector<Trial> trials_;
};

Matrix RoundedHead(const HeadScorer &scorer, const ModelConfig &config, const Matrix &x, WeightFormat format, Recipe recipe) {
  if (recipe == Recipe::kRtn) return Dequantize(RoundToGrid(scorer.head(), format, ScaleRule::kMinMax, {}));
  Matrix moments;
  for (int64_t first = 0; first < x.rows(); first += kRowsAtOnce) {
    Matrix normed = x.middleRows(first, std::min(kRowsAtOnce, x.rows() - first));
    NormRows(normed, normed, config, scorer.final_norm(), scorer.final_norm_bias());
    AddSecondMoments(&moments, normed);
  }
  return Dequantize(Gptq(scorer.head(), format, FactorHessian(moments, GroupSize(format), kHeadDamping)));
}

}  // namespace

const char *PartName(Part part) {
  constexpr const char *kNames[kParts] = {"qkv", "o", "gate_up", "down", "attn_in", "ffn_in", "down_in", "head"};
  return kNames[static_cast<size_t>(part)];
}

std::vector<WeightFormat> MeasuredFormats(WeightFormat plain) {
  switch (plain) {
    case WeightFormat::kW8:
      return {};
    case WeightFormat::kW4G32:
      return {plain};
    default:
      return {plain, WeightFormat::kW4G32};
  }
}

Sensitivities MeasureSensitivities(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &options) {
  const ModelConfig &config = source.config();
  Sensitivities result;
  result.prefix_tokens = PrefixOf(source, windows, options);
  const auto formats = static_cast<int64_t>(std::max<size_t>(1, MeasuredFormats(options.body_format).size()));
  const int64_t trials = config.layers * (kWeightParts * formats + kInputParts);
  const SearchTokens tokens = ChooseSearchTokens(windows, kTrialWindows, trials, config.hidden);
  const Matrix prefix_x = result.prefix_tokens.empty() ? Matrix(0, config.hidden) : Embed(source, result.prefix_tokens);
  RecipeOptions measured = options;
  measured.kv_bits = 8;  // what 4 cost is not for weights and inputs to win back
  LayerQuantizer quantizer(source, measured, FfnShapeOf(config, options), windows.window, Embed(source, tokens.calibration),
                           prefix_x);
  TrialProbe probe(Embed(source, tokens.trial), tokens.trial_window);
  Progress progress("measuring sensitivities, layers", config.layers);
  ConversionReport unused;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    quantizer.Quantize(layer, nullptr, &unused, &probe);
    progress.Update(layer + 1);
  }
  progress.Finish();

  const HeadScorer scorer(source);
  const Matrix float_rows = ScoredRows(probe.float_x());
  const Matrix reference = scorer.Logits(float_rows);
  const std::vector<WeightFormat> head_formats = MeasuredFormats(FormatForDepth(options.head_format, config.hidden));
  Progress scoring("measuring sensitivities, losses", static_cast<int64_t>(probe.trials().size() + head_formats.size()) + 1);
  const auto add = [&](Sensitivity part, double loss) {
    part.loss = std::max(0.0, loss);
    result.parts.push_back(part);
    scoring.Update(static_cast<int64_t>(result.parts.size()));
  };
  for (const TrialProbe::Trial &trial : probe.trials()) {
    add(trial.part, Divergence(reference, scorer.Logits(ScoredRows(trial.x))));
  }
  for (const WeightFormat format : head_formats) {
    const HeadScorer rounded(config, scorer.final_norm(), scorer.final_norm_bias(),
                             RoundedHead(scorer, config, quantizer.x(), format, options.recipe));
    add({config.layers, Part::kHead, format, 0}, Divergence(reference, rounded.Logits(float_rows)));
  }
  result.together = std::max(0.0, Divergence(reference, scorer.Logits(ScoredRows(probe.together_x()))));
  scoring.Finish();
  return result;
}

}  // namespace acorn::compiler
