// Profiles: how much of each layer the device uses at a pruning rate. Everything that is kept is a prefix: the widths below say
// of what, docs/ELASTIC.md in which order.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/float_model.h"

namespace acorn::compiler {

/// Kept widths of one layer at one rate; those of parts that the layer lacks are 0. A shared expert is never cut.
struct LayerWidths {
  int64_t ffn = 0;       // channels of the FFN, or of each routed expert of a sparse layer
  int64_t qk = 0;        // dims of each head of Q and of K
  int64_t v = 0;         // dims of each head of V
  int64_t state = 0;     // columns of B and of C of each group
  int64_t channels = 0;  // channels of each state-space head
  bool operator==(const LayerWidths &other) const;
};

struct RateProfile {
  int rate = 0;                     // percent of the weights that can be dropped, as asked for
  std::vector<LayerWidths> layers;  // [layers]
};

/// All of a layer: what rate 0 keeps. An FFN is as wide as `config` says, so that a padded one counts with its padding.
LayerWidths WholeWidths(const ModelConfig &config, int64_t layer);

/// Weights of a layer (elements of its matrices, routed experts and convolution) that remain of `widths`.
int64_t KeptElems(const ModelConfig &config, int64_t layer, const LayerWidths &widths);

/// Zeroes everything that `widths` drop (rows, columns, biases), so that the layer of whole width computes what the narrow one
/// does. The gated norm of a state-space layer, whose divisor is the kept width, gets its gains and eps scaled for that.
/// Weights that are not in the elastic order (weights->order) keep their whole widths; an FFN may be cut in any order, and down
/// may have been transformed in blocks that divide the kept width.
void DropBeyond(const ModelConfig &config, const LayerWidths &widths, LayerWeights *weights);
/// The same of what the constant prefix leaves in such a layer.
void DropBeyond(const ModelConfig &config, const LayerWidths &widths, LayerPrefix *prefix);

}  // namespace acorn::compiler
