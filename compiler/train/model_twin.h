// ModelTwin: a quantised model that computes exactly what the device will compute, window by window, and takes gradients of a
// loss on its logits (or its last hidden states) back to every real number behind its integers.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "quantize/quantized_model.h"
#include "train/live_graph.h"
#include "train/tape.h"

namespace acorn::compiler {

/// Of a whole model: what the steps of layers and head get, in their order.
struct ModelGradients {
  std::vector<StepGradients> body, head;
};

class ModelTwin {
 public:
  /// model: outlives the twin; its integers stay as they are unless Repack() is told. window: most tokens of a run.
  ModelTwin(const ModelConfig &config, const QuantizedModel *model, int64_t window);

  /// Takes over the model's scales, gains and biases as they are now.
  void Refresh();
  /// The integers of the layers' weights changed. Refresh() must follow.
  void Repack();

  /// The device's logits: int32 [tokens, vocab].
  torch::Tensor Logits(const std::vector<int32_t> &ids);
  /// Natural units of one unit of the logits.
  double logit_scale() const { return logits_.scale; }

  /// Given real logits [tokens, vocab]: the loss, and its gradient in place of them.
  using LogitLoss = std::function<double(torch::Tensor *)>;
  /// Given the real hidden states after the last layer [tokens, hidden]: the loss, and its gradient in place of them.
  using HiddenLoss = std::function<double(torch::Tensor *)>;
  /// Adds the gradients of the loss on one window. weights: those of the weights too.
  double Accumulate(const std::vector<int32_t> &ids, const LogitLoss &loss, ModelGradients *gradients, bool weights);
  double AccumulateHidden(const std::vector<int32_t> &ids, const HiddenLoss &loss, ModelGradients *gradients, bool weights);

  /// What enters the first layer, and, layer by layer, what leaves it: the residual stream as the device holds it. inputs: null, or
  /// what takes the real inputs of the layer's weights, two or with an FFN four, float [tokens, k].
  torch::Tensor EnterLayers(const std::vector<int32_t> &ids);
  torch::Tensor RunLayer(int64_t layer, const std::vector<int32_t> &ids, const torch::Tensor &entering,
                         std::vector<torch::Tensor> *inputs);
  /// The integers of one layer's weights changed. Refresh() must follow.
  void RepackLayer(int64_t layer);

  const LiveGraph &graph() const { return graph_; }
  /// Index in the body of the first step of each layer, and the end.
  const std::vector<size_t> &layer_begins() const { return layer_begins_; }

 private:
  /// Runs embedding and layers; returns what enters each layer and what leaves the last one.
  std::vector<torch::Tensor> RunLayers(Tape *tape);
  /// From the gradient of the last hidden states, which the tape holds.
  void BackLayers(Tape *tape, const std::vector<torch::Tensor> &entering, ModelGradients *gradients, bool weights);
  const Port &StreamOut() const { return graph_.body().back().out; }

  ModelConfig config_;
  const QuantizedModel *model_;
  LiveGraph graph_;
  Machine machine_;
  std::vector<size_t> layer_begins_;
  Port logits_;
};

}  // namespace acorn::compiler
