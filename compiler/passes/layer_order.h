// Where a head's dims stand in a layer of any order: for passes that treat some of them alike.
#pragma once

#include <cstdint>

#include "import/source_model.h"

namespace acorn::compiler {

/// Column of O that takes dim `dim` of a query head.
inline int64_t OutColumn(const ModelConfig &config, const LayerOrder &order, int64_t head, int64_t dim) {
  if (!order.rank_major) return head * config.head_dim + dim;
  const int64_t block = LayerOrder::kRankBlock;
  return dim / block * block * config.heads + head * block + dim % block;
}

/// Row of a head of Q and K that a rotation mixes with row `dim`; itself where there is none.
inline int64_t RotaryPartner(const ModelConfig &config, const LayerOrder &order, int64_t kv_head, int64_t dim) {
  if (order.pairs.empty()) {
    const int64_t pairs = config.rotary_dims / 2;
    return dim < pairs ? dim + pairs : dim < 2 * pairs ? dim - pairs : dim;
  }
  const int64_t block = LayerOrder::kPairBlock, pair = dim / (2 * block) * block + dim % block;
  if (order.pairs[static_cast<size_t>(kv_head * config.head_dim / 2 + pair)] == LayerOrder::kNotRotated) return dim;
  return dim % (2 * block) < block ? dim + block : dim - block;
}

}  // namespace acorn::compiler
