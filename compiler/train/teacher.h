// Teacher: what the float model says about the training windows. Its last hidden states are computed once and kept; its logits
// are made from them when they are asked for.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <vector>

#include "import/source_model.h"

namespace acorn::compiler {

class Teacher {
 public:
  /// ids: whole windows, one after the other. Runs the float model on all of them.
  Teacher(const SourceModel &source, const std::vector<int32_t> &ids, int64_t window);

  int64_t windows() const { return static_cast<int64_t>(hidden_.size()); }
  std::vector<int32_t> Ids(int64_t window) const;
  /// Its hidden states after the last layer, before the final norm: float [tokens, hidden].
  const torch::Tensor &Hidden(int64_t window) const { return hidden_[static_cast<size_t>(window)]; }
  /// Its logits at every position of a window: float [tokens, vocab].
  torch::Tensor Logits(int64_t window) const;

 private:
  std::vector<int32_t> ids_;
  int64_t window_;
  std::vector<torch::Tensor> hidden_;  // [tokens, hidden]
  ModelConfig config_;
  RowVector norm_, norm_bias_;
  torch::Tensor head_;  // [vocab, hidden]
};

/// Mean over the positions of KL(teacher || student), and by its side the student's cross entropy of the text itself. The
/// gradient of the first by the logits [tokens, vocab] comes in their place.
struct Divergence {
  double kl = 0;
  double cross_entropy = 0;  // of ids[t + 1] at t, mean over all positions but the last
};
Divergence DivergenceOf(const torch::Tensor &teacher_logits, const std::vector<int32_t> &ids, torch::Tensor *logits);

}  // namespace acorn::compiler
