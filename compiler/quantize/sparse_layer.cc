#include "quantize/sparse_layer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "quantize/grid.h"
#include "quantize/layer_quantizer.h"

namespace acorn::compiler {
namespace {

constexpr size_t kProbedExperts = 4;
constexpr double kPriorTokens = 64;  // that all tokens count for in an expert's second moments
constexpr double kDamping = 0.01;    // of GPTQ, relative to the mean of the diagonal
constexpr int64_t kErrorRows = 64;   // that say how far an expert is off which was rounded to nearest
constexpr double kHeadroom16 = 2.0;  // 16-bit edges: room for what calibration did not see

void Pad(FfnShape shape, ExpertWeights *expert) {
  const int64_t hidden = expert->gate.cols(), ffn = expert->gate.rows();
  expert->gate.conservativeResize(shape.padded, hidden);
  expert->up.conservativeResize(shape.padded, hidden);
  expert->gate.bottomRows(shape.padded - ffn).setZero();
  expert->up.bottomRows(shape.padded - ffn).setZero();
  Matrix down = Matrix::Zero(hidden, shape.padded);
  down.leftCols(ffn) = expert->down;
  expert->down = std::move(down);
  HadamardRows(expert->down, shape.block);
}

double Step16(double largest) { return std::max(largest, 1e-6) * kHeadroom16 / 32767; }

/// What `expert` makes of rows of the FFN's input, on the grid of down's input.
Matrix DownInputOf(const ExpertWeights &expert, const Matrix &x, const ActivationGrid &grid, ActivationKind activation) {
  Matrix gate(x.rows(), expert.gate.rows()), up(x.rows(), expert.up.rows());
  ExpertLinear(gate, x, expert.gate);
  ExpertLinear(up, x, expert.up);
  ApplyActivation(gate, activation);
  gate.array() *= up.array();
  HadamardRows(gate, grid.expert_block);
  RoundToStep(gate, grid.expert_down_in, 127);
  return gate;
}

/// Relative squared error of the outputs for rows of the input. Where there are few, less work than by their moments.
double OutputError(const Matrix &x, const Matrix &w, const QuantizedMatrix &q) {
  const Matrix difference = w - Dequantize(q);
  Matrix error(x.rows(), w.rows()), output(x.rows(), w.rows());
  ExpertLinear(error, x, difference);
  ExpertLinear(output, x, w);
  const auto sum = static_cast<double>(output.squaredNorm());
  return sum > 0 ? static_cast<double>(error.squaredNorm()) / sum : 0;
}

/// Moments of its tokens, and of `prior` rows as if they were kPriorTokens more.
Matrix WithPrior(const Matrix &own, const Matrix &prior) {
  Matrix moments;
  AddSecondMoments(&moments, prior);
  moments *= static_cast<float>(kPriorTokens / static_cast<double>(std::max<int64_t>(1, prior.rows())));
  if (own.size() != 0) moments += own;
  return moments;
}

/// GPTQ; with so few levels as 2 bits have, the scales of channels gain from being fitted again to what they multiply.
QuantizedMatrix RoundExpert(const Matrix &w, WeightFormat format, const GptqFactor &factor, const Matrix &moments) {
  QuantizedMatrix rounded = Gptq(w, format, factor);
  if (WeightBits(format) == 2) RefitScales(w, moments, &rounded);
  return rounded;
}

}  // namespace

ExpertList LoadExperts(const ModelConfig &config, FfnShape shape, FfnShape shared_shape, LayerWeights *weights) {
  ExpertList experts;
  for (int64_t e = 0; e < config.experts; ++e) {
    auto expert = std::make_shared<ExpertWeights>(*weights->experts(e));
    Pad(shape, expert.get());
    experts.push_back(std::move(expert));
  }
  weights->experts = [experts](int64_t e) { return experts[static_cast<size_t>(e)]; };
  if (weights->shared.gate.rows() != 0) Pad(shared_shape, &weights->shared);
  return experts;
}

Matrix ProbeOfInputs(const ExpertList &experts, const LayerWeights &weights) {
  std::vector<const Matrix *> parts;
  if (weights.shared.gate.rows() != 0) parts = {&weights.shared.gate, &weights.shared.up};
  for (size_t e = 0; e < std::min(kProbedExperts, experts.size()); ++e) {
    parts.push_back(&experts[e]->gate);
    parts.push_back(&experts[e]->up);
  }
  int64_t rows = 0;
  for (const Matrix *part : parts) rows += part->rows();
  Matrix all(rows, parts[0]->cols());
  rows = 0;
  for (const Matrix *part : parts) {
    all.middleRows(rows, part->rows()) = *part;
    rows += part->rows();
  }
  return all;
}

void ScaleInputs(const RowVector &factors, ExpertList *experts, LayerWeights *weights) {
  const auto scale = [&](Matrix *m) { m->array().rowwise() *= factors.array(); };
  for (const auto &expert : *experts) {
    scale(&expert->gate);
    scale(&expert->up);
  }
  scale(&weights->router);
  if (weights->shared.gate.rows() != 0) {
    scale(&weights->shared.gate);
    scale(&weights->shared.up);
  }
  if (weights->shared_gate.size() != 0) weights->shared_gate.array() *= factors.array();
}

void ChooseExpertScales(const RangeObserver &ranges, const ExpertList &experts, bool measured, double narrow_reach,
                        ActivationGrid *grid, ExpertScales *scales) {
  const ExpertRanges &seen = ranges.experts();
  scales->gate16 = Step16(seen.Reach(seen.gate));
  scales->up16 = Step16(seen.Reach(seen.up));
  scales->glu_largest = std::max(seen.Reach(seen.glu), 1e-6) * kHeadroom16;
  // Each slice of an expert has an output of its own, the difference of those of two rates: at most twice the farthest of them, which
  // is the headroom.
  scales->down16 = Step16(std::max({seen.Reach(seen.down_out), ranges.Reach(Edge::kDownOut), narrow_reach}));
  const double reach = seen.Reach(seen.down_in);
  double logs = 0, count = 0;
  for (size_t e = 0; measured && e < experts.size() && count < kProbedExperts; ++e) {
    if (seen.samples[e].rows() < 16) continue;
    logs += std::log(BestActivationStep(seen.samples[e], experts[e]->down, reach));
    ++count;
  }
  grid->expert_down_in = count > 0 ? std::exp(logs / count) : std::max(reach, 1e-6) / 127;
  scales->down_in = grid->expert_down_in;
  // A logit's unit: fine beyond any difference that matters, and room for magnitudes of 32,767.
  scales->router = 1.0 / 65536;
}

RoundedExperts RoundExperts(const ExpertList &experts, const ActivationGrid &grid, const ExpertRounding &rounding) {
  RoundedExperts result;
  Matrix samples = rounding.ranges->Samples(LinearInput::kGateUp);
  if (rounding.moments == nullptr) samples = Matrix(samples.topRows(std::min(kErrorRows, samples.rows())));
  RoundToStep(samples, grid.ffn_in, grid.ffn_in_limit);
  for (size_t e = 0; e < experts.size(); ++e) {
    const ExpertWeights &expert = *experts[e];
    const WeightFormat in = FormatForDepth(rounding.formats[e], expert.gate.cols());
    const WeightFormat down = FormatForDepth(rounding.formats[e], expert.down.cols());
    ExpertMatrices rounded;
    const Matrix down_samples = DownInputOf(expert, samples, grid, rounding.activation);
    const double share = 1 / static_cast<double>(experts.size());
    const auto add_errors = [&](double gate, double up, double down_error) {
      result.in_error += share * 0.5 * (gate + up);
      result.down_error += share * down_error;
    };
    if (rounding.moments == nullptr) {
      rounded.gate = RoundToGrid(expert.gate, in, ScaleRule::kMinMax, {});
      rounded.up = RoundToGrid(expert.up, in, ScaleRule::kMinMax, {});
      rounded.down = RoundToGrid(expert.down, down, ScaleRule::kMinMax, {});
      add_errors(OutputError(samples, expert.gate, rounded.gate), OutputError(samples, expert.up, rounded.up),
                 OutputError(down_samples, expert.down, rounded.down));
    } else {
      const Matrix in_moments = WithPrior(rounding.moments->expert_inputs()[e], samples);
      const Matrix down_moments = WithPrior(rounding.moments->expert_down_inputs()[e], down_samples);
      const GptqFactor factor = FactorHessian(in_moments, GroupSize(in), kDamping);
      rounded.gate = RoundExpert(expert.gate, in, factor, in_moments);
      rounded.up = RoundExpert(expert.up, in, factor, in_moments);
      Matrix hessian = down_moments;
      if (rounding.separate_rates) SeparateAt(rounding.depths, &hessian);
      rounded.down = RoundExpert(expert.down, down, FactorHessian(hessian, GroupSize(down), kDamping), down_moments);
      add_errors(RelativeOutputError(expert.gate, rounded.gate, in_moments), RelativeOutputError(expert.up, rounded.up, in_moments),
                 RelativeOutputError(expert.down, rounded.down, down_moments));
    }
    result.experts.push_back(std::move(rounded));
  }
  return result;
}

std::vector<int64_t> SlicesOf(std::vector<int64_t> depths, int64_t whole) {
  depths.push_back(whole);
  std::sort(depths.begin(), depths.end());
  depths.erase(std::unique(depths.begin(), depths.end()), depths.end());
  std::adjacent_difference(depths.begin(), depths.end(), depths.begin());
  return depths;
}

void ReplaceExperts(const QuantizedExperts &rounded, LayerWeights *weights) {
  ExpertList experts;
  for (const ExpertMatrices &expert : rounded.experts) {
    experts.push_back(std::make_shared<ExpertWeights>(
        ExpertWeights{Dequantize(expert.gate), Dequantize(expert.up), Dequantize(expert.down)}));
  }
  weights->experts = [experts](int64_t e) { return experts[static_cast<size_t>(e)]; };
  weights->router = Dequantize(rounded.router);
  if (rounded.shared_gate.n != 0) weights->shared_gate = Dequantize(rounded.shared_gate).row(0);
}

}  // namespace acorn::compiler
