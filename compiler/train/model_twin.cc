#include "train/model_twin.h"

#include "write/model_writer.h"

namespace acorn::compiler {

ModelTwin::ModelTwin(const ModelConfig &config, const QuantizedModel *model, int64_t window)
    : config_(config),
      model_(model),
      machine_(window, static_cast<int64_t>(model->frame.prefix_tokens.size())) {
  Refresh();
}

void ModelTwin::Refresh() {
  graph_.Restart();
  ModelWriter writer(&graph_, config_, model_->frame.writer);
  writer.Begin(model_->stream_scale, model_->embedding.n == 0 ? nullptr : &model_->embedding);
  layer_begins_.clear();
  for (const QuantizedLayer &layer : model_->layers) {
    layer_begins_.push_back(graph_.body().size());
    writer.AddLayer(layer);
  }
  layer_begins_.push_back(graph_.body().size());
  logits_ = writer.AddHead(model_->head);
  machine_.Load(&graph_);
}

void ModelTwin::Repack() {
  const std::vector<LiveStep> &body = graph_.body();
  std::vector<uint32_t> weights;
  for (const LiveStep &live : body) {
    if (live.step.kind == OpKind::kLinear) weights.push_back(live.step.linear.weight);
  }
  graph_.Repack(weights);
}

void ModelTwin::RepackLayer(int64_t layer) {
  std::vector<uint32_t> weights;
  for (size_t i = layer_begins_[static_cast<size_t>(layer)]; i < layer_begins_[static_cast<size_t>(layer) + 1]; ++i) {
    const Step &step = graph_.body()[i].step;
    if (step.kind == OpKind::kLinear) weights.push_back(step.linear.weight);
  }
  graph_.Repack(weights);
}

torch::Tensor ModelTwin::EnterLayers(const std::vector<int32_t> &ids) {
  Tape tape(&machine_, ids);
  tape.Run(graph_.embedding().data(), graph_.embedding().data() + 1, false);
  return tape.buffer(graph_.body().front().in);
}

torch::Tensor ModelTwin::RunLayer(int64_t layer, const std::vector<int32_t> &ids, const torch::Tensor &entering,
                                  std::vector<torch::Tensor> *inputs) {
  const LiveStep *begin = graph_.body().data() + layer_begins_[static_cast<size_t>(layer)];
  const LiveStep *end = graph_.body().data() + layer_begins_[static_cast<size_t>(layer) + 1];
  Tape tape(&machine_, ids);
  tape.SetBuffer(begin->in, entering);
  for (const LiveStep *live = begin; live != end; ++live) {
    if (inputs != nullptr && live->step.kind == OpKind::kLinear) inputs->push_back(Tape::Real(tape.buffer(live->in), live->in));
    tape.Run(live, live + 1, false);
  }
  return tape.buffer((end - 1)->out);
}

std::vector<torch::Tensor> ModelTwin::RunLayers(Tape *tape) {
  tape->Run(graph_.embedding().data(), graph_.embedding().data() + 1, false);
  std::vector<torch::Tensor> entering;
  for (size_t layer = 0; layer + 1 < layer_begins_.size(); ++layer) {
    const LiveStep *steps = graph_.body().data();
    entering.push_back(tape->buffer(steps[layer_begins_[layer]].in));
    tape->Run(steps + layer_begins_[layer], steps + layer_begins_[layer + 1], false);
  }
  entering.push_back(tape->buffer(StreamOut()));
  return entering;
}

torch::Tensor ModelTwin::Logits(const std::vector<int32_t> &ids) {
  const torch::NoGradGuard no_autograd;
  Tape tape(&machine_, ids);
  RunLayers(&tape);
  tape.Run(graph_.head().data(), graph_.head().data() + graph_.head().size(), false);
  return tape.buffer(logits_).view(torch::kInt).narrow(1, 0, logits_.width);
}

void ModelTwin::BackLayers(Tape *tape, const std::vector<torch::Tensor> &entering, ModelGradients *gradients, bool weights) {
  gradients->body.resize(graph_.body().size());
  // A layer's edges are computed anew when its turn comes: only what enters each layer is kept, in 16 bits.
  for (size_t layer = layer_begins_.size() - 1; layer-- > 0;) {
    const LiveStep *begin = graph_.body().data() + layer_begins_[layer];
    tape->SetBuffer(begin->in, entering[layer]);
    tape->Run(begin, graph_.body().data() + layer_begins_[layer + 1], true);
    tape->Backward(gradients->body.data() + layer_begins_[layer], weights);
  }
}

double ModelTwin::Accumulate(const std::vector<int32_t> &ids, const LogitLoss &loss, ModelGradients *gradients, bool weights) {
  const torch::NoGradGuard no_autograd;
  Tape tape(&machine_, ids);
  const std::vector<torch::Tensor> entering = RunLayers(&tape);
  tape.Run(graph_.head().data(), graph_.head().data() + graph_.head().size(), true);
  torch::Tensor logits = Tape::Real(tape.buffer(logits_), logits_);
  const double value = loss(&logits);
  tape.SetGradient(logits_, std::move(logits));
  gradients->head.resize(graph_.head().size());
  tape.Backward(gradients->head.data(), weights);
  BackLayers(&tape, entering, gradients, weights);
  return value;
}

double ModelTwin::AccumulateHidden(const std::vector<int32_t> &ids, const HiddenLoss &loss, ModelGradients *gradients,
                                   bool weights) {
  const torch::NoGradGuard no_autograd;
  Tape tape(&machine_, ids);
  const std::vector<torch::Tensor> entering = RunLayers(&tape);
  torch::Tensor hidden = Tape::Real(entering.back(), StreamOut());
  const double value = loss(&hidden);
  tape.SetGradient(StreamOut(), std::move(hidden));
  BackLayers(&tape, entering, gradients, weights);
  return value;
}

}  // namespace acorn::compiler
