// A source model whose layers hold their inner channels in order of importance: what a device drops at a pruning rate is always
// the end of something. It computes what its source does, up to rounding.
#pragma once

#include <cstdint>
#include <vector>

#include "import/source_model.h"

namespace acorn::compiler {

/// Where the channels of a sorted layer come from. What is empty stays as the source has it.
struct LayerPlan {
  LayerOrder order;
  std::vector<int32_t> ffn;                   // [ffn], the source's channel of each
  std::vector<std::vector<int32_t>> experts;  // [experts][expert_ffn], the same of each routed expert
  std::vector<int32_t> pair_rows;             // [kv_heads * head_dim], the source's row in its head of each row of Q and K
  std::vector<Matrix> values, outputs;        // [kv_heads][head_dim, head_dim]: values * rows of V, columns of O * outputs
  std::vector<int32_t> states;                // [groups * state], of B and of C
  std::vector<int32_t> channels;              // [inner], of x, z and out; in the order of order.channel_major
};

/// `source`, whose layers stand in their own order, sorted. `source` outlives this. Where V is turned, its bias becomes one of O:
/// the probabilities of a query sum to 1.
class SortedModel final : public SourceModel {
 public:
  SortedModel(const SourceModel &source, std::vector<LayerPlan> layers);
  Matrix LoadRows(TensorRole role, int64_t layer, int64_t first, int64_t count) const override;
  LayerOrder Order(int64_t layer) const override;

 private:
  Matrix Whole(TensorRole role, int64_t layer) const;
  Matrix Experts(TensorRole role, int64_t layer, int64_t first, int64_t count) const;
  Matrix OutBias(int64_t layer) const;

  const SourceModel &source_;
  std::vector<LayerPlan> layers_;
};

}  // namespace acorn::compiler
