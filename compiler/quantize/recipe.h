// The closed-form recipes: from a source model and calibration windows to the layers of a model file, one layer's weights
// in memory at a time. rtn: rounding and minimum-to-maximum ranges. fast: prefix, equivalent scaling, measured ranges, GPTQ.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "import/source_model.h"
#include "graph/float_model.h"
#include "passes/hadamard.h"
#include "passes/profiles.h"
#include "report/report.h"
#include "write/file_graph.h"
#include "write/model_writer.h"

namespace acorn::compiler {

enum class Recipe { kRtn, kFast };
enum class DownInput { kHadamard, kS15 };

/// How the weights of a layer are stored, and in how many bits their inputs come.
struct LayerFormats {
  WeightFormat qkv = WeightFormat::kW4G32;
  WeightFormat o = WeightFormat::kW4G32;
  WeightFormat gate_up = WeightFormat::kW4G32;
  WeightFormat down = WeightFormat::kW4G32;
  InputTypes inputs;
};

struct RecipeOptions {
  Recipe recipe = Recipe::kFast;
  WeightFormat body_format = WeightFormat::kW4G32;
  WeightFormat head_format = WeightFormat::kW8;
  DownInput down_input = DownInput::kHadamard;
  int kv_bits = 8;  // of a session's keys and values: 8 or 4
  ChannelLayouts channel_layouts;
  std::vector<std::vector<WeightFormat>> expert_formats;  // [layers, experts] of routed experts; empty: body_format
  std::vector<LayerFormats> layers;                   // of a mixed conversion; empty: body_format and down_input for all
  std::optional<std::vector<int32_t>> prefix_tokens;  // absent: recipe fast searches one
  std::vector<RateProfile> profiles;  // of the rates beyond 0, rising; the source's layers are in the order that they cut
  int64_t most_block = 128;           // of the transform before down: the rates cut whole blocks
  bool separate_rates = true;         // GPTQ carries no error across a depth that a rate ends at
};

/// Formats of a layer: the chosen ones, or those that all layers have; w8 where a depth has no whole groups. ffn: as stored.
LayerFormats FormatsOf(const RecipeOptions &options, const ModelConfig &config, int64_t ffn, int64_t layer);

/// Formats of a layer's routed experts: the chosen ones, or the body's. For depths without whole groups FormatForDepth decides.
std::vector<WeightFormat> ExpertFormatsOf(const RecipeOptions &options, const ModelConfig &config, int64_t layer);

/// Width of the FFN as stored, and the blocks of down's transform.
FfnShape FfnShapeOf(const ModelConfig &config, const RecipeOptions &options);
/// The same of routed experts, whose input to down always goes through the transform, and of the shared one.
FfnShape ExpertShapeOf(const ModelConfig &config, const RecipeOptions &options);
FfnShape SharedShapeOf(const ModelConfig &config, const RecipeOptions &options);

/// Calibration tokens: windows of equal length, one after the other.
struct CalibrationWindows {
  std::vector<int32_t> ids;
  int64_t window = 0;
  std::vector<int32_t> prefix_candidates;
};

/// The constant prefix that `options` ask for: the given one, or the best for these windows. None for a recipe that does not
/// calibrate. Of a model that the user has given a window, one token at least: the start of text, where nothing is searched.
std::vector<int32_t> PrefixOf(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &options);

/// What a recipe decides before it sees the weights.
struct ModelFrame {
  std::vector<int32_t> prefix_tokens;
  FfnShape ffn;
  WriterOptions writer;
};

/// All of it that the configuration and the options decide, for a model without a prefix.
ModelFrame FrameOf(const ModelConfig &config, const RecipeOptions &options);

/// Takes the parts of a quantised model in the order of the model: written as they come, or kept for training.
class ModelSink {
 public:
  virtual ~ModelSink() = default;
  /// stream_scale: of the residual stream that enters layer 0. embedding: without rows when it shares the head's integers.
  virtual void Begin(const ModelFrame &frame, double stream_scale, QuantizedMatrix embedding) = 0;
  virtual void Layer(QuantizedLayer layer) = 0;
  virtual void Head(QuantizedHead head) = 0;
  /// Where the next layer's weights go as the recipe transformed them, before rounding; null: nowhere.
  virtual LayerWeights *Unrounded() { return nullptr; }
};

/// Writes a model file as its parts come, experts to the disk at once. Finish() says how large it is.
class FileSink : public ModelSink {
 public:
  /// rates: beyond 0, rising.
  FileSink(const ModelConfig &config, const std::string &path, const std::vector<int> &rates = {})
      : config_(config), graph_(path, rates) {}
  void Begin(const ModelFrame &frame, double stream_scale, QuantizedMatrix embedding) override;
  void Layer(QuantizedLayer layer) override;
  void Head(QuantizedHead head) override;
  /// facts: with everything but the prefix.
  uint64_t Finish(ModelFacts facts);

 private:
  ModelConfig config_;
  FileGraph graph_;
  std::unique_ptr<ModelWriter> writer_;
  std::vector<int32_t> prefix_tokens_;
  Port logits_;
};

struct RecipeResult {
  std::vector<int32_t> prefix_tokens;
  double simulated_perplexity = 0;  // of the rounded layers in float, on scored_ids
  std::optional<double> perplexity_with_8_bit_kv;  // of the same weights, where the recipe's keys and values have 4 bits
  std::vector<int32_t> scored_ids;  // the first calibration windows, [windows * window]
  ConversionReport report;          // layers, weights and ranges; the caller knows the rest
};

/// Quantises a model in closed form.
RecipeResult QuantizeModel(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &options,
                           ModelSink *sink);

}  // namespace acorn::compiler
