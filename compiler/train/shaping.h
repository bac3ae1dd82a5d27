// Shaping: the stage that learns what the weights are rounded from: the equivalent scales of every pair of MobileQuant (norm to
// q, k, v; norm to gate, up; up to down; v to o; q to k) and of both norms of a state-space layer with what reads them, the clipping of each channel or group, and the ranges of the 8-bit
// edges, all together. Weights are rounded to nearest at every step; GPTQ rounds them once more when the stage is done, on the
// grids that were learned.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/float_model.h"
#include "quantize/quantized_model.h"
#include "train/learner.h"

namespace acorn::compiler {

/// A weight on its way to integers: real = base * exp(in[k]) * exp(out[n]), through the Hadamard transform along k.
class ShapedWeight {
 public:
  ShapedWeight() = default;
  /// base: [n, k], before the transform. to: where the integers go; its scales and multipliers are where clipping starts.
  ShapedWeight(Matrix base, int64_t block, QuantizedMatrix *to);

  int64_t grids() const;  // channels, or groups of all channels
  /// Logarithms; in: [k], out: [n], clip: [grids()].
  void Round(const float *in, const float *out, const float *clip);
  /// by_weight: [n, k], by the real weight. Added to: by_in [k], by_out [n], by_clip [grids()].
  void Gradient(const float *in, const float *out, const float *clip, const float *by_weight, float *by_in, float *by_out,
                float *by_clip) const;
  /// The real weight [n, k].
  Matrix Real(const float *in, const float *out) const;

  const QuantizedMatrix &integers() const { return *to_; }

 private:
  void RealRow(int64_t row, const float *in, const float *out, float *real) const;
  float Step(int64_t row, int64_t group, const float *out, const float *clip) const;

  Matrix base_;
  int64_t block_ = 1;
  QuantizedMatrix *to_ = nullptr;
  std::vector<double> scale_start_;
  std::vector<uint8_t> multipliers_start_;
};

class Shaping : public Learner {
 public:
  /// model: outlives this. weights: of its layers before rounding, as the closed form left them.
  Shaping(const ModelConfig &config, QuantizedModel *model, std::vector<LayerWeights> weights);

  bool WantsWeights() const override { return true; }
  void Step(const ModelTwin &twin, const ModelGradients &gradients, double rate) override;
  bool Apply() override;

  enum Weight { kQkv, kO, kGateUp, kDown };
  static constexpr int kWeights = 4;
  /// Real weight of a layer as it is now, and the integers that it is rounded to.
  Matrix Real(int64_t layer, Weight weight) const;

 private:
  struct Layer {
    ShapedWeight weights[kWeights];
    size_t clip[kWeights];
    bool state_space;
    size_t attn, ffn, up, value, query;  // logarithms of the equivalent scales; value: of a state-space layer's gated norm to out
    size_t attn_in, attn_out, ffn_in, down_in, q8, k8, v8;
    LayerScales scales;
    RowVector attn_norm, ffn_norm, attn_norm_bias, ffn_norm_bias, gated_norm, qkv_bias, gate_up_bias;
  };
  /// The logarithms of a layer's rows and columns as its scales give them.
  struct Logs {
    std::vector<float> in[kWeights], out[kWeights];
  };
  Logs LogsOf(const Layer &layer) const;
  int64_t PairOf(int64_t dim) const;
  /// In a layer with attention: of value and query, from those of the rows of q, k and v and the columns of o.
  void HeadGradients(const Layer &layer, const std::vector<float> &by_rows, const std::vector<float> &by_columns);
  void LayerGradients(const Layer &layer, const LiveStep *steps, const StepGradients *gradients, size_t count);

  ModelConfig config_;
  QuantizedModel *model_;
  std::vector<Layer> layers_;
};

}  // namespace acorn::compiler
