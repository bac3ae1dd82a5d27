#include "experts/streaming.h"

#include "acorn_schema/file.h"
#include "base/checked.h"
#include "model/expert_record.h"

namespace acorn {
namespace {

constexpr size_t kResultsAtOnce = 16;
constexpr uint64_t kSlicesPerSecond = 20;  // of a wait: a request to stop is seen within 50 ms

StreamingExperts *Of(void *ctx) { return static_cast<StreamingExperts *>(ctx); }

struct Key {
  uint32_t set, expert;
};
Key KeyOf(const StreamingExperts &experts, uint32_t key) {
  const auto most = static_cast<uint32_t>(experts.handed_out.size());
  return {key / most, key % most};
}

const ExpertRecord &RecordOf(const StreamingExperts &experts, Key key) {
  return experts.graph->expert_sets[key.set].records[key.expert];
}

uint8_t *SlotOf(const StreamingExperts &experts, uint32_t slot) { return experts.slots.data() + slot * experts.slot_bytes; }

Status Fail(StreamingExperts *experts, Status status, Key key, int32_t error) {
  experts->fault = {status, key.set, key.expert, RecordOf(*experts, key).offset, error};
  return status;
}

// What has come to a slot. A read that nobody waits for fails in silence, and one that an earlier visit asked for is made again:
// what failed that visit may be over.
Status TakeIn(StreamingExperts *experts, const ExpertRead &read, uint64_t bytes, int32_t error) {
  const Key key = KeyOf(*experts, read.expert);
  const ExpertRecord &record = RecordOf(*experts, key);
  Status status = Status::kOk;
  if (error != 0 || bytes != ReadBytes(record)) {
    status = Status::kStorage;
  } else {
    experts->traffic.bytes_read += bytes;
    status = CheckExpertRecord(experts->graph->expert_sets[key.set], record, SlotOf(*experts, read.slot));
  }
  bool wanted = false;
  for (const ExpertUse &use : experts->pool.event()) wanted = wanted || (use.slot == read.slot && use.expert == read.expert);
  experts->pool.Landed(read.slot, status == Status::kOk);
  const bool of_this_visit = wanted && experts->asked_in[read.slot] == experts->visit;
  return status == Status::kOk || !of_this_visit ? Status::kOk : Fail(experts, status, key, error);
}

// A read's name tells its slot and its expert.
uint64_t IdOf(const ExpertRead &read) { return uint64_t{read.slot} << 32 | read.expert; }
ExpertRead ReadOf(uint64_t id) { return {static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32)}; }

// The first expert of the event that still has to come.
Key Awaited(const StreamingExperts &experts) {
  for (const ExpertUse &use : experts.pool.event()) {
    if (use.state == ExpertUse::State::kComing || use.state == ExpertUse::State::kWanted) return KeyOf(experts, use.expert);
  }
  return {experts.set, 0};
}

// Starts what can be started.
Status Submit(StreamingExperts *experts) {
  ExpertRead read;
  while (experts->pool.NextRead(&read)) {
    experts->asked_in[read.slot] = experts->visit;
    experts->unsubmitted[experts->unsubmitted_count++] = read;
  }
  while (experts->unsubmitted_count != 0) {
    acorn_read_request requests[kResultsAtOnce];
    size_t count = 0;
    for (; count < kResultsAtOnce && count < experts->unsubmitted_count; ++count) {
      const ExpertRead &next = experts->unsubmitted[count];
      const ExpertRecord &record = RecordOf(*experts, KeyOf(*experts, next.expert));
      requests[count] = {SlotOf(*experts, next.slot), record.offset, static_cast<size_t>(ReadBytes(record)), IdOf(next)};
    }
    size_t accepted = 0;
    const Status status = experts->storage.Submit({requests, count}, &accepted);
    experts->unsubmitted_count -= accepted;
    experts->under_way += accepted;
    for (size_t i = 0; i < experts->unsubmitted_count; ++i) experts->unsubmitted[i] = experts->unsubmitted[i + accepted];
    if (status != Status::kOk) return Fail(experts, Status::kStorage, Awaited(*experts), 0);
    if (accepted < count) break;  // as many as the port takes
  }
  return Status::kOk;
}

// Takes in what has ended. *any: something has.
Status Collect(StreamingExperts *experts, uint64_t timeout, bool *any) {
  acorn_read_result results[kResultsAtOnce];
  size_t count = 0;
  const Status waited = experts->storage.Wait({results, kResultsAtOnce}, timeout, &count);
  Status status = Status::kOk;
  experts->under_way -= count;
  for (size_t i = 0; i < count; ++i) {
    const Status one = TakeIn(experts, ReadOf(results[i].id), results[i].bytes, results[i].error);
    if (status == Status::kOk) status = one;
  }
  *any = count != 0;
  if (status == Status::kOk && waited != Status::kOk) status = Fail(experts, Status::kStorage, Awaited(*experts), 0);
  return status;
}

// One guess, if the storage has nothing to do: a demand that comes then waits for one at most.
void StartGuess(StreamingExperts *experts) {
  while (experts->guess_count != 0 && experts->under_way == 0 && experts->unsubmitted_count == 0) {
    const ExpertRead read = experts->guesses[0];
    --experts->guess_count;
    for (size_t i = 0; i < experts->guess_count; ++i) experts->guesses[i] = experts->guesses[i + 1];
    if (!experts->pool.StartPrefetch(read)) continue;  // a demand has taken the slot
    experts->asked_in[read.slot] = experts->visit;
    const ExpertRecord &record = RecordOf(*experts, KeyOf(*experts, read.expert));
    const acorn_read_request request = {SlotOf(*experts, read.slot), record.offset, static_cast<size_t>(ReadBytes(record)), IdOf(read)};
    size_t accepted = 0;
    if (experts->storage.Submit({&request, 1}, &accepted) != Status::kOk || accepted == 0) {
      if (accepted == 0) experts->pool.Landed(read.slot, false);
    }
    experts->under_way += accepted;
  }
}

bool Cancelled(const StreamingExperts &experts) {
  return experts.cancel != nullptr && __atomic_load_n(experts.cancel, __ATOMIC_ACQUIRE) != 0;
}

// Until a read ends.
Status Stall(StreamingExperts *experts) {
  const uint64_t begin = experts->clock.Now();
  const uint64_t per_second = experts->ticks_per_second;
  Status status = Status::kOk;
  for (bool any = false; !any && status == Status::kOk;) {
    status = Collect(experts, per_second == 0 ? UINT64_MAX : per_second / kSlicesPerSecond, &any);
    if (any || status != Status::kOk) break;
    if (Cancelled(*experts)) {
      status = Status::kCancelled;
    } else if (experts->timeout_ticks != 0 && experts->clock.Now() - begin >= experts->timeout_ticks) {
      status = Fail(experts, Status::kStalled, Awaited(*experts), 0);
    }
  }
  experts->traffic.stall_ticks += experts->clock.Now() - begin;
  return status;
}

Status Begin(void *ctx, uint32_t set, Span<const uint32_t> wanted, Span<const uint32_t> uses, uint32_t tokens) {
  StreamingExperts *experts = Of(ctx);
  experts->set = set;
  ++experts->visit;
  experts->handed_out_count = 0;
  experts->fault = {};
  for (uint8_t &handed_out : experts->handed_out) handed_out = 0;
  experts->pool.CancelPrefetches();  // what was not begun is no guess any more
  experts->guess_count = 0;
  experts->pool.Begin(set, wanted, uses, tokens);
  return Submit(experts);
}

// True if one is ready that was not handed out.
bool HandOut(StreamingExperts *experts, size_t *index, const uint8_t **record) {
  const Span<const ExpertUse> event = experts->pool.event();
  for (size_t i = 0; i < event.size(); ++i) {
    if (event[i].state != ExpertUse::State::kReady || experts->handed_out[i] != 0) continue;
    experts->handed_out[i] = 1;
    ++experts->handed_out_count;
    *index = i;
    *record = SlotOf(*experts, event[i].slot);
    return true;
  }
  return false;
}

Status Next(void *ctx, bool wait, size_t *index, const uint8_t **record) {
  StreamingExperts *experts = Of(ctx);
  const size_t all = experts->pool.event().size();
  for (bool looked = false;;) {
    if (HandOut(experts, index, record)) {
      StartGuess(experts);
      return Status::kOk;
    }
    if (experts->handed_out_count == all) break;
    ACORN_TRY(Submit(experts));
    if (!looked) {
      bool any = false;
      ACORN_TRY(Collect(experts, 0, &any));
      looked = !any;
      continue;
    }
    if (!wait) break;
    ACORN_TRY(Stall(experts));
  }
  *index = all;
  return Status::kOk;
}

void Release(void *ctx, size_t index) {
  StreamingExperts *experts = Of(ctx);
  experts->pool.Release(experts->pool.event()[index].slot);
}

bool IsThere(void *ctx, uint32_t set, uint32_t expert) {
  const ExpertPool &pool = Of(ctx)->pool;
  const uint32_t slot = pool.slot_of(set, expert);
  return slot != kNoSlot && pool.ready(slot);
}

void End(void *ctx) {
  StreamingExperts *experts = Of(ctx);
  // Slots of reads that were never begun are empty again; those under way land during a later visit.
  for (size_t i = 0; i < experts->unsubmitted_count; ++i) experts->pool.Landed(experts->unsubmitted[i].slot, false);
  experts->unsubmitted_count = 0;
  experts->pool.End();
}

}  // namespace

void Prefetch(StreamingExperts *experts, uint32_t set, uint32_t expert) {
  ExpertRead read;
  if (experts->guess_count == experts->guesses.size() || !experts->pool.Prefetch(set, expert, &read)) return;
  experts->guesses[experts->guess_count++] = read;
}

uint64_t ReadBytes(const ExpertRecord &record) { return AlignUp(expert::RecordBytes(record.shape), kSegmentAlignment); }

uint64_t SlotArrayBytes(const StreamingShape &shape) { return shape.slot_bytes * shape.pool.slots + kSegmentAlignment; }

Status LayOutStreaming(const StreamingShape &shape, Arena *tables, Arena *slots, StreamingExperts *experts) {
  ExpertPool counting;
  const Span<uint8_t> array = slots->Take<uint8_t>(SlotArrayBytes(shape));
  if (array.empty()) {
    ACORN_TRY(counting.Open(tables, shape.pool));
    tables->Take<uint8_t>(shape.pool.experts);
    tables->Take<uint32_t>(shape.pool.slots);
    tables->Take<ExpertRead>(shape.pool.experts);
    tables->Take<ExpertRead>(shape.pool.experts);
    return Status::kOk;
  }
  ACORN_TRY(experts->pool.Open(tables, shape.pool));
  experts->handed_out = tables->Take<uint8_t>(shape.pool.experts);
  experts->asked_in = tables->Take<uint32_t>(shape.pool.slots);
  experts->unsubmitted = tables->Take<ExpertRead>(shape.pool.experts);
  experts->guesses = tables->Take<ExpertRead>(shape.pool.experts);
  experts->slot_bytes = shape.slot_bytes;
  const uint64_t address = reinterpret_cast<uintptr_t>(array.data());
  experts->slots = array.subspan(AlignUp(address, kSegmentAlignment) - address, shape.slot_bytes * shape.pool.slots);
  return Status::kOk;
}

ExpertSource SourceOf(StreamingExperts *experts) { return {experts, Begin, Next, Release, IsThere, End}; }

}  // namespace acorn
