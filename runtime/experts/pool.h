// The expert cache: equal slots that hold experts of all layers, and the choice of who leaves when another one comes.
// For the session, which reads experts from storage, and for the replay tool, which only counts: both run this code.
// It reads nothing, waits for nothing and knows no time: every decision follows from the sequence of calls alone, so the same
// routing fills the same slots on every machine. One thread at a time.
//
// What is looked up at once is an event: the experts that one layer needs for one token, or for all tokens of a chunk. All of
// its hits are found before anything leaves for its misses; looked up one after the other, an expert's own companions would
// push it out.
#pragma once

#include <cstdint>

#include "base/arena.h"
#include "base/span.h"
#include "base/status.h"

namespace acorn {

/// Who leaves first. f: tokens that chose the expert, halved every ExpertPool::kHalvingTokens tokens.
enum class ExpertPolicy : uint8_t {
  kLfru,     // the smallest f / (age + 1), age in tokens since its layer last used it
  kLru,      // the one not used for longest
  kEdgeMoe,  // the smallest f / distance, distance in layers until its layer runs again, 1 to `layers`
};

/// How experts are guessed that a layer may want (session/forecast.h).
enum class ExpertPrefetch : uint8_t { kOff, kGate, kPath };

struct ExpertPoolShape {
  uint32_t layers;   // that have experts
  uint32_t experts;  // of each of them
  uint32_t slots;    // 1 to layers * experts
  ExpertPolicy policy;
};

constexpr uint32_t kMaxExpertKeys = 1u << 24;
constexpr uint32_t kNoSlot = ~uint32_t{0};

/// Below one token's working set every expert of a layer has left before the layer runs again: recency finds nothing.
/// What a plan warns of when there are fewer slots.
constexpr uint32_t SmallestUsefulSlots(uint32_t layers, uint32_t experts_per_token) { return layers * experts_per_token; }

/// One expert of the event under way.
struct ExpertUse {
  enum class State : uint8_t {
    kWanted,  // a read has to be issued: NextRead
    kComing,  // a read is under way: Landed
    kReady,   // in its slot until Release
    kDone,    // released
  };
  uint32_t expert;  // layer * experts + expert
  uint32_t slot;    // kNoSlot while it has none
  State state;
};

struct ExpertRead {
  uint32_t expert;  // layer * experts + expert
  uint32_t slot;
};

/// Counts since Open. hits + misses = experts looked up.
struct ExpertCounts {
  uint64_t hits;             // the event found it in a slot, or on its way there
  uint64_t late;             // of the hits: still on its way
  uint64_t misses;           // the event had to ask for it
  uint64_t reads;            // handed out by NextRead: misses, and what had to be read again
  uint64_t prefetches;       // reads begun by StartPrefetch
  uint64_t prefetches_used;  // of those, looked up before they left
};

class ExpertPool {
 public:
  /// Tokens of a layer after which its f are halved. On recorded routing 64 was as good, 1,024 cost 1 to 2 % more
  /// misses, never halving 2 to 8 %.
  static constexpr uint32_t kHalvingTokens = 256;
  /// A prefetch takes the slot of none that its layer used within so many tokens.
  static constexpr uint32_t kPrefetchAgeTokens = 2;

  /// Lays the tables out in `arena` and empties the pool; with an arena that counts, the pool must not be used.
  /// Memory: SizeOf(shape); the slots themselves are the caller's, it knows their bytes and alignment.
  /// Returns: kOk | kArgument (a count of zero, more slots than experts, more than kMaxExpertKeys experts)
  Status Open(Arena *arena, const ExpertPoolShape &shape);

  /// Empties the pool and gives it another number of slots, at most as many as at Open. What is known of the experts' use stays. No
  /// event and no read may be under way.
  void Resize(uint32_t slots);

  /// Bytes of the tables for a legal shape.
  static uint64_t SizeOf(const ExpertPoolShape &shape);

  // ---- an event ----

  /// Begins the event of one layer: looks its experts up, counts them, holds those that are there. Protected are the experts
  /// that each layer used when it last ran, one token's working set: they go only when there is nobody else. (Those that the
  /// previous token had in this layer and this one has not cannot be wanted before the next token; protecting them too cost 2 to
  /// 15 % more misses on recorded routing.)
  ///   experts  distinct, each below `experts`
  ///   uses     [experts] tokens that chose each; none: one each
  ///   tokens   of the chunk
  /// No event may be under way.
  void Begin(uint32_t layer, Span<const uint32_t> experts, Span<const uint32_t> uses, uint32_t tokens);

  /// The next read that can be issued, with the slot that it fills; the slot is the event's from now on. Ask until false,
  /// before anything is computed, and again after each Release and each Landed: an event of more experts than there are free
  /// slots is served as slots come free. One that fits gets all of its reads at once, unless prefetches or reads that were given
  /// up still fill the slots.
  bool NextRead(ExpertRead *read);

  /// The operator is done with a ready expert of the event.
  void Release(uint32_t slot);

  /// Ends the event, or gives it up: held experts become free to leave, reads under way may still land.
  void End();

  /// The experts of the event, in the order in which they were given.
  Span<const ExpertUse> event() const { return event_.subspan(0, event_size_); }

  // ---- reads ----

  /// A read has ended. good: its bytes are there and have been checked. Otherwise the slot is empty again; where the event
  /// still wants the expert, NextRead hands it out once more: read it again, or give up with End.
  void Landed(uint32_t slot, bool good);

  // ---- prefetching ----

  /// Sets a slot aside for an expert that may be needed. Only empty slots, and those of experts that are not held, not protected
  /// and not used lately.
  /// False: it is there, on its way or wanted by the event, or no slot is to be had
  bool Prefetch(uint32_t layer, uint32_t expert, ExpertRead *read);

  /// The read is about to be issued.  False: a demand has taken the slot, forget it
  bool StartPrefetch(const ExpertRead &read);

  /// Gives up what has been set aside and not started.
  void CancelPrefetches();

  /// Slot of an expert, ready or not; kNoSlot.
  uint32_t slot_of(uint32_t layer, uint32_t expert) const { return slot_of_[layer * experts_ + expert]; }
  /// Held by the event, or the target of a read under way: not to be written by anybody else.
  bool busy(uint32_t slot) const { return slots_[slot].held || slots_[slot].state == SlotState::kLoading; }
  bool ready(uint32_t slot) const { return slots_[slot].state == SlotState::kReady; }
  const ExpertCounts &counts() const { return counts_; }

 private:
  enum class SlotState : uint8_t { kEmpty, kQueued, kLoading, kReady };  // kQueued: set aside for a prefetch

  struct Slot {
    uint32_t expert;   // layer * experts + expert, unless empty
    uint32_t layer;    // of it
    uint32_t touched;  // number of the last event that looked it up
    SlotState state;
    bool held;   // by the event under way
    bool guess;  // prefetched, and its layer's turn has not come yet
  };

  struct Expert {
    uint32_t uses;        // f
    uint32_t used_token;  // the layer's clock when it was last used
  };

  // How gladly a slot is given to a read: the lowest first.
  enum class Rank : uint8_t { kEmpty, kQueued, kFree, kProtected, kNever };

  Rank RankOf(const Slot &slot) const;
  bool LeavesBefore(const Slot &a, const Slot &b) const;
  uint32_t Age(const Slot &slot) const { return clock_[slot.layer] - experts_of_all_[slot.expert].used_token; }
  uint64_t Distance(const Slot &slot) const;
  void Tick(uint32_t layer, uint32_t tokens);
  void Take(uint32_t slot, uint32_t expert, SlotState state);
  void Empty(uint32_t slot);

  uint32_t layers_ = 0, experts_ = 0;
  ExpertPolicy policy_ = ExpertPolicy::kLfru;
  // Clocks wrap around; ages are differences, and what is as old as 2^32 may look young.
  uint32_t layer_ = 0;     // of the last event
  uint32_t sequence_ = 0;  // events
  uint32_t event_size_ = 0;
  uint32_t next_ = 0;            // no use of the event before this one is wanted
  Span<uint32_t> slot_of_;       // [layers * experts]
  Span<Expert> experts_of_all_;  // [layers * experts]
  Span<uint32_t> clock_;         // [layers] tokens that the layer has seen
  Span<Slot> all_slots_;         // [slots at Open]
  Span<Slot> slots_;             // of these the first, which are in use
  Span<ExpertUse> event_;        // [experts]
  ExpertCounts counts_ = {};
};

}  // namespace acorn
