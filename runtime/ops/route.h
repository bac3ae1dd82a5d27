// The router: which experts a token visits and with what weight. docs/ARITHMETIC.md §14 is normative.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/graph.h"
#include "ops/op.h"

namespace acorn {

constexpr uint16_t kNoExpert = 0xffff;

struct Route {
  uint16_t expert;  // kNoExpert: one that was dropped
  uint16_t weight;  // Q15, at most 1
};

/// The `top_k` experts of the largest logits, the lower index of equals first.
/// routes: [top_k];  logits: [experts]
void RouteToken(Route *routes, const int32_t *logits, size_t experts, const ExpertsOp &op);

/// The same with those dials that are on. What is likeliest is chosen whatever is in memory, and weights come from the logits as
/// they are (after cache-conditional experts, Skliar et al. 2024, arXiv 2412.00099, with one expert for sure).
void RouteWithDials(Route *routes, const int32_t *logits, size_t experts, const ExpertsOp &op, const RoutingDials &dials,
                    const ExpertSource &source);

/// 1 / (1 + 2^-t) in Q15 for a logit of that many octaves.
uint16_t SigmoidQ15(int32_t logit, Scale octaves);

}  // namespace acorn
