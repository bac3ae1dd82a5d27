#include "synth/random_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "base/progress.h"
#include "base/random.h"
#include "quantize/layer_quantizer.h"

namespace acorn::compiler {
namespace {

// Real sizes. A norm hands out a root mean square of 1, and a weight hands on what it gets times its gain.
constexpr double kReach = 4.5;     // of 8-bit edges, in root mean squares: Gaussian values rarely pass it
constexpr double kReach16 = 16;    // of 16-bit edges, where room is cheap
constexpr double kStreamReach = 64;  // of the residual stream; layers add up to at most 6 times the embedding's 1
constexpr double kGluRms = 0.6;    // of activation(x) * y for Gaussian x and y
constexpr double kGluReach = kReach * kReach;
constexpr double kLogitRms = 2.5;  // of the head's logits

// Locality. Attention looks back by a kernel that falls with the distance like a power of it, since a constant part of queries
// and keys turns apart with the positions alone; so its output is the same slowly moving direction for all tokens near by, and
// what it adds to the stream is what a router mostly sees. Layers share the sum, so that their number does not change it.
// Chosen with a float model of 4 to 16 layers for the misses that were published of Qwen3-30B-A3B and Mixtral
// (docs/STREAMING.md says what came of it).
constexpr double kRecency = 8;       // score of a token with itself over one far away; at theta 10,000 weights fall like distance^-0.9
constexpr double kAttentionSum = 5;  // gain of the output projection times the root of the number of layers
constexpr double kFfnSum = 0.7;      // of the FFN, the same
constexpr double kMostPopular = 1.6, kLeastPopular = 0.6;  // gain of a router's rows

constexpr uint64_t kLowMultiplier = 96, kHighMultiplier = 160;  // of groups

int32_t LargestWeight(WeightFormat format) { return format == WeightFormat::kW8 ? 127 : 7; }

/// Root mean square of whole numbers spread evenly over [low, high].
double EvenRms(int64_t low, int64_t high) {
  double squares = 0;
  for (int64_t value = low; value <= high; ++value) squares += static_cast<double>(value * value);
  return std::sqrt(squares / static_cast<double>(high - low + 1));
}

class Builder {
 public:
  Builder(const ModelConfig &config, const RecipeOptions &options, uint64_t seed)
      : config_(config),
        options_(options),
        state_(seed),
        attention_gain_(kAttentionSum / std::sqrt(static_cast<double>(config.layers))),
        ffn_gain_(kFfnSum / std::sqrt(static_cast<double>(config.layers))) {}

  QuantizedMatrix Embedding() { return Weights(HeadFormat(), config_.vocab, config_.hidden, TableGain()); }
  QuantizedLayer Layer(int64_t layer);
  QuantizedHead Head();

 private:
  static double RootOf(int64_t count) { return std::sqrt(static_cast<double>(count)); }

  WeightFormat HeadFormat() const { return FormatForDepth(options_.head_format, config_.hidden); }
  /// Of the embedding's rows, so that the stream begins with 1.
  double TableGain() const { return RootOf(config_.hidden) / config_.embedding_scale; }

  QuantizedMatrix Weights(WeightFormat format, int64_t n, int64_t k, double gain);
  void FillWeights(QuantizedMatrix *matrix);
  QuantizedMatrix Router();
  RowVector Gains(int64_t width, double value) const { return RowVector::Constant(width, static_cast<float>(value)); }
  RowVector Biases(int64_t width) const { return config_.norm == NormKind::kLayer ? Gains(width, 0) : RowVector(); }

  void Attention(QuantizedLayer *out, const LayerFormats &formats);
  void DenseFfn(QuantizedLayer *out, const LayerFormats &formats, const FfnShape &shape);
  void SparseFfn(QuantizedLayer *out);

  const ModelConfig &config_;
  const RecipeOptions &options_;
  uint64_t state_;
  double attention_gain_, ffn_gain_;
};

// Evenly spread over [-limit, limit], without a mean: a mean would be one direction that every layer makes larger.
void Builder::FillWeights(QuantizedMatrix *matrix) {
  const bool wide = matrix->format == WeightFormat::kW8;
  const size_t count = static_cast<size_t>(matrix->n * matrix->k);
  matrix->weights.resize(count);
  int8_t *out = matrix->weights.data();
  const auto to_weight = [wide](uint32_t byte) {
    if (wide) return static_cast<int8_t>(byte == 128 ? 0 : byte);
    // 17 bytes for each of 15 values, and one more for 0.
    return static_cast<int8_t>(byte == 0 ? 0 : static_cast<int32_t>(byte * 15 >> 8) - 7);
  };
  for (size_t i = 0; i < count;) {
    const uint64_t bits = NextRandom(&state_);
    const size_t end = std::min(count, i + 8);
    for (int shift = 0; i < end; shift += 8) out[i++] = to_weight(static_cast<uint32_t>(bits >> shift & 255));
  }
}

/// What comes out has `gain` times the root mean square of what goes in, if that is random.
QuantizedMatrix Builder::Weights(WeightFormat format, int64_t n, int64_t k, double gain) {
  QuantizedMatrix matrix;
  matrix.format = FormatForDepth(format, k);
  matrix.n = n;
  matrix.k = k;
  FillWeights(&matrix);
  const int32_t largest = LargestWeight(matrix.format);
  double rms = EvenRms(-largest, largest);
  if (matrix.group() != 0) {
    matrix.multipliers.resize(static_cast<size_t>(n * (k / matrix.group())));
    constexpr uint64_t kChoices = kHighMultiplier - kLowMultiplier + 1;
    for (uint8_t &multiplier : matrix.multipliers) multiplier = static_cast<uint8_t>(kLowMultiplier + NextRandom(&state_) % kChoices);
    rms *= EvenRms(kLowMultiplier, kHighMultiplier);
  }
  matrix.scale.assign(static_cast<size_t>(n), gain / (rms * RootOf(k)));
  return matrix;
}

QuantizedMatrix Builder::Router() {
  QuantizedMatrix router = Weights(WeightFormat::kW8, config_.experts, config_.hidden, 1);
  std::vector<size_t> order(router.scale.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = order.size(); i-- > 1;) std::swap(order[i], order[NextRandom(&state_) % (i + 1)]);
  const double last = std::max<double>(1, static_cast<double>(order.size()) - 1);
  for (size_t rank = 0; rank < order.size(); ++rank) {
    router.scale[order[rank]] *= kMostPopular + (kLeastPopular - kMostPopular) * static_cast<double>(rank) / last;
  }
  return router;
}

void Builder::Attention(QuantizedLayer *out, const LayerFormats &formats) {
  const int64_t q_width = config_.heads * config_.head_dim, kv_width = config_.kv_heads * config_.head_dim;
  out->qkv = Weights(formats.qkv, q_width + 2 * kv_width, config_.hidden, 1);
  out->o = Weights(formats.o, config_.hidden, q_width, attention_gain_);
  // The constant part of queries and keys: the first of the two dims that turn together.
  const int64_t pairs = config_.rotary_dims / 2;
  const double constant = std::sqrt(kRecency * std::sqrt(static_cast<double>(config_.head_dim)) / static_cast<double>(pairs));
  out->qkv_bias = Gains(q_width + 2 * kv_width, 0);
  for (int64_t head = 0; head < config_.heads + config_.kv_heads; ++head) {
    out->qkv_bias.segment(head * config_.head_dim, pairs).setConstant(static_cast<float>(constant));
  }
  if (config_.qk_norm) {  // which would change the sizes
    const double rms = std::sqrt(1 + constant * constant * static_cast<double>(pairs) / static_cast<double>(config_.head_dim));
    out->q_norm = Gains(config_.qk_norm_rows ? q_width : config_.head_dim, rms);
    out->k_norm = Gains(config_.qk_norm_rows ? kv_width : config_.head_dim, rms);
  }
  const double reach = kReach + constant;
  LayerScales &scales = out->scales;
  scales.attn_in = kReach / 127;
  scales.q16 = scales.k16 = scales.v16 = scales.q_normed16 = scales.k_normed16 = kReach16 / 32767;
  scales.q8.assign(static_cast<size_t>(config_.heads), reach / 127);
  scales.k8.assign(static_cast<size_t>(config_.kv_heads), reach / 127);
  scales.v8.assign(static_cast<size_t>(config_.kv_heads), kReach / 127);
  scales.attn_out = kReach / 127;
  scales.o16 = kReach16 * std::max(1.0, attention_gain_) / 32767;
  scales.mid16 = scales.out16 = kStreamReach / 32767;
}

void Builder::DenseFfn(QuantizedLayer *out, const LayerFormats &formats, const FfnShape &shape) {
  out->gate_up = Weights(formats.gate_up, 2 * shape.padded, config_.hidden, 1);
  out->down = Weights(formats.down, config_.hidden, shape.padded, ffn_gain_ / kGluRms);
  LayerScales &scales = out->scales;
  scales.gate16 = scales.up16 = kReach16 / 32767;
  scales.glu_largest = kGluReach;
  scales.down_in = kReach * kGluRms / 127;
  scales.down16 = kReach16 * ffn_gain_ / 32767;
}

void Builder::SparseFfn(QuantizedLayer *out) {
  const FfnShape shape = ExpertShapeOf(config_, options_);
  QuantizedExperts &sparse = out->experts;
  sparse.router = Router();
  if (config_.shared_gate) sparse.shared_gate = Weights(WeightFormat::kW8, 1, config_.hidden, 1);
  sparse.experts.resize(static_cast<size_t>(config_.experts));
  for (ExpertMatrices &expert : sparse.experts) {
    expert.gate = Weights(options_.body_format, shape.padded, config_.hidden, 1);
    expert.up = Weights(options_.body_format, shape.padded, config_.hidden, 1);
    expert.down = Weights(options_.body_format, config_.hidden, shape.padded, ffn_gain_ / kGluRms);
  }
  ExpertScales &scales = sparse.scales;
  scales.router = 1.0 / 65536;
  scales.gate16 = scales.up16 = kReach16 / 32767;
  scales.glu_largest = kGluReach;
  scales.down_in = kReach * kGluRms / 127;
  scales.down16 = kReach16 * ffn_gain_ / 32767;
}

QuantizedLayer Builder::Layer(int64_t layer) {
  QuantizedLayer out;
  const bool sparse = config_.IsSparse(layer);
  const FfnShape ffn = sparse ? SharedShapeOf(config_, options_) : FfnShapeOf(config_, options_);
  const LayerFormats formats = FormatsOf(options_, config_, ffn.padded, layer);
  out.inputs = formats.inputs;
  out.widths = WholeWidths(config_, layer);
  out.widths.ffn = ffn.padded;
  out.attn_norm = out.ffn_norm = Gains(config_.hidden, 1);
  out.attn_norm_bias = out.ffn_norm_bias = Biases(config_.hidden);
  Attention(&out, formats);
  out.scales.ffn_in = kReach / 127;
  if (!sparse || config_.shared_ffn != 0) DenseFfn(&out, formats, ffn);
  if (sparse) SparseFfn(&out);
  return out;
}

QuantizedHead Builder::Head() {
  QuantizedHead head;
  head.norm = Gains(config_.hidden, 1);
  head.norm_bias = Biases(config_.hidden);
  head.in_scale = kReach / 127;
  head.weight = Weights(HeadFormat(), config_.vocab, config_.hidden, kLogitRms);
  if (config_.tied_head) {
    for (const double scale : head.weight.scale) head.embedding_scale.push_back(scale / kLogitRms * TableGain());
  }
  return head;
}

}  // namespace

void MakeRandomModel(const ModelConfig &config, const RecipeOptions &options, uint64_t seed, ModelSink *sink) {
  Builder builder(config, options, seed);
  sink->Begin(FrameOf(config, options), kStreamReach / 32767, config.tied_head ? QuantizedMatrix() : builder.Embedding());
  Progress progress("writing layers", config.layers);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    sink->Layer(builder.Layer(layer));
    progress.Update(layer + 1);
  }
  progress.Finish();
  sink->Head(builder.Head());
}

}  // namespace acorn::compiler
