#include "passes/healed_model.h"

#include <algorithm>
#include <utility>

namespace acorn::compiler {

HealedModel::HealedModel(const SourceModel &source, std::vector<LowRankAddition> additions)
    : SourceModel(source, source.config()), source_(source), additions_(std::move(additions)) {}

Matrix HealedModel::LoadRows(TensorRole role, int64_t layer, int64_t first, int64_t count) const {
  Matrix rows = source_.LoadRows(role, layer, first, count);
  const auto found = std::find_if(additions_.begin(), additions_.end(), [&](const LowRankAddition &addition) {
    return addition.role == role && addition.layer == layer;
  });
  if (found != additions_.end()) rows.noalias() += found->b.middleRows(first, count) * found->a;
  return rows;
}

}  // namespace acorn::compiler
