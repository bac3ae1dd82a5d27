#include "ops/route.h"

#include "base/exp2.h"
#include "base/fixed_point.h"

namespace acorn {
namespace {

constexpr uint64_t kOneQ31 = uint64_t{1} << 31;

// 2^-t in Q31 of a distance of logits, which has 33 bits at most.
uint64_t Exp2NegOf(int64_t distance, Scale octaves) { return Exp2NegQ31(static_cast<uint64_t>(Apply(octaves, distance))); }

// 1 / (1 + 2^-t) in Q31 for t of either sign.
uint64_t SigmoidQ31(int32_t logit, Scale octaves) {
  const int64_t magnitude = logit < 0 ? -int64_t{logit} : int64_t{logit};
  const uint64_t small = Exp2NegOf(magnitude, octaves);
  const uint64_t whole = kOneQ31 + small;
  return ((logit < 0 ? small : kOneQ31) * kOneQ31 + whole / 2) / whole;
}

uint16_t Share(uint64_t part, uint64_t whole) { return static_cast<uint16_t>(((part << 15) + whole / 2) / whole); }

}  // namespace

uint16_t SigmoidQ15(int32_t logit, Scale octaves) { return Share(SigmoidQ31(logit, octaves), kOneQ31); }

void RouteToken(Route *routes, const int32_t *logits, size_t experts, const ExpertsOp &op) {
  const size_t top_k = op.top_k;
  // An insertion into the list of the best; an equal one that comes later stays behind.
  size_t found = 0;
  for (size_t e = 0; e < experts; ++e) {
    if (found == top_k && logits[e] <= logits[routes[found - 1].expert]) continue;
    size_t place = found < top_k ? found++ : found - 1;
    for (; place > 0 && logits[routes[place - 1].expert] < logits[e]; --place) routes[place] = routes[place - 1];
    routes[place].expert = static_cast<uint16_t>(e);
  }
  const bool softmax = op.scoring == Scoring::kSoftmaxOfChosen || op.scoring == Scoring::kSoftmaxOfAll;
  const int64_t largest = logits[routes[0].expert];
  const auto score = [&](size_t expert) {
    return softmax ? Exp2NegOf(largest - logits[expert], op.octaves) : SigmoidQ31(logits[expert], op.octaves);
  };
  uint64_t whole = 0;
  switch (op.scoring) {
    case Scoring::kSoftmaxOfChosen:
    case Scoring::kSigmoidOfChosen:
      for (size_t i = 0; i < top_k; ++i) whole += score(routes[i].expert);
      break;
    case Scoring::kSoftmaxOfAll:
      for (size_t e = 0; e < experts; ++e) whole += score(e);
      break;
    case Scoring::kSigmoid:
      whole = kOneQ31;
      break;
  }
  // Sigmoids may all be 0: then nobody counts.
  for (size_t i = 0; i < top_k; ++i) routes[i].weight = whole == 0 ? uint16_t{0} : Share(score(routes[i].expert), whole);
}

}  // namespace acorn
