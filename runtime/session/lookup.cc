#include "session/lookup.h"

namespace acorn {
namespace {

// Tokens that are equal before `a` and before `b`, which is behind it.
size_t Equal(Span<const int32_t> tokens, size_t a, size_t b) {
  size_t equal = 0;
  while (equal < kLongestMatch && equal < a && tokens[a - 1 - equal] == tokens[b - 1 - equal]) ++equal;
  return equal;
}

}  // namespace

size_t LookUp(Span<const int32_t> tokens, Span<int32_t> draft) {
  const size_t end = tokens.size();
  size_t best = kShortestMatch - 1, from = end;
  for (size_t at = end; at-- > 1 && best < kLongestMatch;) {
    const size_t equal = Equal(tokens, at, end);
    if (equal <= best) continue;
    best = equal;
    from = at;
  }
  // What was said then may reach up to now, and repeats from there.
  const size_t period = end - from;
  if (period == 0) return 0;
  for (size_t i = 0; i < draft.size(); ++i) draft[i] = i < period ? tokens[from + i] : draft[i - period];
  return draft.size();
}

}  // namespace acorn
