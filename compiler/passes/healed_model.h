// A model whose weights have low-rank additions: what healing learns, merged as the weights are loaded.
#pragma once

#include <vector>

#include "base/matrix.h"
#include "import/source_model.h"

namespace acorn::compiler {

/// What is added to a weight [n, k]: b a.
struct LowRankAddition {
  TensorRole role = TensorRole::kQ;
  int64_t layer = 0;
  Matrix b;  // [n, rank]
  Matrix a;  // [rank, k]
};

/// `source`, in its own order of channels, with additions; at most one for each tensor of a layer. `source` outlives this.
class HealedModel final : public SourceModel {
 public:
  HealedModel(const SourceModel &source, std::vector<LowRankAddition> additions);
  Matrix LoadRows(TensorRole role, int64_t layer, int64_t first, int64_t count) const override;
  LayerOrder Order(int64_t layer) const override { return source_.Order(layer); }

 private:
  const SourceModel &source_;
  std::vector<LowRankAddition> additions_;
};

}  // namespace acorn::compiler
