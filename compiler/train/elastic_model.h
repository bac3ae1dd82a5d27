// ElasticModel: a source model in LibTorch's float, at any widths of its layers, with a low-rank addition to each linear weight
// of its layers (Hu et al., 2021, arXiv 2106.09685). A narrow layer is computed narrow: the kept rows and columns alone, which are
// the prefixes that DropBeyond() leaves (passes/profiles.h), so that what is trained is what a device computes. Layers with
// experts are not for it.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "graph/float_model.h"
#include "passes/healed_model.h"
#include "passes/profiles.h"
#include "train/float_ops.h"

namespace acorn::compiler {

class ElasticModel {
 public:
  /// positions: of the longest window. seed: of the additions' beginning, which adds nothing. Loads all layers: they are in memory
  /// once, as float.
  ElasticModel(const SourceModel &source, int64_t positions, int64_t rank, uint64_t seed);

  /// Hidden states behind the final norm, as the head takes them: [ids, hidden]. They carry gradients to parameters() unless that
  /// is off.  widths: [layers]
  torch::Tensor Normed(const std::vector<int32_t> &ids, const std::vector<LayerWidths> &widths) const;
  /// The same of the source: whole, without additions and gradients.
  torch::Tensor SourceNormed(const std::vector<int32_t> &ids) const;
  /// [t, vocab] from what Normed() gives; without gradients, for which BackwardOfLogits() is there.
  torch::Tensor Logits(const torch::Tensor &normed) const;
  /// Adds up the gradients of parameters(), given that by the logits of `normed`.
  void BackwardOfLogits(const torch::Tensor &normed, const torch::Tensor &gradient) const;

  /// What training moves: a [rank, k] and b [n, rank] of each addition. Leaves of the graph, changed in place.
  const std::vector<torch::Tensor> &parameters() const { return parameters_; }
  /// Makes less or more of all additions.
  void ScaleAdditions(double factor);
  /// Their present values, for the source's own tensors.
  std::vector<LowRankAddition> Additions() const;

 private:
  /// Chooses the kept rows of a weight, its bias or its addition.
  using Keep = std::function<torch::Tensor(const torch::Tensor &)>;
  struct LinearWeight {
    TensorRole role = TensorRole::kQ;
    torch::Tensor weight, bias;  // [n, k], [n]; looks at LayerWeights
    torch::Tensor a, b;          // [rank, k], [n, rank]
  };
  struct Layer {
    LayerWeights weights;
    LinearWeight q, k, v, o, gate, up, down;
    LinearWeight ssm_gate, conv_in, step, out;
    std::vector<const LinearWeight *> linears() const;
    Rotary rotary;
  };
  /// What one pass through the layers computes.
  struct Pass {
    const Layer *layer;
    LayerWidths widths;
    bool with_additions;
  };

  LinearWeight NewLinear(TensorRole role, const Matrix &weight, const RowVector &bias, uint64_t *random);
  Layer NewLayer(const SourceModel &source, int64_t layer, const RopeTable &rope, uint64_t *random);
  torch::Tensor Hidden(const std::vector<int32_t> &ids, const std::vector<LayerWidths> &widths, bool with_additions) const;
  torch::Tensor Linear(const Pass &pass, const LinearWeight &linear, const torch::Tensor &x, const Keep &keep) const;
  torch::Tensor Norm(const torch::Tensor &x, const RowVector &gain, const RowVector &bias) const;
  torch::Tensor AttentionPart(const Pass &pass, const torch::Tensor &x) const;
  torch::Tensor StateSpacePart(const Pass &pass, const torch::Tensor &x) const;
  torch::Tensor FfnPart(const Pass &pass, const torch::Tensor &x) const;

  const SourceModel &source_;
  ModelConfig config_;
  int64_t rank_;
  std::vector<Layer> layers_;
  std::vector<LayerWidths> whole_;
  std::vector<torch::Tensor> parameters_;
  RowVector final_norm_, final_norm_bias_;
  Matrix head_matrix_;
  torch::Tensor head_;  // [vocab, hidden], looks at head_matrix_
};

}  // namespace acorn::compiler
