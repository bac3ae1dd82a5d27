// The expert cache against a plain second implementation, its rules one by one, and what must hold whatever happens.
#include "experts/pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "acorn_schema/file.h"
#include "experts/streaming.h"
#include "tests/support/wide.h"

namespace acorn {
namespace {

using Experts = std::vector<uint32_t>;

class Random {
 public:
  using result_type = uint32_t;
  explicit Random(uint32_t seed) : engine_(seed) {}
  uint32_t operator()() { return static_cast<uint32_t>(engine_()); }
  static constexpr uint32_t min() { return 0; }
  static constexpr uint32_t max() { return ~uint32_t{0}; }

 private:
  std::mt19937 engine_;
};

/// A pool with memory of its own, and the calls that a session makes.
class OpenPool {
 public:
  explicit OpenPool(const ExpertPoolShape &of) : shape(of), block_(ExpertPool::SizeOf(of) + Arena::kAlignment) {
    uint8_t *begin = block_.data();
    begin += AlignUp(reinterpret_cast<uintptr_t>(begin), Arena::kAlignment) - reinterpret_cast<uintptr_t>(begin);
    Arena arena(begin);
    EXPECT_EQ(pool.Open(&arena, shape), Status::kOk);
    EXPECT_EQ(arena.used(), ExpertPool::SizeOf(shape));
  }

  void Begin(uint32_t layer, const Experts &experts, const Experts &uses = {}, uint32_t tokens = 1) {
    pool.Begin(layer, {experts.data(), experts.size()}, {uses.data(), uses.size()}, tokens);
  }
  std::vector<ExpertRead> Reads() {
    std::vector<ExpertRead> reads;
    for (ExpertRead read; pool.NextRead(&read);) reads.push_back(read);
    return reads;
  }
  /// A whole event, every read good.  Returns its misses.
  uint64_t Event(uint32_t layer, const Experts &experts, const Experts &uses = {}, uint32_t tokens = 1) {
    const uint64_t before = pool.counts().misses;
    Begin(layer, experts, uses, tokens);
    std::vector<ExpertRead> reads = Reads();
    for (bool more = true; more;) {
      for (const ExpertRead &read : reads) pool.Landed(read.slot, true);
      for (const ExpertUse &use : pool.event()) {
        if (use.state == ExpertUse::State::kReady) pool.Release(use.slot);
      }
      reads = Reads();
      more = !reads.empty();
    }
    for (const ExpertUse &use : pool.event()) EXPECT_EQ(use.state, ExpertUse::State::kDone);
    pool.End();
    return pool.counts().misses - before;
  }
  bool Has(uint32_t layer, uint32_t expert) const {
    const uint32_t slot = pool.slot_of(layer, expert);
    return slot != kNoSlot && pool.ready(slot);
  }

  const ExpertPoolShape shape;
  ExpertPool pool;

 private:
  std::vector<uint8_t> block_;
};

/// `count` distinct experts; the first ones are the likeliest.
Experts Draw(Random *random, uint32_t experts, uint32_t count) {
  std::set<uint32_t> drawn;
  while (drawn.size() < count) drawn.insert((*random)() % (1 + (*random)() % experts));
  Experts out(drawn.begin(), drawn.end());
  std::shuffle(out.begin(), out.end(), *random);
  return out;
}

/// The same cache once more, as plain as can be: the history is kept, and everything is computed from it when asked.
class PlainCache {
 public:
  explicit PlainCache(const ExpertPoolShape &shape) : shape_(shape) {}

  uint64_t Event(uint32_t layer, const Experts &experts, const Experts &uses, uint32_t tokens) {
    history_.push_back({layer, tokens, {}});
    std::vector<uint32_t> missing;
    for (size_t i = 0; i < experts.size(); ++i) {
      const uint32_t key = layer * shape_.experts + experts[i];
      history_.back().uses[key] = uses.empty() ? 1 : uses[i];
      if (present_.count(key) == 0) missing.push_back(key);
    }
    for (const uint32_t key : missing) {
      if (present_.size() == shape_.slots) present_.erase(Victim());
      present_.insert(key);
    }
    return missing.size();
  }
  const std::set<uint32_t> &present() const { return present_; }

 private:
  struct Past {
    uint32_t layer, tokens;
    std::map<uint32_t, uint32_t> uses;
  };
  struct Worth {
    test::Wide above, below;
    int64_t last;  // index of the last event that used it
    uint32_t key;
  };

  Worth WorthOf(uint32_t key) const {
    const uint32_t layer = key / shape_.experts;
    uint64_t f = 0, age = 0, clock = 0;
    int64_t last = -1;
    for (size_t i = 0; i < history_.size(); ++i) {
      if (history_[i].layer != layer) continue;
      for (uint32_t token = 0; token < history_[i].tokens; ++token) {
        if (++clock % ExpertPool::kHalvingTokens == 0) f /= 2;
      }
      age += history_[i].tokens;
      const auto use = history_[i].uses.find(key);
      if (use == history_[i].uses.end()) continue;
      f += use->second;
      age = 0;
      last = static_cast<int64_t>(i);
    }
    const uint32_t now = history_.back().layer;
    uint64_t distance = (layer + shape_.layers - now) % shape_.layers;
    if (distance == 0) distance = shape_.layers;
    switch (shape_.policy) {
      case ExpertPolicy::kLfru:
        return {f, age + 1, last, key};
      case ExpertPolicy::kEdgeMoe:
        return {f, distance, last, key};
      case ExpertPolicy::kLru:
        break;
    }
    return {0, 1, last, key};
  }

  uint32_t Victim() const {
    std::vector<Worth> free, recent;
    for (const uint32_t key : present_) {
      if (history_.back().uses.count(key) != 0) continue;
      const Worth worth = WorthOf(key);
      bool last_of_its_layer = true;
      for (size_t i = static_cast<size_t>(worth.last) + 1; i < history_.size(); ++i) {
        last_of_its_layer = last_of_its_layer && history_[i].layer != key / shape_.experts;
      }
      (last_of_its_layer ? recent : free).push_back(worth);
    }
    const std::vector<Worth> &from = free.empty() ? recent : free;
    return std::min_element(from.begin(), from.end(), [](const Worth &a, const Worth &b) {
             if (a.above * b.below != b.above * a.below) return a.above * b.below < b.above * a.below;
             return a.last != b.last ? a.last < b.last : a.key > b.key;
           })->key;
  }

  const ExpertPoolShape shape_;
  std::vector<Past> history_;
  std::set<uint32_t> present_;
};

constexpr ExpertPolicy kPolicies[] = {ExpertPolicy::kLfru, ExpertPolicy::kLru, ExpertPolicy::kEdgeMoe};

TEST(ExpertPool, AgreesWithThePlainOne) {
  Random random(7);
  for (int round = 0; round < 60; ++round) {
    const uint32_t layers = 1 + random() % 4, experts = 2 + random() % 9, most = 1 + random() % experts;
    const uint32_t slots = std::min(layers * experts, most + random() % (layers * experts));
    for (const ExpertPolicy policy : kPolicies) {
      OpenPool pool({layers, experts, slots, policy});
      PlainCache plain(pool.shape);
      uint64_t lookups = 0, misses = 0;
      for (int i = 0; i < 60; ++i) {
        const uint32_t layer = random() % 8 == 0 ? random() % layers : static_cast<uint32_t>(i) % layers;
        const Experts chosen = Draw(&random, experts, 1 + random() % most);
        Experts uses;
        const uint32_t tokens = random() % 4 == 0 ? 1 + random() % 300 : 1;
        if (tokens > 1) {
          for (size_t n = 0; n < chosen.size(); ++n) uses.push_back(1 + random() % tokens);
        }
        const uint64_t expected = plain.Event(layer, chosen, uses, tokens);
        ASSERT_EQ(pool.Event(layer, chosen, uses, tokens), expected) << "round " << round << " event " << i;
        lookups += chosen.size();
        misses += expected;
        for (uint32_t key = 0; key < layers * experts; ++key) {
          ASSERT_EQ(pool.Has(key / experts, key % experts), plain.present().count(key) != 0) << "round " << round << " event " << i;
        }
      }
      EXPECT_EQ(pool.pool.counts().hits + pool.pool.counts().misses, lookups);
      EXPECT_EQ(pool.pool.counts().misses, misses);
      EXPECT_EQ(pool.pool.counts().reads, misses);
    }
  }
}

/// What must hold after every call.
void ExpectSound(const OpenPool &open, const std::set<uint32_t> &reading) {
  const ExpertPoolShape &shape = open.shape;
  std::set<uint32_t> taken;
  for (uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (uint32_t expert = 0; expert < shape.experts; ++expert) {
      const uint32_t slot = open.pool.slot_of(layer, expert);
      if (slot == kNoSlot) continue;
      ASSERT_LT(slot, shape.slots);
      ASSERT_TRUE(taken.insert(slot).second) << "two experts in slot " << slot;
    }
  }
  for (const uint32_t slot : reading) ASSERT_TRUE(taken.count(slot) != 0 && open.pool.busy(slot)) << "a read lost slot " << slot;
  std::set<uint32_t> mine;
  for (const ExpertUse &use : open.pool.event()) {
    if (use.state == ExpertUse::State::kDone || use.slot == kNoSlot) continue;
    ASSERT_TRUE(mine.insert(use.slot).second);
    ASSERT_EQ(open.pool.slot_of(use.expert / shape.experts, use.expert % shape.experts), use.slot);
    ASSERT_EQ(open.pool.ready(use.slot), use.state == ExpertUse::State::kReady);
    ASSERT_EQ(reading.count(use.slot) != 0, use.state == ExpertUse::State::kComing);
  }
}

/// Reads that land in any order or fail, events of any size, given up at any time, guesses that are started, stolen, dropped.
TEST(ExpertPool, NothingIsLostWhateverHappens) {
  Random random(11);
  for (int round = 0; round < 100; ++round) {
    const uint32_t layers = 1 + random() % 3, experts = 2 + random() % 6, slots = 1 + random() % (layers * experts);
    OpenPool open({layers, experts, slots, kPolicies[round % 3]});
    ExpertPool &pool = open.pool;
    std::set<uint32_t> reading;
    std::vector<ExpertRead> queued;
    uint64_t lookups = 0;
    for (int step = 0; step < 400; ++step) {
      ExpertRead read;
      std::vector<uint32_t> ready;
      for (const ExpertUse &use : pool.event()) {
        if (use.state == ExpertUse::State::kReady) ready.push_back(use.slot);
      }
      switch (random() % 8) {
        case 0:
          if (random() % 4 != 0 && !pool.event().empty()) break;
          pool.End();
          {
            const Experts chosen = Draw(&random, experts, 1 + random() % experts);
            lookups += chosen.size();
            open.Begin(random() % layers, chosen);
          }
          break;
        case 1:
        case 2:
          if (!pool.NextRead(&read)) break;
          ASSERT_TRUE(reading.insert(read.slot).second) << "slot " << read.slot << " is being read into";
          break;
        case 3:
        case 4:
          if (reading.empty()) break;
          {
            const uint32_t slot = *std::next(reading.begin(), static_cast<int>(random() % reading.size()));
            reading.erase(slot);
            pool.Landed(slot, random() % 5 != 0);
          }
          break;
        case 5:
          if (!ready.empty()) pool.Release(ready[random() % ready.size()]);
          break;
        case 6:
          if (pool.Prefetch(random() % layers, random() % experts, &read)) {
            ASSERT_EQ(reading.count(read.slot), 0u);
            queued.push_back(read);
          }
          break;
        default:
          if (queued.empty()) break;
          if (random() % 4 == 0) {
            pool.CancelPrefetches();
            for (const ExpertRead &dropped : queued) ASSERT_FALSE(pool.StartPrefetch(dropped));
            queued.clear();
            break;
          }
          if (pool.StartPrefetch(queued.front())) {
            ASSERT_TRUE(reading.insert(queued.front().slot).second);
          }
          queued.erase(queued.begin());
      }
      ExpectSound(open, reading);
      if (HasFatalFailure()) FAIL() << "round " << round << " step " << step;
    }
    EXPECT_EQ(pool.counts().hits + pool.counts().misses, lookups);
    // Every slot can still be had.
    pool.End();
    pool.CancelPrefetches();
    for (const uint32_t slot : reading) pool.Landed(slot, false);
    for (int pass = 0; pass < 3; ++pass) {
      for (uint32_t layer = 0; layer < layers; ++layer) {
        for (uint32_t expert = 0; expert < experts; ++expert) open.Event(layer, {expert});
      }
    }
    for (uint32_t slot = 0; slot < slots; ++slot) EXPECT_TRUE(pool.ready(slot) && !pool.busy(slot)) << "slot " << slot << " is lost";
  }
}

TEST(ExpertPool, RefusesShapesThatCannotBe) {
  Arena arena;
  ExpertPool pool;
  const ExpertPolicy lru = ExpertPolicy::kLru;
  for (const ExpertPoolShape &shape : {ExpertPoolShape{0, 4, 1, lru}, {4, 0, 1, lru}, {4, 4, 0, lru}, {4, 4, 17, lru},
                                       {1u << 16, 1u << 16, 1, lru}, {kMaxExpertKeys, 2, 1, lru}}) {
    EXPECT_EQ(pool.Open(&arena, shape), Status::kArgument);
    EXPECT_EQ(ExpertPool::SizeOf(shape), 0u);
  }
  EXPECT_EQ(pool.Open(&arena, {4, 4, 16, lru}), Status::kOk);
  EXPECT_EQ(arena.used(), ExpertPool::SizeOf({4, 4, 16, lru}));
}

TEST(ExpertSlots, MoreThanThereAreAddresses) {
  StreamingShape shape = {{1u << 14, 1024, kMaxExpertKeys, ExpertPolicy::kLfru}, {{uint64_t{1} << 40, kMaxExpertKeys}}, 1, 1};
  EXPECT_EQ(SlotArrayBytes(shape), UINT64_MAX);
  shape.layouts[0].bytes = uint64_t{1} << 39;
  EXPECT_EQ(SlotArrayBytes(shape), (uint64_t{1} << 63) + kSegmentAlignment);
  Arena tables, slots;
  StreamingExperts experts;
  EXPECT_EQ(LayOutStreaming(shape, &tables, &slots, &experts), Status::kOk);
  EXPECT_TRUE(slots.overflow());
}

/// One after the other, 0 would push 1 out before it is looked up.
TEST(ExpertPool, CompanionsDoNotPushEachOtherOut) {
  OpenPool open({1, 4, 2, ExpertPolicy::kLru});
  EXPECT_EQ(open.Event(0, {1, 2}), 2u);
  EXPECT_EQ(open.Event(0, {0, 1}), 1u);
  EXPECT_TRUE(open.Has(0, 0) && open.Has(0, 1));
}

/// By hand: expert 0 was used four times and last six tokens ago, 4/7; expert 1 once, two tokens ago, 1/3; 2 and 3 four times,
/// one token ago, 2.
TEST(ExpertPool, LfruWeighsUsesAgainstAge) {
  OpenPool open({1, 8, 4, ExpertPolicy::kLfru});
  for (int i = 0; i < 4; ++i) open.Event(0, {0});
  for (int i = 0; i < 3; ++i) open.Event(0, {2, 3});
  open.Event(0, {1});
  open.Event(0, {2, 3});
  EXPECT_EQ(open.Event(0, {4}), 1u);
  EXPECT_FALSE(open.Has(0, 1));
  EXPECT_TRUE(open.Has(0, 0));
  // The same under LRU: 0 leaves.
  OpenPool lru({1, 8, 4, ExpertPolicy::kLru});
  for (int i = 0; i < 4; ++i) lru.Event(0, {0});
  for (int i = 0; i < 3; ++i) lru.Event(0, {2, 3});
  lru.Event(0, {1});
  lru.Event(0, {2, 3});
  lru.Event(0, {4});
  EXPECT_TRUE(lru.Has(0, 1));
  EXPECT_FALSE(lru.Has(0, 0));
}

/// The layer that runs next is the dearest, the one that has just run the cheapest: as EdgeMoE's prose says, not as its formula
/// is printed.
TEST(ExpertPool, EdgeMoeKeepsTheNextLayerBeforeTheLast) {
  OpenPool open({5, 4, 5, ExpertPolicy::kEdgeMoe});
  for (uint32_t layer = 0; layer < 5; ++layer) open.Event(layer, {0});
  for (uint32_t layer = 0; layer < 5; ++layer) open.Event(layer, {});  // so that expert 0 of no layer is protected
  for (uint32_t layer = 0; layer < 2; ++layer) open.Event(layer, {});
  EXPECT_EQ(open.Event(2, {1}), 1u);
  EXPECT_FALSE(open.Has(2, 0)) << "the layer that runs now is the furthest";
  EXPECT_EQ(open.Event(2, {1, 2}), 1u);
  EXPECT_FALSE(open.Has(1, 0)) << "then the one before";
  EXPECT_TRUE(open.Has(3, 0) && open.Has(4, 0) && open.Has(0, 0));
}

TEST(ExpertPool, UsesAreHalved) {
  OpenPool open({1, 8, 2, ExpertPolicy::kLfru});
  open.Event(0, {0}, {200}, 200);                                     // 200, then halved with the clock at 256 and 512
  open.Event(0, {1}, {2 * ExpertPool::kHalvingTokens}, 2 * ExpertPool::kHalvingTokens);
  // 0: 50 / 1,000 or so; 1: 512.
  for (int i = 0; i < 3; ++i) open.Event(0, {});
  EXPECT_EQ(open.Event(0, {2}), 1u);
  EXPECT_FALSE(open.Has(0, 0));
  EXPECT_TRUE(open.Has(0, 1));
}

TEST(ExpertPool, ThePreviousTokenIsProtected) {
  for (const ExpertPolicy policy : kPolicies) {
    OpenPool open({2, 8, 6, policy});
    for (int i = 0; i < 9; ++i) {
      open.Event(0, {0, 1});
      open.Event(1, {0, 1});
    }
    open.Event(0, {2});
    open.Event(1, {2});
    EXPECT_EQ(open.Event(0, {2, 3}), 1u);  // expert 2 of layer 1 has been used once, the four others nine times
    EXPECT_TRUE(open.Has(1, 2) && open.Has(0, 2) && open.Has(0, 3));
  }
}

/// With no slot but the previous token's, they serve.
TEST(ExpertPool, ProtectionGivesWayWhereThereIsNobodyElse) {
  for (const ExpertPolicy policy : kPolicies) {
    OpenPool open({3, 6, 2, policy});
    EXPECT_EQ(open.Event(0, {0}), 1u);
    EXPECT_EQ(open.Event(1, {0}), 1u);
    EXPECT_EQ(open.Event(2, {2, 3}), 2u);
    EXPECT_TRUE(open.Has(2, 2) && open.Has(2, 3));
  }
}

/// Tokens that are all alike: with one layer's slots too few recency finds nothing, with the working set all of it.
TEST(ExpertPool, BelowOneTokensWorkingSetLruFindsNothing) {
  const uint32_t layers = 5, top = 2;
  static_assert(SmallestUsefulSlots(layers, top) == 10);
  for (uint32_t slots = top; slots <= layers * top; ++slots) {
    OpenPool open({layers, 4, slots, ExpertPolicy::kLru});
    for (int token = 0; token < 20; ++token) {
      for (uint32_t layer = 0; layer < layers; ++layer) open.Event(layer, {1, 3});
    }
    const ExpertCounts &counts = open.pool.counts();
    if (slots <= (layers - 1) * top) {
      EXPECT_EQ(counts.hits, 0u) << slots;
    }
    if (slots == SmallestUsefulSlots(layers, top)) {
      EXPECT_EQ(counts.misses, uint64_t{layers} * top);
    }
  }
}

TEST(ExpertPool, AnEventLargerThanThePoolIsServedInParts) {
  for (const ExpertPolicy policy : kPolicies) {
    OpenPool open({2, 8, 3, policy});
    open.Event(0, {6, 7});
    open.Begin(0, {0, 1, 2, 3, 4, 5, 6, 7});
    EXPECT_EQ(open.pool.counts().hits, 2u) << "what is there is used before it leaves";
    std::vector<ExpertRead> reads = open.Reads();
    ASSERT_EQ(reads.size(), 1u);
    open.pool.Landed(reads[0].slot, true);
    EXPECT_TRUE(open.Reads().empty());
    std::set<uint32_t> served;
    for (int rounds = 0; rounds < 8; ++rounds) {
      for (const ExpertUse &use : open.pool.event()) {
        if (use.state != ExpertUse::State::kReady) continue;
        served.insert(use.expert);
        open.pool.Release(use.slot);
      }
      for (const ExpertRead &read : open.Reads()) open.pool.Landed(read.slot, true);
    }
    EXPECT_EQ(served.size(), 8u);
    open.pool.End();
    EXPECT_EQ(open.pool.counts().misses, 2u + 6u);
    EXPECT_EQ(open.pool.counts().reads, 2u + 6u);
  }
}

TEST(ExpertPool, APoolOfOneSlotServesAll) {
  OpenPool open({2, 4, 1, ExpertPolicy::kLfru});
  EXPECT_EQ(open.Event(0, {3, 1, 2}), 3u);
  EXPECT_EQ(open.Event(1, {0, 2}), 2u);
  EXPECT_EQ(open.Event(1, {2}), 0u);
}

TEST(ExpertPool, AFailedReadIsHandedOutAgainOrGivenUp) {
  OpenPool open({1, 4, 2, ExpertPolicy::kLfru});
  open.Begin(0, {0, 1});
  std::vector<ExpertRead> reads = open.Reads();
  ASSERT_EQ(reads.size(), 2u);
  open.pool.Landed(reads[0].slot, false);
  EXPECT_EQ(open.pool.slot_of(0, 0), kNoSlot);
  std::vector<ExpertRead> again = open.Reads();
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].expert, 0u);
  open.pool.Landed(again[0].slot, false);
  open.pool.End();  // the other is still on its way
  EXPECT_TRUE(open.pool.busy(reads[1].slot));
  // The next try finds it on its way, and reads the first alone.
  open.Begin(0, {0, 1});
  EXPECT_EQ(open.pool.counts().late, 1u);
  again = open.Reads();
  ASSERT_EQ(again.size(), 1u);
  open.pool.Landed(reads[1].slot, true);
  open.pool.Landed(again[0].slot, true);
  open.pool.End();
  EXPECT_TRUE(open.Has(0, 0) && open.Has(0, 1));
  EXPECT_FALSE(open.pool.busy(0) || open.pool.busy(1));
}

/// While a read is under way its slot cannot go to anybody else, even when the event was given up.
TEST(ExpertPool, AReadUnderWayKeepsItsSlot) {
  OpenPool open({1, 4, 1, ExpertPolicy::kLru});
  open.Begin(0, {0});
  const std::vector<ExpertRead> reads = open.Reads();
  ASSERT_EQ(reads.size(), 1u);
  open.pool.End();
  open.Begin(0, {1});
  EXPECT_TRUE(open.Reads().empty());
  open.pool.Landed(0, false);
  EXPECT_EQ(open.Reads().size(), 1u);
}

TEST(ExpertPool, PrefetchTakesOnlyWhatIsOld) {
  OpenPool open({2, 8, 3, ExpertPolicy::kLfru});
  ExpertRead read;
  open.Event(0, {0, 1});
  ASSERT_TRUE(open.pool.Prefetch(1, 0, &read)) << "an empty slot";
  EXPECT_FALSE(open.pool.Prefetch(1, 0, &read)) << "set aside already";
  EXPECT_FALSE(open.pool.Prefetch(0, 0, &read)) << "there";
  EXPECT_FALSE(open.pool.Prefetch(1, 1, &read)) << "nothing old enough";
  ASSERT_TRUE(open.pool.StartPrefetch(read));
  open.pool.Landed(read.slot, true);
  EXPECT_EQ(open.Event(1, {0}), 0u);
  EXPECT_EQ(open.pool.counts().prefetches, 1u);
  EXPECT_EQ(open.pool.counts().prefetches_used, 1u);
  open.Event(0, {0});
  open.Event(1, {0});
  EXPECT_FALSE(open.pool.Prefetch(1, 2, &read)) << "expert 1 of layer 0 is the previous token's";
  open.Event(0, {0});
  open.Event(1, {0});
  EXPECT_TRUE(open.pool.Prefetch(1, 2, &read)) << "it is not any more";
  EXPECT_FALSE(open.Has(0, 1));
}

TEST(ExpertPool, DemandStealsWhatIsQueuedAndWaitsForWhatIsRead) {
  OpenPool open({2, 4, 2, ExpertPolicy::kLfru});
  ExpertRead queued, started;
  ASSERT_TRUE(open.pool.Prefetch(1, 0, &queued));
  ASSERT_TRUE(open.pool.Prefetch(1, 1, &started));
  ASSERT_TRUE(open.pool.StartPrefetch(started));
  open.Begin(0, {3});
  const std::vector<ExpertRead> reads = open.Reads();
  ASSERT_EQ(reads.size(), 1u);
  EXPECT_EQ(reads[0].slot, queued.slot);
  EXPECT_FALSE(open.pool.StartPrefetch(queued));
  open.pool.Landed(reads[0].slot, true);
  open.pool.End();
  open.Begin(1, {1});
  EXPECT_TRUE(open.Reads().empty());
  EXPECT_EQ(open.pool.event()[0].state, ExpertUse::State::kComing);
  open.pool.Landed(started.slot, true);
  EXPECT_EQ(open.pool.event()[0].state, ExpertUse::State::kReady);
  open.pool.End();
  EXPECT_EQ(open.pool.counts().late, 1u);
  EXPECT_EQ(open.pool.counts().prefetches_used, 1u);
}

/// What was set aside and not started is a miss like any other; its own slot serves it.
TEST(ExpertPool, AWantedGuessThatIsQueuedIsReadAtOnce) {
  OpenPool open({1, 4, 3, ExpertPolicy::kLru});
  ExpertRead guess;
  ASSERT_TRUE(open.pool.Prefetch(0, 2, &guess));
  open.Begin(0, {1, 2});
  EXPECT_FALSE(open.pool.StartPrefetch(guess));
  const std::vector<ExpertRead> reads = open.Reads();
  ASSERT_EQ(reads.size(), 2u);
  EXPECT_EQ(reads[1].slot, guess.slot);
  EXPECT_EQ(open.pool.counts().misses, 2u);
  EXPECT_EQ(open.pool.counts().prefetches_used, 0u);
}

/// A guess stays until its layer has run, then it is like any other.
TEST(ExpertPool, AGuessIsProtectedUntilItsLayerHasRun) {
  OpenPool open({2, 8, 3, ExpertPolicy::kLfru});
  for (int i = 0; i < 3; ++i) open.Event(0, {0});
  open.Event(1, {0});
  ExpertRead guess;
  ASSERT_TRUE(open.pool.Prefetch(1, 5, &guess));
  ASSERT_TRUE(open.pool.StartPrefetch(guess));
  open.pool.Landed(guess.slot, true);
  open.Event(0, {});
  open.Event(0, {});
  EXPECT_EQ(open.Event(0, {1}), 1u);
  EXPECT_TRUE(open.Has(1, 5));
  open.Event(1, {1});
  EXPECT_TRUE(open.pool.counts().prefetches_used == 0);
  EXPECT_EQ(open.Event(1, {2}), 1u);
  EXPECT_FALSE(open.Has(1, 5)) << "its layer ran without it";
}

}  // namespace
}  // namespace acorn
