// The router: which experts a token visits and with what weight. docs/ARITHMETIC.md §14 is normative.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/graph.h"

namespace acorn {

struct Route {
  uint16_t expert;
  uint16_t weight;  // Q15, at most 1
};

/// The `top_k` experts of the largest logits, the lower index of equals first.
/// routes: [top_k];  logits: [experts]
void RouteToken(Route *routes, const int32_t *logits, size_t experts, const ExpertsOp &op);

/// 1 / (1 + 2^-t) in Q15 for a logit of that many octaves.
uint16_t SigmoidQ15(int32_t logit, Scale octaves);

}  // namespace acorn
