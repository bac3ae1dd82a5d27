#include "experts/paths.h"

#include "base/debug.h"

namespace acorn {
namespace {

constexpr uint16_t kMostHold = 64;  // tokens that an unused path survives at most
constexpr uint32_t kSpread = 2654435769u;  // 2^32 over the golden ratio (Knuth, The Art of Computer Programming 3, section 6.4)

}  // namespace

void ExpertPaths::Open(Arena *arena, uint32_t layers, uint32_t experts) {
  *this = ExpertPaths();
  experts_ = experts;
  all_ = experts <= kMostPaths && experts * experts <= kMostPaths;
  rows_ = all_ ? experts * experts : kMostPaths;
  paths_ = arena->Take<Path>(uint64_t{layers} * rows_);
  counts_ = arena->Take<uint8_t>(uint64_t{layers} * rows_ * experts);
  for (Path &path : paths_) path = {};
  for (uint8_t &count : counts_) count = 0;
}

uint32_t ExpertPaths::RowOf(uint32_t layer) const {
  const uint32_t pair = before_last_ * experts_ + last_;
  const uint32_t row = all_ ? pair : (pair * kSpread >> 16) % rows_;
  return layer * rows_ + row;
}

void ExpertPaths::Saw(uint32_t layer, Span<const uint32_t> experts) {
  if (experts.empty()) return;
  const uint32_t row = RowOf(layer);
  Path &path = paths_[row];
  const Span<uint8_t> counts = counts_.subspan(uint64_t{row} * experts_, experts_);
  const bool same = path.before_last == before_last_ && path.last == last_;
  if (!same && path.hold != 0) {
    --path.hold;
  } else {
    if (!same) {
      for (uint8_t &count : counts) count = 0;
    }
    const auto hold = static_cast<uint16_t>(path.hold + (path.hold < kMostHold));
    path = {static_cast<uint16_t>(before_last_), static_cast<uint16_t>(last_), hold};
    for (const uint32_t expert : experts) {
      ACORN_DCHECK(expert < experts_);
      if (++counts[expert] != UINT8_MAX) continue;
      for (uint8_t &count : counts) count /= 2;
    }
  }
  before_last_ = last_;
  last_ = experts[0];
}

uint32_t ExpertPaths::Likely(uint32_t layer, Span<uint32_t> experts) const {
  const uint32_t row = RowOf(layer);
  const Path &path = paths_[row];
  if (path.hold == 0 || path.before_last != before_last_ || path.last != last_) return 0;
  const Span<const uint8_t> counts(counts_.data() + uint64_t{row} * experts_, experts_);
  uint32_t found = 0;
  for (uint32_t expert = 0; expert < experts_; ++expert) {
    if (counts[expert] == 0) continue;
    uint32_t place = found < experts.size() ? found++ : found;
    for (; place != 0 && counts[experts[place - 1]] < counts[expert]; --place) {
      if (place < experts.size()) experts[place] = experts[place - 1];
    }
    if (place < experts.size()) experts[place] = expert;
  }
  return found;
}

}  // namespace acorn
