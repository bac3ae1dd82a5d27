// Which channels of a layer matter most: makes the plan that SortedModel follows. docs/ELASTIC.md has the formulas side by side.
#pragma once

#include <cstdint>

#include "passes/layer_moments.h"
#include "passes/sorted_model.h"

namespace acorn::compiler {

/// What may be left out, to see what it is worth. The order of storage stays the same.
struct SortParts {
  bool sort = true;  // by importance; else channels keep the source's order
  bool svd = true;   // of V; else its channels are sorted one by one
};

/// moments: of `weights` of a layer in its source's order. What its shape forbids to sort stays whole and as it is:
///   Q and K: heads that are no multiple of 16, or have a norm, whose divisor and gains belong to whole heads in their own order;
///   V: heads that are no multiple of 16. Values that are clipped one by one are sorted, but not turned;
///   channels of state-space heads: heads that are no multiple of 8, or more than one group of the gated norm.
LayerPlan PlanLayer(const ModelConfig &config, const LayerWeights &weights, const LayerMoments &moments, const SortParts &parts);

/// A basis of the values of a KV head in which each dropped rank costs least: values [dim, dim] times rows of V, columns of O
/// times outputs, its inverse.
///   S^(1/2) G S^(1/2) = U L U^T, values = L^(1/2) U^T S^(-1/2), outputs = S^(1/2) U L^(-1/2), L falling
/// moments S [dim, dim]: of the values; gram G: sum over the query heads of O_h^T O_h. Values get variances L, O's columns the
/// norm 1: sigma lies on V's output channels, where one scale a row takes it up.
/// With G = I this is UniQL's single SVD of C^(1/2) W_v for grouped queries, with C the moments of V's input, because
/// (C^(1/2) W_v)^T C^(1/2) W_v = S.
struct ValueBasis {
  Matrix values, outputs;
};
ValueBasis BasisOfValues(const Matrix &moments, const Matrix &gram);

}  // namespace acorn::compiler
