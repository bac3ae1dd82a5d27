#include "experts/pool.h"

#include "base/debug.h"

namespace acorn {

Status ExpertPool::Open(Arena *arena, const ExpertPoolShape &shape) {
  if (shape.layers == 0 || shape.experts == 0 || shape.slots == 0) return Status::kArgument;
  const uint64_t keys = uint64_t{shape.layers} * shape.experts;
  if (keys > kMaxExpertKeys || shape.slots > keys) return Status::kArgument;
  *this = ExpertPool();
  layers_ = shape.layers;
  experts_ = shape.experts;
  policy_ = shape.policy;
  slot_of_ = arena->Take<uint32_t>(keys);
  experts_of_all_ = arena->Take<Expert>(keys);
  clock_ = arena->Take<uint32_t>(shape.layers);
  all_slots_ = arena->Take<Slot>(shape.slots);
  event_ = arena->Take<ExpertUse>(shape.experts);
  for (Expert &expert : experts_of_all_) expert = {};
  for (uint32_t &tokens : clock_) tokens = 0;
  Resize(static_cast<uint32_t>(all_slots_.size()));
  return Status::kOk;
}

void ExpertPool::Resize(uint32_t slots) {
  ACORN_DCHECK(event_size_ == 0 && slots <= all_slots_.size());
  for (uint32_t &slot : slot_of_) slot = kNoSlot;
  slots_ = all_slots_.subspan(0, slots);
  for (Slot &slot : slots_) slot = {};
}

uint64_t ExpertPool::SizeOf(const ExpertPoolShape &shape) {
  Arena counting;
  ExpertPool pool;
  return pool.Open(&counting, shape) == Status::kOk ? counting.used() : 0;
}

void ExpertPool::Tick(uint32_t layer, uint32_t tokens) {
  uint32_t halvings = (clock_[layer] % kHalvingTokens + tokens) / kHalvingTokens;
  if (halvings > 31) halvings = 31;
  clock_[layer] += tokens;
  if (halvings == 0) return;
  for (Expert &expert : experts_of_all_.subspan(uint64_t{layer} * experts_, experts_)) expert.uses >>= halvings;
}

void ExpertPool::Begin(uint32_t layer, Span<const uint32_t> experts, Span<const uint32_t> uses, uint32_t tokens) {
  ACORN_DCHECK(event_size_ == 0 && layer < layers_ && experts.size() <= experts_);
  layer_ = layer;
  ++sequence_;
  Tick(layer, tokens);
  const uint32_t first = layer * experts_;
  // A guess is right or wrong now.
  for (const uint32_t slot : slot_of_.subspan(first, experts_)) {
    if (slot == kNoSlot || !slots_[slot].guess) continue;
    bool right = false;
    for (const uint32_t expert : experts) right = right || slots_[slot].expert == first + expert;
    if (right && slots_[slot].state != SlotState::kQueued) ++counts_.prefetches_used;
    slots_[slot].guess = false;
  }
  for (size_t i = 0; i < experts.size(); ++i) {
    ACORN_DCHECK(experts[i] < experts_);
    const uint32_t key = first + experts[i];
    Expert &expert = experts_of_all_[key];
    const uint32_t count = uses.empty() ? 1 : uses[i];
    expert.uses = expert.uses > ~count ? ~uint32_t{0} : expert.uses + count;
    expert.used_token = clock_[layer];
    const uint32_t slot = slot_of_[key];
    ExpertUse use = {key, slot, ExpertUse::State::kWanted};
    if (slot != kNoSlot) {
      ACORN_DCHECK(!slots_[slot].held);  // else the expert is named twice
      slots_[slot].held = true;
      slots_[slot].touched = sequence_;
      if (slots_[slot].state == SlotState::kLoading) use.state = ExpertUse::State::kComing;
      if (slots_[slot].state == SlotState::kReady) use.state = ExpertUse::State::kReady;
    }
    ++(use.state == ExpertUse::State::kWanted ? counts_.misses : counts_.hits);
    if (use.state == ExpertUse::State::kComing) ++counts_.late;
    event_[i] = use;
  }
  event_size_ = static_cast<uint32_t>(experts.size());
  next_ = 0;
}

ExpertPool::Rank ExpertPool::RankOf(const Slot &slot) const {
  if (slot.state == SlotState::kEmpty) return Rank::kEmpty;
  if (slot.held || slot.state == SlotState::kLoading) return Rank::kNever;
  if (slot.state == SlotState::kQueued) return Rank::kQueued;
  return slot.guess || Age(slot) == 0 ? Rank::kProtected : Rank::kFree;
}

/// Layers until the one of `slot` runs again, the layer of the last event being the one that runs now.
uint64_t ExpertPool::Distance(const Slot &slot) const {
  return slot.layer > layer_ ? slot.layer - layer_ : slot.layer + layers_ - layer_;
}

/// The order of leaving among ready slots of one rank: exact, and total, since no expert has two slots.
bool ExpertPool::LeavesBefore(const Slot &a, const Slot &b) const {
  if (policy_ != ExpertPolicy::kLru) {
    const bool lfru = policy_ == ExpertPolicy::kLfru;
    const uint64_t divisor_a = lfru ? uint64_t{Age(a)} + 1 : Distance(a);
    const uint64_t divisor_b = lfru ? uint64_t{Age(b)} + 1 : Distance(b);
    const uint64_t worth_a = experts_of_all_[a.expert].uses * divisor_b;  // below 2^32 * 2^32
    const uint64_t worth_b = experts_of_all_[b.expert].uses * divisor_a;
    if (worth_a != worth_b) return worth_a < worth_b;
  }
  const uint32_t idle_a = sequence_ - a.touched, idle_b = sequence_ - b.touched;
  return idle_a != idle_b ? idle_a > idle_b : a.expert > b.expert;
}

void ExpertPool::Empty(uint32_t slot) {
  slot_of_[slots_[slot].expert] = kNoSlot;
  slots_[slot] = {};
}

void ExpertPool::Take(uint32_t slot, uint32_t expert, SlotState state) {
  if (slots_[slot].state != SlotState::kEmpty) slot_of_[slots_[slot].expert] = kNoSlot;
  slots_[slot] = {expert, expert / experts_, sequence_, state, false, false};
  slot_of_[expert] = slot;
}

bool ExpertPool::NextRead(ExpertRead *read) {
  while (next_ < event_size_ && event_[next_].state != ExpertUse::State::kWanted) ++next_;
  if (next_ == event_size_) return false;
  ExpertUse &use = event_[next_];
  if (use.slot == kNoSlot) {
    Rank best = Rank::kNever;
    for (uint32_t i = 0; i < slots_.size() && best != Rank::kEmpty; ++i) {
      const Rank rank = RankOf(slots_[i]);
      if (rank < best || (rank == best && rank != Rank::kNever && LeavesBefore(slots_[i], slots_[use.slot]))) {
        best = rank;
        use.slot = i;
      }
    }
    if (use.slot == kNoSlot) return false;
  }
  Take(use.slot, use.expert, SlotState::kLoading);
  slots_[use.slot].held = true;
  use.state = ExpertUse::State::kComing;
  ++counts_.reads;
  *read = {use.expert, use.slot};
  return true;
}

void ExpertPool::Landed(uint32_t slot, bool good) {
  ACORN_DCHECK(slot < slots_.size() && slots_[slot].state == SlotState::kLoading);
  const bool held = slots_[slot].held;
  if (good) {
    slots_[slot].state = SlotState::kReady;
  } else {
    Empty(slot);
  }
  if (!held) return;
  uint32_t i = 0;
  while (event_[i].slot != slot || event_[i].state != ExpertUse::State::kComing) ++i;
  if (good) {
    event_[i].state = ExpertUse::State::kReady;
  } else {
    event_[i] = {event_[i].expert, kNoSlot, ExpertUse::State::kWanted};
    if (i < next_) next_ = i;
  }
}

void ExpertPool::Release(uint32_t slot) {
  ACORN_DCHECK(slot < slots_.size() && slots_[slot].held && slots_[slot].state == SlotState::kReady);
  uint32_t i = 0;
  while (event_[i].slot != slot || event_[i].state != ExpertUse::State::kReady) ++i;
  event_[i].state = ExpertUse::State::kDone;
  slots_[slot].held = false;
}

void ExpertPool::End() {
  for (const ExpertUse &use : event()) {
    if (use.slot == kNoSlot || use.state == ExpertUse::State::kDone) continue;
    slots_[use.slot].held = false;
  }
  event_size_ = 0;
}

bool ExpertPool::Prefetch(uint32_t layer, uint32_t expert, ExpertRead *read) {
  ACORN_DCHECK(layer < layers_ && expert < experts_);
  const uint32_t key = layer * experts_ + expert;
  if (slot_of_[key] != kNoSlot) return false;
  for (const ExpertUse &use : event()) {
    if (use.expert == key && use.state == ExpertUse::State::kWanted) return false;
  }
  uint32_t slot = kNoSlot;
  Rank best = Rank::kProtected;
  for (uint32_t i = 0; i < slots_.size() && best != Rank::kEmpty; ++i) {
    const Rank rank = RankOf(slots_[i]);
    if (rank == Rank::kQueued || (rank == Rank::kFree && Age(slots_[i]) < kPrefetchAgeTokens)) continue;
    if (rank < best || (rank == best && rank == Rank::kFree && LeavesBefore(slots_[i], slots_[slot]))) {
      best = rank;
      slot = i;
    }
  }
  if (slot == kNoSlot) return false;
  Take(slot, key, SlotState::kQueued);
  slots_[slot].guess = true;
  *read = {key, slot};
  return true;
}

bool ExpertPool::StartPrefetch(const ExpertRead &read) {
  Slot &slot = slots_[read.slot];
  if (slot.state != SlotState::kQueued || slot.expert != read.expert || slot.held) return false;
  slot.state = SlotState::kLoading;
  ++counts_.prefetches;
  return true;
}

void ExpertPool::CancelPrefetches() {
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].state == SlotState::kQueued && !slots_[i].held) Empty(i);
  }
}

}  // namespace acorn
