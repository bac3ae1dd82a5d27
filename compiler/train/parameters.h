// Parameters: the real numbers of a quantised model that training moves on fixed grids, and, if asked, the weights' integers.
//
// Scales move by factors, gains relative to their size, biases relative to the reach of their output, zero points in units:
// so one learning rate serves all.
#pragma once

#include <cstdint>
#include <vector>

#include "quantize/quantized_model.h"
#include "train/learner.h"
#include "train/offsets.h"
#include "train/shaping.h"

namespace acorn::compiler {

class Parameters : public Learner {
 public:
  /// model: outlives this; what it holds now is where every parameter starts.
  /// integers: those of the layers' weights move too, not the head's. shaping: null, or what says which real numbers they stand for.
  Parameters(const ModelConfig &config, QuantizedModel *model, bool integers, const Shaping *shaping = nullptr);

  bool WantsWeights() const override { return !offsets_.empty(); }
  void Step(const ModelTwin &twin, const ModelGradients &gradients, double rate) override;
  bool Apply() override;
  std::vector<torch::Tensor> Values() const override;
  void SetValues(const std::vector<torch::Tensor> &values) override;
  std::vector<torch::Tensor> State() const override;
  void SetState(const std::vector<torch::Tensor> &state) override;

 private:
  /// What a linear layer trains.
  struct LinearParameters {
    size_t rows, bias;
    std::vector<double> scale;  // where rows start
    std::vector<double> bias_start;
    RowVector bias_unit;
  };
  struct LayerParameters {
    LinearParameters qkv, o, gate_up, down;
    size_t attn_norm, ffn_norm, q_norm, k_norm;
    size_t attn_norm_bias, ffn_norm_bias;  // of LayerNorms
    size_t attn_in, attn_out, ffn_in, down_in;  // units of s8 edges
    size_t attn_in_zero, attn_out_zero, ffn_in_zero, down_in_zero;
    size_t q8, k8, v8;
    size_t gated_norm, decay, skip;  // of a state-space layer
    size_t prefix_k, prefix_v;                        // keys and values of the constant prefix
    std::vector<double> prefix_k_start, prefix_v_start;  // real
    LayerScales scales;
    RowVector attn_norm_start, ffn_norm_start, q_norm_start, k_norm_start, attn_norm_bias_start, ffn_norm_bias_start;
    RowVector gated_norm_start, decay_start, skip_start;
  };
  LinearParameters NewLinear(const QuantizedMatrix &matrix, const RowVector &bias, RowVector bias_unit);
  void ApplyLinear(const LinearParameters &linear, QuantizedMatrix *matrix, RowVector *bias) const;
  void ApplyLayer(const LayerParameters &layer, QuantizedLayer *to) const;
  void LinearGradients(const LinearParameters &linear, const StepGradients &gradients);
  void LayerGradients(const LayerParameters &layer, const LiveStep *steps, const StepGradients *gradients, size_t count);

  QuantizedModel *model_;
  size_t head_dim_;
  double cache_limit_;  // of cached integers
  std::vector<LayerParameters> layers_;
  std::vector<Offsets> offsets_;  // of the weights of each layer, or none
  size_t head_rows_, head_norm_, head_norm_bias_, head_in_, head_in_zero_;
  std::vector<double> head_scale_;
  RowVector head_norm_start_, head_norm_bias_start_;
  double head_in_start_;
};

}  // namespace acorn::compiler
