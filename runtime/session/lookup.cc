#include "session/lookup.h"

namespace acorn {
namespace {

// Tokens that are equal before `a` and before `b`, which is behind it; one of each is known to be.
size_t Equal(Span<const int32_t> tokens, size_t a, size_t b) {
  size_t equal = 1;
  while (equal < kLongestMatch && equal < a && tokens[a - 1 - equal] == tokens[b - 1 - equal]) ++equal;
  return equal;
}

struct Candidate {
  int32_t token;
  uint64_t votes;
};

// What follows `end` by the votes of the first `count` tokens. Returns: its share of 65536, 0 where nobody votes
uint64_t Vote(Span<const int32_t> tokens, size_t count, size_t end, int32_t *winner) {
  // The last 16 that differ are more than conversations have where a guess is likely; the votes of others count against all.
  Candidate candidates[16];
  size_t known = 0;
  uint64_t all = 2, most = 0;
  for (size_t at = count; at-- > 1;) {
    if (tokens[at - 1] != tokens[end - 1]) continue;
    const uint64_t votes = uint64_t{1} << Equal(tokens, at, end);
    all += votes;
    size_t i = 0;
    while (i < known && candidates[i].token != tokens[at]) ++i;
    if (i == known) {
      if (known == 16) continue;
      candidates[known++] = {tokens[at], 0};
    }
    candidates[i].votes += votes;
  }
  for (size_t i = 0; i < known; ++i) {
    if (candidates[i].votes <= most) continue;
    most = candidates[i].votes;
    *winner = candidates[i].token;
  }
  return (most << 16) / all;
}

}  // namespace

size_t LookUp(Span<int32_t> tokens, size_t count, Stop *stop) {
  if (count == 0) return 0;
  uint64_t likely = 65536;
  size_t end = count;
  for (; end < tokens.size() && (stop == nullptr || !stop->IsDue()); ++end) {
    int32_t winner = 0;
    likely = likely * Vote(Span<const int32_t>(tokens.data(), end), count, end, &winner) >> 16;
    if (likely < kLeastLikely) break;
    tokens[end] = winner;
  }
  return end - count;
}

}  // namespace acorn
