// QuantizedModel: a whole quantised model in memory, as a ModelSink collects it. Training changes its scales, gains, biases and
// integers; WriteModel hands it on.
#pragma once

#include <vector>

#include "quantize/recipe.h"

namespace acorn::compiler {

struct QuantizedModel {
  ModelFrame frame;
  double stream_scale = 1;     // of the residual stream that enters layer 0
  QuantizedMatrix embedding;   // without rows when it shares the head's integers
  std::vector<QuantizedLayer> layers;
  QuantizedHead head;
};

/// Keeps the parts in `model` and, if asked, the layers' weights as they were before rounding.
class KeepingSink : public ModelSink {
 public:
  explicit KeepingSink(QuantizedModel *model, std::vector<LayerWeights> *unrounded = nullptr)
      : model_(model), unrounded_(unrounded) {}
  void Begin(const ModelFrame &frame, double stream_scale, QuantizedMatrix embedding) override {
    model_->frame = frame;
    model_->stream_scale = stream_scale;
    model_->embedding = std::move(embedding);
  }
  void Layer(QuantizedLayer layer) override { model_->layers.push_back(std::move(layer)); }
  void Head(QuantizedHead head) override { model_->head = std::move(head); }
  LayerWeights *Unrounded() override {
    if (unrounded_ == nullptr) return nullptr;
    unrounded_->emplace_back();
    return &unrounded_->back();
  }

 private:
  QuantizedModel *model_;
  std::vector<LayerWeights> *unrounded_;
};

inline void WriteModel(QuantizedModel model, ModelSink *sink) {
  sink->Begin(model.frame, model.stream_scale, std::move(model.embedding));
  for (QuantizedLayer &layer : model.layers) sink->Layer(std::move(layer));
  sink->Head(std::move(model.head));
}

}  // namespace acorn::compiler
