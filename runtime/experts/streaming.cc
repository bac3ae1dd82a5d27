#include "experts/streaming.h"

#include "acorn_schema/file.h"
#include "base/checked.h"
#include "model/expert_record.h"

namespace acorn {
namespace {

constexpr size_t kResultsAtOnce = 16;
// Records of at least this are read in stripes: below it what each read costs outweighs what checking beside the others saves.
constexpr uint64_t kSmallestStriped = 512 * 1024;
// Under way at once: what 10 GB/s bring in a quarter of a millisecond, longer than devices take to answer, so that none is idle; and
// no more. With all of a layer's reads under way, a device that serves them side by side, or reports them together as a virtual
// machine's does, brings all experts at the end, and nothing is checked and computed meanwhile.
constexpr uint64_t kMostBytesUnderWay = 5 << 19;
constexpr size_t kFewestUnderWay = 2;  // whatever their size: while the next read is handed over the device has one
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

// Reads of a record: all of it, or each of its stripes.
uint32_t PartsOf(uint64_t bytes) {
  if (bytes < kSmallestStriped) return 1;
  uint32_t parts = 0;
  while (parts < kRecordStripes && StripeOf(bytes, parts).begin < bytes) ++parts;
  return parts;
}
uint32_t PartsOf(const ExpertRecord &record) { return PartsOf(expert::RecordBytes(record.shape)); }

// Whole blocks of the record.
Stripe PlaceOf(const ExpertRecord &record, uint32_t part) {
  if (PartsOf(record) == 1) return {0, ReadBytes(record)};
  const Stripe stripe = StripeOf(expert::RecordBytes(record.shape), part);
  return {stripe.begin, AlignUp(stripe.end, kSegmentAlignment)};
}

uint64_t BytesOf(const StreamingExperts &experts, const WaitingRead &waiting) {
  const Stripe place = PlaceOf(RecordOf(experts, KeyOf(experts, waiting.read.expert)), waiting.part);
  return place.end - place.begin;
}

// A read's name tells its slot, its expert and which part it is; pool.h bounds the numbers of both to 24 bits.
uint64_t IdOf(const WaitingRead &waiting) {
  return uint64_t{waiting.part} << 56 | uint64_t{waiting.read.slot} << 32 | waiting.read.expert;
}
WaitingRead ReadOf(uint64_t id) {
  return {{static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32 & 0xffffff)}, static_cast<uint32_t>(id >> 56)};
}

bool IsGuess(const StreamingExperts &experts, const ExpertRead &read) { return experts.guessing && experts.guess.slot == read.slot; }

void Land(StreamingExperts *experts, const ExpertRead &read, bool good) {
  if (IsGuess(*experts, read)) experts->guessing = false;
  experts->pool.Landed(read.slot, good);
}

// The last read of a slot has ended. One that nobody waits for fails in silence, and one that an earlier visit asked for is made
// again: what failed that visit may be over.
Status Finish(StreamingExperts *experts, const ExpertRead &read) {
  const SlotRead &slot = experts->slot_reads[read.slot];
  const Key key = KeyOf(*experts, read.expert);
  const ExpertRecord &record = RecordOf(*experts, key);
  Status status = Status::kStorage;
  if (!slot.failed) {
    const uint64_t checksum = ChecksumOfStripes(slot.hashes);
    status = CheckExpertRecord(experts->graph->expert_sets[key.set], record, SlotOf(*experts, read.slot), checksum);
  }
  bool wanted = false;
  for (const ExpertUse &use : experts->pool.event()) {
    wanted = wanted || (use.slot == read.slot && use.state == ExpertUse::State::kComing);
  }
  Land(experts, read, status == Status::kOk);
  const bool of_this_visit = wanted && slot.visit == experts->visit;
  return status == Status::kOk || !of_this_visit ? Status::kOk : Fail(experts, status, key, slot.error);
}

// What has come to a slot, checked as far as it goes.
Status TakeIn(StreamingExperts *experts, const WaitingRead &part, uint64_t bytes, int32_t error) {
  SlotRead &slot = experts->slot_reads[part.read.slot];
  const ExpertRecord &record = RecordOf(*experts, KeyOf(*experts, part.read.expert));
  const Stripe place = PlaceOf(record, part.part);
  if (error == 0 && bytes == place.end - place.begin) {
    experts->traffic.bytes_read += bytes;
    const bool whole = PartsOf(record) == 1;
    for (uint32_t i = whole ? 0 : part.part; i < (whole ? kRecordStripes : part.part + 1); ++i) {
      const Stripe stripe = StripeOf(expert::RecordBytes(record.shape), i);
      slot.hashes[i] = WideChecksum(SlotOf(*experts, part.read.slot) + stripe.begin, stripe.end - stripe.begin);
    }
  } else if (!slot.failed) {
    slot.failed = true;
    slot.error = error;
  }
  return --slot.left == 0 ? Finish(experts, part.read) : Status::kOk;
}

// Of the reads that wait, those of the guess, or all others, are not made: once nothing of them is under way, slots are empty again.
enum class Waiting { kDemands, kGuess };
void Drop(StreamingExperts *experts, Waiting which) {
  size_t kept = 0;
  for (size_t i = 0; i < experts->unsubmitted_count; ++i) {
    const WaitingRead waiting = experts->unsubmitted[i];
    if (IsGuess(*experts, waiting.read) != (which == Waiting::kGuess)) {
      experts->unsubmitted[kept++] = waiting;
      continue;
    }
    SlotRead &slot = experts->slot_reads[waiting.read.slot];
    slot.failed = true;
    if (--slot.left == 0) Land(experts, waiting.read, false);
  }
  experts->unsubmitted_count = kept;
}

// Puts the reads of a slot behind those that wait.
void Queue(StreamingExperts *experts, const ExpertRead &read) {
  const ExpertRecord &record = RecordOf(*experts, KeyOf(*experts, read.expert));
  SlotRead &slot = experts->slot_reads[read.slot];
  slot = {experts->visit, PartsOf(record), false, 0, {}};
  for (size_t i = slot.left; i < kRecordStripes; ++i) slot.hashes[i] = WideChecksum(nullptr, 0);
  for (uint32_t part = 0; part < slot.left; ++part) experts->unsubmitted[experts->unsubmitted_count++] = {read, part};
}

// The first expert of the event that still has to come.
Key Awaited(const StreamingExperts &experts) {
  for (const ExpertUse &use : experts.pool.event()) {
    if (use.state == ExpertUse::State::kComing || use.state == ExpertUse::State::kWanted) return KeyOf(experts, use.expert);
  }
  return {experts.set, 0};
}

// Hands over as many of the reads that wait as should be under way and as the port takes.
Status HandOver(StreamingExperts *experts) {
  while (true) {
    acorn_read_request requests[kResultsAtOnce];
    size_t count = 0;
    for (uint64_t bytes = experts->bytes_under_way; count < kResultsAtOnce && count < experts->unsubmitted_count; ++count) {
      const WaitingRead &next = experts->unsubmitted[count];
      const ExpertRecord &record = RecordOf(*experts, KeyOf(*experts, next.read.expert));
      const Stripe place = PlaceOf(record, next.part);
      bytes += place.end - place.begin;
      if (bytes > kMostBytesUnderWay && experts->under_way + count >= kFewestUnderWay) break;
      requests[count] = {SlotOf(*experts, next.read.slot) + place.begin, record.offset + place.begin,
                         static_cast<size_t>(place.end - place.begin), IdOf(next)};
    }
    if (count == 0) return Status::kOk;
    size_t accepted = 0;
    const Status status = experts->storage.Submit({requests, count}, &accepted);
    experts->unsubmitted_count -= accepted;
    experts->under_way += accepted;
    for (size_t i = 0; i < accepted; ++i) experts->bytes_under_way += requests[i].bytes;
    for (size_t i = 0; i < experts->unsubmitted_count; ++i) experts->unsubmitted[i] = experts->unsubmitted[i + accepted];
    if (status != Status::kOk) return Fail(experts, Status::kStorage, Awaited(*experts), 0);
    if (accepted < count) return Status::kOk;
  }
}

// Starts what can be started.
Status Submit(StreamingExperts *experts) {
  for (ExpertRead read; experts->pool.NextRead(&read);) Queue(experts, read);
  return HandOver(experts);
}

// Takes in what has ended, once the storage has its next reads: it is not to wait while this is checked. *any: something has.
Status Collect(StreamingExperts *experts, uint64_t timeout, bool *any) {
  acorn_read_result results[kResultsAtOnce];
  size_t count = 0;
  const Status waited = experts->storage.Wait({results, kResultsAtOnce}, timeout, &count);
  experts->under_way -= count;
  for (size_t i = 0; i < count; ++i) experts->bytes_under_way -= BytesOf(*experts, ReadOf(results[i].id));
  Status status = count == 0 ? Status::kOk : HandOver(experts);
  for (size_t i = 0; i < count; ++i) {
    const Status one = TakeIn(experts, ReadOf(results[i].id), results[i].bytes, results[i].error);
    if (status == Status::kOk) status = one;
  }
  *any = count != 0;
  if (status == Status::kOk && waited != Status::kOk) status = Fail(experts, Status::kStorage, Awaited(*experts), 0);
  return status;
}

// One guess, if the storage has nothing to do: a demand that comes then waits for what is under way of it at most.
void StartGuess(StreamingExperts *experts) {
  while (experts->guess_count != 0 && experts->under_way == 0 && experts->unsubmitted_count == 0) {
    const ExpertRead read = experts->guesses[0];
    --experts->guess_count;
    for (size_t i = 0; i < experts->guess_count; ++i) experts->guesses[i] = experts->guesses[i + 1];
    if (!experts->pool.StartPrefetch(read)) continue;  // a demand has taken the slot
    experts->guess = read;
    experts->guessing = true;
    Queue(experts, read);
    if (HandOver(experts) != Status::kOk) return;  // a demand will find out
  }
}

// A demand is not to wait for a guess that was wrong.
void GiveUpGuess(StreamingExperts *experts) {
  if (!experts->guessing) return;
  bool demand = false;
  for (const ExpertUse &use : experts->pool.event()) {
    if (use.slot == experts->guess.slot) return;
    demand = demand || use.state == ExpertUse::State::kWanted;
  }
  if (!demand) return;
  Drop(experts, Waiting::kGuess);
  for (uint32_t part = 0; experts->guessing && part < kRecordStripes; ++part) experts->storage.Cancel(IdOf({experts->guess, part}));
}

// True once for each request, as TakeCancel of the session.
bool TakeCancel(StreamingExperts *experts) {
  return experts->cancel != nullptr && __atomic_exchange_n(experts->cancel, 0u, __ATOMIC_ACQ_REL) != 0;
}

// Until a read ends.
Status Stall(StreamingExperts *experts) {
  const uint64_t begin = experts->clock.Now();
  const uint64_t per_second = experts->ticks_per_second;
  Status status = Status::kOk;
  for (bool any = false; !any && status == Status::kOk;) {
    status = Collect(experts, per_second == 0 ? UINT64_MAX : per_second / kSlicesPerSecond, &any);
    if (any || status != Status::kOk) break;
    if (TakeCancel(experts)) {
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
  GiveUpGuess(experts);
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
  Drop(experts, Waiting::kDemands);  // those under way land during a later visit
  experts->pool.End();
}

}  // namespace

void Prefetch(StreamingExperts *experts, uint32_t set, uint32_t expert) {
  ExpertRead read;
  if (experts->guess_count == experts->guesses.size() || !experts->pool.Prefetch(set, expert, &read)) return;
  experts->guesses[experts->guess_count++] = read;
}

uint64_t ReadBytes(const ExpertRecord &record) { return AlignUp(expert::RecordBytes(record.shape), kSegmentAlignment); }

uint64_t HashLastRead(const uint8_t *record, uint64_t record_bytes) {
  const uint32_t parts = PartsOf(record_bytes);
  const uint64_t begin = parts == 1 ? 0 : StripeOf(record_bytes, parts - 1).begin;
  return WideChecksum(record + begin, record_bytes - begin);
}

uint64_t SlotArrayBytes(const StreamingShape &shape) {
  uint64_t bytes;
  const bool fits = CheckedMul(&bytes, shape.slot_bytes, shape.pool.slots) && CheckedAdd(&bytes, bytes, kSegmentAlignment);
  return fits ? bytes : UINT64_MAX;
}

Status LayOutStreaming(const StreamingShape &shape, Arena *tables, Arena *slots, StreamingExperts *experts) {
  ExpertPool counting;
  const Span<uint8_t> array = slots->Take<uint8_t>(SlotArrayBytes(shape));
  if (array.empty()) {
    ACORN_TRY(counting.Open(tables, shape.pool));
    tables->Take<uint8_t>(shape.pool.experts);
    tables->Take<SlotRead>(shape.pool.slots);
    tables->Take<WaitingRead>((uint64_t{shape.pool.experts} + 1) * kRecordStripes);
    tables->Take<ExpertRead>(shape.pool.experts);
    return Status::kOk;
  }
  ACORN_TRY(experts->pool.Open(tables, shape.pool));
  experts->handed_out = tables->Take<uint8_t>(shape.pool.experts);
  experts->slot_reads = tables->Take<SlotRead>(shape.pool.slots);
  experts->unsubmitted = tables->Take<WaitingRead>((uint64_t{shape.pool.experts} + 1) * kRecordStripes);
  experts->guesses = tables->Take<ExpertRead>(shape.pool.experts);
  experts->slot_bytes = shape.slot_bytes;
  const uint64_t address = reinterpret_cast<uintptr_t>(array.data());
  experts->slots = array.subspan(AlignUp(address, kSegmentAlignment) - address, shape.slot_bytes * shape.pool.slots);
  return Status::kOk;
}

ExpertSource SourceOf(StreamingExperts *experts) { return {experts, Begin, Next, Release, IsThere, End}; }

}  // namespace acorn
