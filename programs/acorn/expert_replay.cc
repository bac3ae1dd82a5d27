#include "expert_replay.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <set>
#include <type_traits>
#include <utility>

#include "error.h"
#include "experts/paths.h"
#include "experts/pool.h"

namespace acorn::program {
namespace {

ExpertPolicy PoolPolicy(ReplayPolicy policy) {
  switch (policy) {
    case ReplayPolicy::kLru:
      return ExpertPolicy::kLru;
    case ReplayPolicy::kEdgeMoe:
      return ExpertPolicy::kEdgeMoe;
    default:
      return ExpertPolicy::kLfru;
  }
}

/// Memory of tables that an arena hands out.
class Block {
 public:
  explicit Block(uint64_t bytes) : lines_(std::make_unique<Line[]>(bytes / sizeof(Line) + 1)) {}
  Arena arena() const { return Arena(reinterpret_cast<uint8_t *>(lines_.get())); }

 private:
  struct alignas(Arena::kAlignment) Line {
    uint8_t bytes[Arena::kAlignment];
  };
  std::unique_ptr<Line[]> lines_;
};

ExpertPoolShape ShapeOf(const TraceFacts &facts, const ReplaySettings &settings) {
  return {facts.layers, facts.experts, settings.slots, PoolPolicy(settings.policy)};
}

/// The runtime's pool, with memory of its own.
class PoolCache : public ExpertPool {
 public:
  PoolCache(const TraceFacts &facts, const ReplayEvents &events, const ReplaySettings &settings)
      : events_(events), block_(SizeOf(ShapeOf(facts, settings))) {
    Arena arena = block_.arena();
    if (Open(&arena, ShapeOf(facts, settings)) != Status::kOk) {
      Fail(ExitCode::kUsage, "a cache of %u slots for %u layers of %u experts", settings.slots, facts.layers, facts.experts);
    }
  }
  void BeginEvent(size_t i) {
    const ReplayEvents::Event &event = events_.events[i];
    const size_t count = event.end - event.begin;
    Begin(event.layer, {events_.experts.data() + event.begin, count}, {events_.uses.data() + event.begin, count}, event.tokens);
  }

 private:
  const ReplayEvents &events_;
  Block block_;
};

/// The runtime's statistics of paths, likewise.
class Paths : public ExpertPaths {
 public:
  explicit Paths(const TraceFacts &facts) : block_(SizeOf(facts)) {
    Arena arena = block_.arena();
    Open(&arena, facts.layers, facts.experts);
  }

 private:
  static uint64_t SizeOf(const TraceFacts &facts) {
    Arena counting;
    ExpertPaths().Open(&counting, facts.layers, facts.experts);
    return counting.used();
  }
  Block block_;
};

/// What nobody can beat: when there are too many, those go whose next use is furthest away. Events that fit need all of their
/// experts at once, and for those this is the fewest misses that can be had; from one that is larger than the cache it keeps
/// whatever is best, which no order of serving it can do better. Slots are the places in the event.
class BeladyCache {
 public:
  BeladyCache(const TraceFacts &facts, const ReplayEvents &events, const ReplaySettings &settings)
      : events_(events), experts_(facts.experts), slots_(settings.slots) {}

  void BeginEvent(size_t i) {
    now_ = i;
    next_ = held_ = 0;
    const ReplayEvents::Event &event = events_.events[i];
    uses_.clear();
    for (size_t at = event.begin; at < event.end; ++at) {
      const uint32_t expert = event.layer * experts_ + events_.experts[at];
      const bool hit = kept_.count({i, expert}) != 0;
      held_ += hit;
      uses_.push_back({expert, static_cast<uint32_t>(at - event.begin), hit ? ExpertUse::State::kReady : ExpertUse::State::kWanted});
    }
  }
  bool NextRead(ExpertRead *read) {
    while (next_ < uses_.size() && uses_[next_].state != ExpertUse::State::kWanted) ++next_;
    if (next_ == uses_.size() || held_ == slots_) return false;
    ++held_;
    uses_[next_].state = ExpertUse::State::kComing;
    *read = {uses_[next_].expert, uses_[next_].slot};
    return true;
  }
  void Landed(uint32_t slot, bool) { uses_[slot].state = ExpertUse::State::kReady; }
  void Release(uint32_t slot) {
    uses_[slot].state = ExpertUse::State::kDone;
    --held_;
  }
  void End() {
    const size_t begin = events_.events[now_].begin;
    for (const ExpertUse &use : uses_) kept_.erase({now_, use.expert});
    if (uses_.size() <= slots_) Keep(slots_ - uses_.size());
    for (const ExpertUse &use : uses_) kept_.insert({events_.next_use[begin + use.slot], use.expert});
    Keep(slots_);
  }
  Span<const ExpertUse> event() const { return {uses_.data(), uses_.size()}; }

 private:
  void Keep(size_t most) {
    while (kept_.size() > most) kept_.erase(std::prev(kept_.end()));
  }

  const ReplayEvents &events_;
  const uint32_t experts_, slots_;
  std::set<std::pair<uint64_t, uint32_t>> kept_;  // (event of the next use, expert)
  std::vector<ExpertUse> uses_;
  size_t now_ = 0, next_ = 0, held_ = 0;
};

/// One run of the trace: what the runtime does, on a clock that is only counted.
template <typename Cache>
class Player {
 public:
  Player(const TraceFacts &facts, const ReplayEvents &events, const ReplaySettings &settings)
      : facts_(facts), events_(events), settings_(settings), cache_(facts, events, settings), storage_(settings.storage) {
    if (settings.prefetch == ExpertPrefetch::kPath) paths_ = std::make_unique<Paths>(facts);
  }

  ReplayResult Play() {
    for (size_t i = 0; i < events_.events.size(); ++i) {
      const ReplayEvents::Event &event = events_.events[i];
      phase_ = event.tokens == 1 ? &result_.decode : &result_.prefill;
      const double before_us = now_us_;
      if (event.layer == 0) {
        phase_->tokens += event.tokens;
        now_us_ += Us(facts_.head_ns);
      }
      now_us_ += Us(facts_.layer_ns + (event.tokens - 1) * facts_.layer_more_ns);
      Speculate(event);
      PlayEvent(i);
      phase_->elapsed_us += now_us_ - before_us;
    }
    if constexpr (std::is_same_v<Cache, PoolCache>) {
      result_.prefetches = cache_.counts().prefetches;
      result_.prefetches_used = cache_.counts().prefetches_used;
    }
    return result_;
  }

 private:
  struct Pending {
    uint32_t slot;
    double landed_us;
  };

  static double Us(uint64_t ns) { return static_cast<double>(ns) / 1000; }

  void Issue(const ExpertRead &read, double at_us) {
    const uint32_t bytes = facts_.expert_bytes[read.expert];
    phase_->bytes_read += bytes;
    pending_.push_back({read.slot, storage_.Read(at_us, bytes)});
  }

  void IssueWanted() {
    for (ExpertRead read; cache_.NextRead(&read);) Issue(read, now_us_);
  }

  void Land() {
    now_us_ += Us(facts_.check_ns);
    cache_.Landed(pending_.front().slot, true);
    pending_.pop_front();
  }

  Span<const uint32_t> GuessesOf(const ReplayEvents::Event &event) const {
    if (settings_.prefetch == ExpertPrefetch::kPath) return {likely_.data(), likely_.size()};
    if (settings_.prefetch == ExpertPrefetch::kOff) return {};
    return {events_.guesses.data() + event.guess_begin, event.guess_end - event.guess_begin};
  }

  /// What has followed on this event's experts, for the next one.
  void FollowPath(const ReplayEvents::Event &event) {
    if (paths_ == nullptr) return;
    likely_.clear();
    if (event.tokens != 1) return;
    paths_->Saw(event.layer, {events_.ranked.data() + event.begin, event.end - event.begin});
    likely_.resize(facts_.top_k);
    likely_.resize(paths_->Likely((event.layer + 1) % facts_.layers, {likely_.data(), likely_.size()}));
  }

  /// Guesses for the event's layer, made when the router of the layer before had spoken: read one after the other while the
  /// storage has nothing else to do, until its own router has.
  void Speculate(const ReplayEvents::Event &event) {
    if constexpr (std::is_same_v<Cache, PoolCache>) {
      for (const uint32_t guess : GuessesOf(event)) {
        const double begin_us = std::max(routed_us_, storage_.idle_us());
        if (begin_us >= now_us_) break;
        while (!pending_.empty() && pending_.front().landed_us <= begin_us) Land();
        ExpertRead read;
        if (cache_.Prefetch(event.layer, guess, &read) && cache_.StartPrefetch(read)) Issue(read, begin_us);
      }
      while (!pending_.empty() && pending_.front().landed_us <= now_us_) Land();
    }
  }

  /// Computes the expert in a slot that is ready, and lets the slot serve what is still wanted.
  void Serve(const ReplayEvents::Event &event, size_t place) {
    const uint64_t more = events_.uses[event.begin + place] - 1;
    now_us_ += Us(facts_.expert_ns + more * facts_.expert_more_ns);
    cache_.Release(cache_.event()[place].slot);
    IssueWanted();
  }

  void PlayEvent(size_t i) {
    const ReplayEvents::Event &event = events_.events[i];
    cache_.BeginEvent(i);
    FollowPath(event);
    routed_us_ = now_us_;
    size_t left = cache_.event().size();
    for (const ExpertUse &use : cache_.event()) {
      ++(use.state == ExpertUse::State::kWanted ? phase_->misses : phase_->hits);
    }
    IssueWanted();
    while (true) {
      for (size_t place = 0; place < cache_.event().size(); ++place) {
        if (cache_.event()[place].state != ExpertUse::State::kReady) continue;
        Serve(event, place);
        --left;
      }
      if (left == 0) break;
      const double landed_us = pending_.front().landed_us;
      if (landed_us > now_us_) {
        phase_->stall_us += landed_us - now_us_;
        now_us_ = landed_us;
      }
      Land();
      IssueWanted();
    }
    cache_.End();
  }

  const TraceFacts &facts_;
  const ReplayEvents &events_;
  const ReplaySettings &settings_;
  Cache cache_;
  Storage storage_;
  std::deque<Pending> pending_;  // lands in this order
  std::unique_ptr<Paths> paths_;
  std::vector<uint32_t> likely_;
  double now_us_ = 0;
  double routed_us_ = 0;  // when the last event began
  ReplayPhase *phase_ = nullptr;
  ReplayResult result_;
};

}  // namespace

ReplayEvents::ReplayEvents(const RoutingTrace &trace) {
  const TraceFacts &facts = trace.facts;
  std::vector<uint32_t> count(facts.experts);
  const auto add_distinct = [&](uint16_t expert, std::vector<uint32_t> *to) {
    if (expert != kNoExpert && count[expert]++ == 0) to->push_back(expert);
  };
  for (const RoutingChunk &chunk : trace.chunks) {
    const size_t row = size_t{chunk.tokens} * facts.top_k;
    for (uint32_t layer = 0; layer < facts.layers; ++layer) {
      Event event = {layer, chunk.tokens, experts.size(), 0, guesses.size(), 0};
      for (size_t i = layer * row; i < (layer + 1) * row; ++i) add_distinct(chunk.choices[i].expert, &experts);
      event.end = experts.size();
      ranked.insert(ranked.end(), experts.begin() + static_cast<std::ptrdiff_t>(event.begin), experts.end());
      std::sort(experts.begin() + static_cast<std::ptrdiff_t>(event.begin), experts.end());
      for (size_t i = event.begin; i < event.end; ++i) {
        uses.push_back(count[experts[i]]);
        count[experts[i]] = 0;
      }
      for (size_t i = layer * row; facts.guesses && i < (layer + 1) * row; ++i) add_distinct(chunk.guesses[i], &guesses);
      event.guess_end = guesses.size();
      for (size_t i = event.guess_begin; i < event.guess_end; ++i) count[guesses[i]] = 0;
      events.push_back(event);
    }
  }
  next_use.resize(experts.size());
  std::vector<uint64_t> next(size_t{facts.layers} * facts.experts, kNever);
  for (size_t e = events.size(); e-- > 0;) {
    for (size_t i = events[e].begin; i < events[e].end; ++i) {
      next_use[i] = std::exchange(next[size_t{events[e].layer} * facts.experts + experts[i]], e);
    }
  }
}

uint32_t ReplayEvents::Largest() const {
  size_t largest = 0;
  for (const Event &event : events) largest = std::max(largest, event.end - event.begin);
  return static_cast<uint32_t>(largest);
}

double ReplayResult::HitRate() const {
  const uint64_t all = hits() + misses();
  return all == 0 ? 0 : static_cast<double>(hits()) / static_cast<double>(all);
}

ReplayResult Replay(const TraceFacts &facts, const ReplayEvents &events, const ReplaySettings &settings) {
  if (settings.policy == ReplayPolicy::kBelady) return Player<BeladyCache>(facts, events, settings).Play();
  return Player<PoolCache>(facts, events, settings).Play();
}

}  // namespace acorn::program
