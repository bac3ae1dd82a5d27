#include "quantize/recipe.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/progress.h"
#include "graph/float_model.h"
#include "passes/hadamard.h"
#include "passes/prefix.h"
#include "quantize/activations.h"
#include "quantize/grid.h"
#include "quantize/layer_quantizer.h"

namespace acorn::compiler {
namespace {

constexpr double kDamping = 0.01;
constexpr int64_t kHeadSampleRows = 512;
constexpr int64_t kRowsAtOnce = 4096;
constexpr int64_t kScoredWindows = 8;

Matrix NormRows(ConstMatrixRef x, const RowVector &weight, double eps) {
  Matrix out(x.rows(), x.cols());
  RmsNorm(out, x, weight, eps);
  return out;
}

struct HeadInput {
  double step = 0;
  Matrix moments;  // only when asked for
};

/// Range of the head's input and, for GPTQ, its second moments.
HeadInput MeasureHeadInput(const Matrix &x, const RowVector &norm, const Matrix &head, double eps, Recipe recipe,
                           bool with_moments) {
  HeadInput result;
  double largest = 0;
  for (int64_t first = 0; first < x.rows(); first += kRowsAtOnce) {
    const Matrix normed = NormRows(x.middleRows(first, std::min(kRowsAtOnce, x.rows() - first)), norm, eps);
    largest = std::max(largest, static_cast<double>(normed.cwiseAbs().maxCoeff()));
  }
  result.step = std::max(largest, 1e-6) / 127;
  if (recipe == Recipe::kFast) {
    const int64_t stride = std::max<int64_t>(1, x.rows() / kHeadSampleRows);
    Matrix samples((x.rows() + stride - 1) / stride, x.cols());
    for (int64_t i = 0; i < samples.rows(); ++i) samples.row(i) = x.row(i * stride);
    result.step = BestActivationStep(NormRows(samples, norm, eps), head, largest);
  }
  for (int64_t first = 0; with_moments && first < x.rows(); first += kRowsAtOnce) {
    Matrix normed = NormRows(x.middleRows(first, std::min(kRowsAtOnce, x.rows() - first)), norm, eps);
    RoundToStep(normed, result.step, 127);
    AddSecondMoments(&result.moments, normed);
  }
  return result;
}

/// Perplexity of the rounded model over the first windows: what the steps before the file predict for it.
double SimulatedPerplexity(const ModelConfig &config, const Matrix &x, const RowVector &norm, const QuantizedMatrix &head,
                           const std::vector<int32_t> &ids, int64_t window) {
  const int64_t windows = std::min(x.rows() / window, kScoredWindows);
  Matrix rows(windows * (window - 1), x.cols());
  std::vector<int32_t> targets;
  for (int64_t i = 0; i < windows; ++i) {
    rows.middleRows(i * (window - 1), window - 1) = x.middleRows(i * window, window - 1);
    targets.insert(targets.end(), ids.begin() + i * window + 1, ids.begin() + (i + 1) * window);
  }
  const std::vector<double> losses = HeadScorer(config, norm, Dequantize(head)).Losses(rows, targets);
  return std::exp(std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size()));
}

/// A start or end of text that serves as prefix is massive again wherever it stands: calibration goes without it.
void DropTokens(std::vector<int32_t> *ids, const std::vector<int32_t> &prefix, const ModelConfig &config, int64_t window) {
  const auto is_mark = [&](int32_t id) {
    const bool special = id == config.bos_id || std::count(config.eos_ids.begin(), config.eos_ids.end(), id) != 0;
    return special && std::count(prefix.begin(), prefix.end(), id) != 0;
  };
  std::vector<int32_t> kept;
  std::copy_if(ids->begin(), ids->end(), std::back_inserter(kept), [&](int32_t id) { return !is_mark(id); });
  kept.resize(kept.size() / static_cast<size_t>(window) * static_cast<size_t>(window));
  if (!kept.empty()) *ids = std::move(kept);
}

QuantizedMatrix RoundEmbedding(const Matrix &w, const RecipeOptions &options) {
  const WeightFormat format = FormatForDepth(options.head_format, w.cols());
  const ScaleRule rule =
      options.recipe == Recipe::kFast && format != WeightFormat::kW8 ? ScaleRule::kWeightedMse : ScaleRule::kMinMax;
  return RoundToGrid(w, format, rule, {});
}

}  // namespace

ConvertResult ConvertModel(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &options,
                           ModelFacts facts, const std::string &path) {
  const ModelConfig &config = source.config();
  const bool fast = options.recipe == Recipe::kFast;
  ConvertResult result;
  result.path = path;
  std::vector<int32_t> ids = windows.ids;
  if (fast) {
    result.prefix_tokens = ChoosePrefix(source, {windows.ids, windows.window, windows.prefix_candidates});
    DropTokens(&ids, result.prefix_tokens, config, windows.window);
  }

  FfnShape ffn = ChooseHadamardBlock(config.ffn);
  if (options.down_input == DownInput::kS15) ffn = WithoutHadamard(config.ffn, GroupSize(options.body_format));
  if (ffn.padded % std::max<int64_t>(GroupSize(options.body_format), 1) != 0) {
    const int64_t group = GroupSize(options.body_format);
    ffn.padded = (ffn.padded + group - 1) / group * group;
  }
  WriterOptions writer_options;
  writer_options.hadamard_block = static_cast<uint32_t>(ffn.block);
  writer_options.down_in_type = options.down_input == DownInput::kS15 ? EdgeType::kS15 : EdgeType::kS8;
  writer_options.channel_layouts = options.channel_layouts;
  writer_options.cache = CacheOf(options, config.head_dim);
  ModelWriter writer(config, ffn.padded, writer_options);

  // The stream's first scale covers every row of the table, rounding included.
  double largest_embedding = 0;
  {
    const Matrix table = source.Load(TensorRole::kEmbedding);
    largest_embedding = static_cast<double>(table.cwiseAbs().maxCoeff());
    const double scale = std::max(largest_embedding, 1e-6) * 1.25 / 32767;
    if (config.tied_head) {
      writer.Begin(scale, nullptr);
    } else {
      const QuantizedMatrix embedding = RoundEmbedding(table, options);
      writer.Begin(scale, &embedding);
    }
  }
  const Matrix prefix_x = result.prefix_tokens.empty() ? Matrix(0, config.hidden) : Embed(source, result.prefix_tokens);
  LayerQuantizer quantizer(source, options, ffn, windows.window, Embed(source, ids), prefix_x);
  Progress progress("quantizing layers", config.layers);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    writer.AddLayer(quantizer.Quantize(layer, &result.report));
    progress.Update(layer + 1);
  }
  progress.Finish();

  const Matrix norm_matrix = source.Load(TensorRole::kFinalNorm);
  const RowVector norm = norm_matrix.row(0);
  const Matrix head = source.Load(TensorRole::kHead);
  const WeightFormat head_format = FormatForDepth(options.head_format, config.hidden);
  const bool gptq = fast && head_format != WeightFormat::kW8;
  Progress head_progress("quantizing head", 2);
  const HeadInput input = MeasureHeadInput(quantizer.x(), norm, head, config.rms_eps, options.recipe, true);
  head_progress.Update(1);
  const QuantizedMatrix quantized =
      gptq ? Gptq(head, head_format, FactorHessian(input.moments, GroupSize(head_format), kDamping))
           : RoundEmbedding(head, options);
  WeightReport line;
  line.layer = config.layers;
  line.weight = "head";
  line.format = FormatName(head_format);
  line.input_step = input.step;
  line.input_clip = 1;
  line.weight_error = RelativeOutputError(head, quantized, input.moments);
  result.report.weights.push_back(line);
  writer.AddHead(norm, input.step, quantized);
  result.simulated_perplexity = SimulatedPerplexity(config, quantizer.x(), norm, quantized, ids, windows.window);
  result.perplexity_with_8_bit_kv =
      options.kv_bits == 8 ? result.simulated_perplexity
                           : SimulatedPerplexity(config, quantizer.x_with_8_bit_kv(), norm, quantized, ids, windows.window);
  head_progress.Finish();
  facts.prefix_tokens = result.prefix_tokens;
  result.file_bytes = writer.Finish(path, facts);
  return result;
}

}  // namespace acorn::compiler
