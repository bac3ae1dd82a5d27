#include "quantize/recipe.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/progress.h"
#include "graph/float_model.h"
#include "passes/prefix.h"
#include "quantize/activations.h"
#include "quantize/edge_ranges.h"
#include "quantize/grid.h"
#include "quantize/layer_quantizer.h"

namespace acorn::compiler {
namespace {

constexpr double kDamping = 0.01;
constexpr int64_t kHeadSampleRows = 512;
constexpr int64_t kRowsAtOnce = 4096;
constexpr int64_t kScoredWindows = 8;

/// What stands between the last layer and the head.
struct FinalNorm {
  const ModelConfig &config;
  RowVector gain, bias;

  Matrix operator()(ConstMatrixRef x) const {
    Matrix out(x.rows(), x.cols());
    NormRows(out, x, config, gain, bias);
    return out;
  }
};

struct HeadInput {
  double largest = 0;
  double step = 0;
  Matrix moments;  // only when asked for
};

/// Range of the head's input and, for GPTQ, its second moments.
HeadInput MeasureHeadInput(const Matrix &x, const FinalNorm &norm, const Matrix &head, Recipe recipe, bool with_moments) {
  HeadInput result;
  double largest = 0;
  for (int64_t first = 0; first < x.rows(); first += kRowsAtOnce) {
    const Matrix normed = norm(x.middleRows(first, std::min(kRowsAtOnce, x.rows() - first)));
    largest = std::max(largest, static_cast<double>(normed.cwiseAbs().maxCoeff()));
  }
  result.largest = largest;
  result.step = std::max(largest, 1e-6) / 127;
  if (recipe == Recipe::kFast) {
    const int64_t stride = std::max<int64_t>(1, x.rows() / kHeadSampleRows);
    Matrix samples((x.rows() + stride - 1) / stride, x.cols());
    for (int64_t i = 0; i < samples.rows(); ++i) samples.row(i) = x.row(i * stride);
    result.step = BestActivationStep(norm(samples), head, largest);
  }
  for (int64_t first = 0; with_moments && first < x.rows(); first += kRowsAtOnce) {
    Matrix normed = norm(x.middleRows(first, std::min(kRowsAtOnce, x.rows() - first)));
    RoundToStep(normed, result.step, 127);
    AddSecondMoments(&result.moments, normed);
  }
  return result;
}

/// Perplexity of the rounded model over the windows of `ids`: what the steps before the file predict for it. x: the hidden
/// states of these tokens, and of more.
double SimulatedPerplexity(const Matrix &x, const FinalNorm &norm, const QuantizedMatrix &head,
                           const std::vector<int32_t> &ids, int64_t window) {
  const int64_t windows = static_cast<int64_t>(ids.size()) / window;
  Matrix rows(windows * (window - 1), x.cols());
  std::vector<int32_t> targets;
  for (int64_t i = 0; i < windows; ++i) {
    rows.middleRows(i * (window - 1), window - 1) = x.middleRows(i * window, window - 1);
    targets.insert(targets.end(), ids.begin() + i * window + 1, ids.begin() + (i + 1) * window);
  }
  const std::vector<double> losses = HeadScorer(norm.config, norm.gain, norm.bias, Dequantize(head)).Losses(rows, targets);
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

/// The embedding is looked up: the error of its output is that of its rows.
WeightReport EmbeddingLine(const Matrix &table, const QuantizedMatrix &rounded) {
  WeightReport line;
  line.layer = kBeforeLayers;
  line.weight = "embedding";
  line.format = FormatName(rounded.format);
  line.weight_error = static_cast<double>((table - Dequantize(rounded)).squaredNorm()) /
                      std::max(static_cast<double>(table.squaredNorm()), 1e-30);
  line.n = rounded.n;
  line.k = rounded.k;
  line.bytes = rounded.PayloadBytes();
  return line;
}

int64_t BodyGroup(const RecipeOptions &options) { return std::max<int64_t>(GroupSize(options.body_format), 1); }

/// Groups are powers of two: a multiple of the largest has whole ones of all.
FfnShape ShapeOf(int64_t width, int64_t group, DownInput input, int64_t most_block) {
  FfnShape ffn = input == DownInput::kS15 ? WithoutHadamard(width, group) : ChooseHadamardBlock(width);
  ffn.block = std::min(ffn.block, most_block);
  ffn.padded = (ffn.padded + group - 1) / group * group;
  return ffn;
}

Scoring ScoringOf(const ModelConfig &config) {
  if (config.router_score == RouterScore::kSigmoid) {
    return config.normalised_experts ? Scoring::kSigmoidOfChosen : Scoring::kSigmoid;
  }
  return config.normalised_experts ? Scoring::kSoftmaxOfChosen : Scoring::kSoftmaxOfAll;
}

}  // namespace

void FileSink::Begin(const ModelFrame &frame, double stream_scale, QuantizedMatrix embedding) {
  prefix_tokens_ = frame.prefix_tokens;
  WriterOptions options = frame.writer;
  options.prefix_rows = static_cast<int64_t>(frame.prefix_tokens.size());
  writer_ = std::make_unique<ModelWriter>(&graph_, config_, options);
  writer_->Begin(stream_scale, embedding.n == 0 ? nullptr : &embedding);
}

void FileSink::Layer(QuantizedLayer layer) { writer_->AddLayer(layer); }

void FileSink::Head(QuantizedHead head) { logits_ = writer_->AddHead(head); }

uint64_t FileSink::Finish(ModelFacts facts) {
  facts.prefix_tokens = prefix_tokens_;
  return graph_.Finish(logits_, facts);
}

FfnShape FfnShapeOf(const ModelConfig &config, const RecipeOptions &options) {
  return ShapeOf(config.ffn, BodyGroup(options), options.down_input, options.most_block);
}

FfnShape ExpertShapeOf(const ModelConfig &config, const RecipeOptions &options) {
  int64_t group = BodyGroup(options);
  for (const std::vector<WeightFormat> &layer : options.expert_formats) {
    for (const WeightFormat format : layer) group = std::max<int64_t>(group, GroupSize(format));
  }
  return ShapeOf(config.expert_ffn, group, DownInput::kHadamard, options.most_block);
}

FfnShape SharedShapeOf(const ModelConfig &config, const RecipeOptions &options) {
  return ShapeOf(config.shared_ffn, BodyGroup(options), options.down_input, options.most_block);
}

ModelFrame FrameOf(const ModelConfig &config, const RecipeOptions &options) {
  ModelFrame frame;
  frame.ffn = FfnShapeOf(config, options);
  frame.writer.hadamard_block = static_cast<uint32_t>(frame.ffn.block);
  frame.writer.channel_layouts = options.channel_layouts;
  frame.writer.cache = CacheOf(options, config.head_dim);
  frame.writer.state_block = static_cast<uint32_t>(StateBlock(config));
  for (const RateProfile &profile : options.profiles) frame.writer.rates.push_back(profile.rate);
  if (config.experts == 0) return frame;
  frame.writer.scoring = ScoringOf(config);
  frame.writer.top_k = config.experts_per_token;
  frame.writer.expert_block = static_cast<uint32_t>(ExpertShapeOf(config, options).block);
  frame.writer.shared_block = static_cast<uint32_t>(SharedShapeOf(config, options).block);
  return frame;
}

std::vector<int32_t> PrefixOf(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &options) {
  if (options.prefix_tokens) return *options.prefix_tokens;
  const ModelConfig &config = source.config();
  const bool wants_sinks = config.chosen_window;
  if (options.recipe != Recipe::kFast) {
    // The start of text, or what stands between texts: it is what models look back to.
    const int32_t start = config.bos_id < 0 && !config.eos_ids.empty() ? config.eos_ids.front() : config.bos_id;
    return wants_sinks && start >= 0 ? std::vector<int32_t>{start} : std::vector<int32_t>();
  }
  return ChoosePrefix(source, {windows.ids, windows.window, windows.prefix_candidates, wants_sinks ? 1 : 0});
}

RecipeResult QuantizeModel(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &options,
                           ModelSink *sink) {
  const ModelConfig &config = source.config();
  const bool fast = options.recipe == Recipe::kFast;
  RecipeResult result;
  result.prefix_tokens = PrefixOf(source, windows, options);
  std::vector<int32_t> ids = windows.ids;
  if (fast) DropTokens(&ids, result.prefix_tokens, config, windows.window);

  ModelFrame frame = FrameOf(config, options);
  frame.prefix_tokens = result.prefix_tokens;

  // The stream's first scale covers every row of the table, rounding included.
  result.report.layers = config.layers;
  {
    const Matrix table = source.Load(TensorRole::kEmbedding);
    const double largest = static_cast<double>(table.cwiseAbs().maxCoeff()) * config.embedding_scale;
    const double scale = std::max(largest, 1e-6) * 1.25 / 32767;
    result.report.ranges.push_back(
        EdgeRange(kBeforeLayers, "embedded", "residual before layer 0", EdgeType::kS16, scale, 0, largest));
    QuantizedMatrix embedding;
    if (!config.tied_head) {
      embedding = RoundEmbedding(table, options);
      result.report.weights.push_back(EmbeddingLine(table, embedding));
    }
    sink->Begin(frame, scale, std::move(embedding));
  }
  const Matrix prefix_x = result.prefix_tokens.empty() ? Matrix(0, config.hidden) : Embed(source, result.prefix_tokens);
  LayerQuantizer quantizer(source, options, frame.ffn, windows.window, Embed(source, ids), prefix_x);
  Progress progress("quantizing layers", config.layers);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    sink->Layer(quantizer.Quantize(layer, sink->Unrounded(), &result.report));
    progress.Update(layer + 1);
  }
  progress.Finish();

  const FinalNorm norm{config, LoadVector(source, TensorRole::kFinalNorm), LoadVector(source, TensorRole::kFinalNormBias)};
  QuantizedHead out;
  out.norm = norm.gain;
  out.norm_bias = norm.bias;
  const Matrix head = source.Load(TensorRole::kHead);
  const WeightFormat head_format = FormatForDepth(options.head_format, config.hidden);
  const bool gptq = fast && head_format != WeightFormat::kW8;
  Progress head_progress("quantizing head", 2);
  const HeadInput input = MeasureHeadInput(quantizer.x(), norm, head, options.recipe, true);
  head_progress.Update(1);
  out.in_scale = input.step;
  out.weight = gptq ? Gptq(head, head_format, FactorHessian(input.moments, GroupSize(head_format), kDamping))
                    : RoundEmbedding(head, options);
  WeightReport line;
  line.layer = config.layers;
  line.weight = "head";
  line.format = FormatName(head_format);
  line.input_step = input.step;
  line.input_clip = input.largest > 0 ? std::min(1.0, input.step * 127 / input.largest) : 1.0;
  line.weight_error = RelativeOutputError(head, out.weight, input.moments);
  line.n = out.weight.n;
  line.k = out.weight.k;
  line.bytes = out.weight.PayloadBytes();
  result.report.weights.push_back(line);
  result.report.ranges.push_back(
      EdgeRange(config.layers, "head_in", "input of the head", EdgeType::kS8, out.in_scale, out.in_zero, input.largest));
  ids.resize(std::min(ids.size(), static_cast<size_t>(kScoredWindows * windows.window)));
  result.scored_ids = std::move(ids);
  result.simulated_perplexity = SimulatedPerplexity(quantizer.x(), norm, out.weight, result.scored_ids, windows.window);
  if (options.kv_bits == 4) {
    result.perplexity_with_8_bit_kv =
        SimulatedPerplexity(quantizer.x_with_8_bit_kv(), norm, out.weight, result.scored_ids, windows.window);
  }
  sink->Head(std::move(out));
  head_progress.Finish();
  return result;
}

}  // namespace acorn::compiler
