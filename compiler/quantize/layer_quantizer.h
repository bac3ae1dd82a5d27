// One layer of a model: measure its edges on the calibration tokens, choose steps, round the weights, and
// carry the tokens through the rounded layer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "graph/float_model.h"
#include "passes/hadamard.h"
#include "quantize/activations.h"
#include "quantize/recipe.h"
#include "quantize/sparse_layer.h"
#include "write/model_writer.h"

namespace acorn::compiler {

/// A layer whose weights are rounded: what a probe may try things with.
struct LayerView {
  int64_t layer;
  const ModelConfig &config;  // with the padded FFN
  const RopeTable &rope;
  int64_t hadamard_block;
  LayerWeights *weights;  // float, scaled, down transformed; a probe may change them and restores what it has changed
  const LayerPrefix *prefix;
  const ActivationGrid &grid;
  const QuantizedLayer &rounded;
  /// The weight of an input in another format, rounded as the recipe does it.
  std::function<QuantizedMatrix(LinearInput input, WeightFormat format)> round;
  /// The routed experts of a sparse layer, each in another format; their order is that of the layer.
  std::function<std::vector<ExpertMatrices>(WeightFormat format)> round_experts;
};

/// Sees each layer after its weights were rounded, before the tokens move on.
class LayerProbe {
 public:
  virtual ~LayerProbe() = default;
  virtual void OnLayer(const LayerView &view) = 0;
};

class LayerQuantizer {
 public:
  /// x: the hidden states that enter layer 0, [tokens, hidden]; replaced layer by layer.
  /// prefix_x: those of the constant prefix, [rows, hidden], in float; may have no rows.
  LayerQuantizer(const SourceModel &source, const RecipeOptions &options, FfnShape ffn, int64_t window, Matrix x,
                 Matrix prefix_x);

  /// Appends to `report`.
  /// unrounded: null, or what takes the weights as they are transformed, before rounding. probe: may be null.
  QuantizedLayer Quantize(int64_t layer, LayerWeights *unrounded, ConversionReport *report, LayerProbe *probe = nullptr);
  /// Hidden states after the layers done so far.
  const Matrix &x() const { return x_; }
  /// Those of the first windows, had keys and values 8 bits under the same weights. No rows if they have.
  const Matrix &x_with_8_bit_kv() const { return x_wide_; }

 private:
  struct Work;
  /// Windows that ranges are measured on.
  int64_t RangeWindows() const;
  void RunPrefix(Work *work) const;
  void MeasureRanges(Work *work) const;
  /// What is left of the layer at each rate beyond 0, with what it sees.
  void MeasureProfiles(Work *work) const;
  void Equalise(Work *work) const;
  void ChooseScales(Work *work) const;
  void ChooseCacheScales(Work *work) const;
  void ChooseProfileScales(Work *work) const;
  void CollectMoments(Work *work) const;
  void RoundWeights(Work *work, ConversionReport *report) const;
  ExpertRounding RoundingOf(const Work &work) const;
  void RoundSparse(Work *work, ConversionReport *report) const;
  std::unique_ptr<RangeObserver> NewRanges(const Work &work, int64_t tokens, int64_t sample_rows) const;
  void CarryOn(Work *work);

  const SourceModel &source_;
  RecipeOptions options_;
  FfnShape ffn_;
  ModelConfig config_;  // with the padded FFN
  int64_t window_;
  CacheFormat cache_;
  RopeTable rope_;
  FfnShape expert_, shared_;  // of sparse layers
  Matrix x_, x_wide_;
  Matrix prefix_x_;  // in float, whatever the layers are rounded to
  std::vector<Matrix> profile_x_;  // of the rates beyond 0: hidden states of the windows that ranges are measured on
};

/// How a session of the model keeps keys and values: of 4 bits, behind a Hadamard transform.
CacheFormat CacheOf(const RecipeOptions &options, int64_t head_dim);

/// Puts the values that the integers stand for in place of the weights.
void ReplaceByRounded(const QuantizedLayer &rounded, LayerWeights *weights);

/// Format for a weight of depth k: `wanted`, or w8 where k has no whole groups.
WeightFormat FormatForDepth(WeightFormat wanted, int64_t k);

}  // namespace acorn::compiler
