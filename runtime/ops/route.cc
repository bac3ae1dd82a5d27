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

// The best by `key` of an expert into routes [found, count), behind those that are there; the lower index of equals first.
template <typename Key>
void Choose(Route *routes, size_t found, size_t count, size_t experts, const Key &key) {
  const size_t first = found;
  if (first == count) return;
  for (size_t e = 0; e < experts; ++e) {
    bool taken = false;
    for (size_t i = 0; i < first; ++i) taken = taken || routes[i].expert == e;
    if (taken || (found == count && key(e) <= key(routes[found - 1].expert))) continue;
    size_t place = found < count ? found++ : found - 1;
    for (; place > first && key(routes[place - 1].expert) < key(e); --place) routes[place] = routes[place - 1];
    routes[place].expert = static_cast<uint16_t>(e);
  }
}

// Weights of the chosen, of which the first has the largest logit.
void Weigh(Route *routes, const int32_t *logits, size_t experts, const ExpertsOp &op) {
  const size_t top_k = op.top_k;
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

// The last ones go while they have at most `drop_q15` of all weights together; the others take their place in the sum.
void Drop(Route *routes, size_t count, uint32_t drop_q15) {
  uint64_t whole = 0;
  for (size_t i = 0; i < count; ++i) whole += routes[i].weight;
  uint64_t left = whole;
  for (size_t i = count; i-- > 1;) {
    if ((whole - left + routes[i].weight) << 15 > whole * drop_q15) break;
    left -= routes[i].weight;
    routes[i] = {kNoExpert, 0};
  }
  if (left == whole || left == 0) return;
  for (size_t i = 0; i < count && routes[i].expert != kNoExpert; ++i) {
    const uint64_t weight = (routes[i].weight * whole + left / 2) / left;
    routes[i].weight = static_cast<uint16_t>(weight < 32768 ? weight : 32768);
  }
}

}  // namespace

uint16_t SigmoidQ15(int32_t logit, Scale octaves) { return Share(SigmoidQ31(logit, octaves), kOneQ31); }

void RouteToken(Route *routes, const int32_t *logits, size_t experts, const ExpertsOp &op) {
  Choose(routes, 0, op.top_k, experts, [&](size_t e) { return logits[e]; });
  Weigh(routes, logits, experts, op);
}

void RouteWithDials(Route *routes, const int32_t *logits, size_t experts, const ExpertsOp &op, const RoutingDials &dials,
                    const ExpertSource &source) {
  const auto logit = [&](size_t e) { return logits[e]; };
  if (dials.bonus_q16 == 0) {
    Choose(routes, 0, op.top_k, experts, logit);
  } else {
    int64_t low = logits[0], high = logits[0];
    for (size_t e = 1; e < experts; ++e) {
      low = logits[e] < low ? logits[e] : low;
      high = logits[e] > high ? logits[e] : high;
    }
    const int64_t bonus = ((high - low) * dials.bonus_q16) >> 16;
    Choose(routes, 0, 1, experts, logit);
    Choose(routes, 1, op.top_k, experts, [&](size_t e) {
      return logits[e] + (source.is_there(source.ctx, op.set, static_cast<uint32_t>(e)) ? bonus : 0);
    });
    // By falling logits again, which is by falling weights.
    for (size_t i = 2; i < op.top_k; ++i) {
      const Route moved = routes[i];
      size_t place = i;
      for (; place > 1 && logits[routes[place - 1].expert] < logits[moved.expert]; --place) routes[place] = routes[place - 1];
      routes[place] = moved;
    }
  }
  Weigh(routes, logits, experts, op);
  if (dials.drop_q15 != 0) Drop(routes, op.top_k, dials.drop_q15);
}

}  // namespace acorn
