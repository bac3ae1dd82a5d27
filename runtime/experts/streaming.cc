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
constexpr uint64_t kSlicesPerSecond = 250;  // of a wait: a request to stop is seen within 4 ms

StreamingExperts *Of(void *ctx) { return static_cast<StreamingExperts *>(ctx); }

struct Key {
  uint32_t set, expert;
};
Key KeyOf(const StreamingExperts &experts, uint32_t key) {
  const auto most = static_cast<uint32_t>(experts.handed_out.size());
  return {key / most, key % most};
}

// Of an expert, the slices that a slot holds.
Span<const ExpertRecord> SlicesOf(const StreamingExperts &experts, Key key) {
  return {experts.graph->expert_sets[key.set].slices_of(key.expert), experts.graph->profiles[experts.layout_profile].slices[key.set]};
}
Span<const ExpertRecord> SlicesOf(const StreamingExperts &experts, const ExpertRead &read) {
  return SlicesOf(experts, KeyOf(experts, read.expert));
}

// Where a slice lies in its expert.
uint64_t OffsetOf(Span<const ExpertRecord> slices, size_t slice) { return slices[slice].offset - slices[0].offset; }

uint8_t *SlotOf(const StreamingExperts &experts, uint32_t slot) {
  return experts.slots.data() + slot * experts.layouts[experts.layout_profile].bytes;
}

SliceHashes &HashesOf(const StreamingExperts &experts, uint32_t slot, size_t slice) {
  return experts.hashes[uint64_t{slot} * experts.slices + slice];
}

Status Fail(StreamingExperts *experts, Status status, Key key, int32_t error) {
  experts->fault = {status, key.set, key.expert, experts->graph->expert_sets[key.set].slices_of(key.expert)->offset, error};
  return status;
}

// Reads of a slice: all of it, or each of its stripes.
uint32_t PartsOf(uint64_t bytes) {
  if (bytes < kSmallestStriped) return 1;
  uint32_t parts = 0;
  while (parts < kRecordStripes && StripeOf(bytes, parts).begin < bytes) ++parts;
  return parts;
}
uint32_t PartsOf(const ExpertRecord &slice) { return PartsOf(expert::RecordBytes(slice.shape)); }

bool IsOneRead(Span<const ExpertRecord> slices) {
  const size_t last = slices.size() - 1;
  return PartsOf(OffsetOf(slices, last) + expert::RecordBytes(slices[last].shape)) == 1;
}

// Whole blocks of the expert.
Stripe PlaceOf(Span<const ExpertRecord> slices, uint32_t part) {
  if (IsOneRead(slices)) return {0, ReadBytes(slices.data(), static_cast<uint32_t>(slices.size()))};
  const ExpertRecord &slice = slices[part / kRecordStripes];
  const uint64_t begin = OffsetOf(slices, part / kRecordStripes), bytes = expert::RecordBytes(slice.shape);
  const Stripe stripe = PartsOf(slice) == 1 ? Stripe{0, bytes} : StripeOf(bytes, part % kRecordStripes);
  return {begin + stripe.begin, begin + AlignUp(stripe.end, kSegmentAlignment)};
}

uint64_t BytesOf(const StreamingExperts &experts, const WaitingRead &waiting) {
  const Stripe place = PlaceOf(SlicesOf(experts, waiting.read), waiting.part);
  return place.end - place.begin;
}

// A read's name tells its slot, its expert and which part it is; pool.h bounds the numbers of both to 24 bits.
static_assert(kMaxExpertSlices * kRecordStripes <= 256);
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
  const Span<const ExpertRecord> slices = SlicesOf(*experts, key);
  Status status = slot.failed ? Status::kStorage : Status::kOk;
  for (size_t i = 0; i < slices.size() && status == Status::kOk; ++i) {
    status = CheckExpertRecord(experts->graph->expert_sets[key.set], slices[i], SlotOf(*experts, read.slot) + OffsetOf(slices, i),
                               ChecksumOfStripes(HashesOf(*experts, read.slot, i).stripes));
  }
  bool wanted = false;
  for (const ExpertUse &use : experts->pool.event()) {
    wanted = wanted || (use.slot == read.slot && use.state == ExpertUse::State::kComing);
  }
  Land(experts, read, status == Status::kOk);
  const bool of_this_visit = wanted && slot.visit == experts->visit;
  return status == Status::kOk || !of_this_visit ? Status::kOk : Fail(experts, status, key, slot.error);
}

// Hashes the stripes of a slice from `first` to `last`.
void Hash(const StreamingExperts &experts, const ExpertRead &read, size_t slice, size_t first, size_t last) {
  const Span<const ExpertRecord> slices = SlicesOf(experts, read);
  const uint8_t *record = SlotOf(experts, read.slot) + OffsetOf(slices, slice);
  for (size_t i = first; i <= last; ++i) {
    const Stripe stripe = StripeOf(expert::RecordBytes(slices[slice].shape), i);
    HashesOf(experts, read.slot, slice).stripes[i] = WideChecksum(record + stripe.begin, stripe.end - stripe.begin);
  }
}

// What has come to a slot, checked as far as it goes.
Status TakeIn(StreamingExperts *experts, const WaitingRead &part, uint64_t bytes, int32_t error) {
  SlotRead &slot = experts->slot_reads[part.read.slot];
  const Span<const ExpertRecord> slices = SlicesOf(*experts, part.read);
  if (error == 0 && bytes == BytesOf(*experts, part)) {
    experts->traffic.bytes_read += bytes;
    const size_t slice = part.part / kRecordStripes, stripe = part.part % kRecordStripes;
    if (IsOneRead(slices)) {
      for (size_t i = 0; i < slices.size(); ++i) Hash(*experts, part.read, i, 0, kRecordStripes - 1);
    } else if (PartsOf(slices[slice]) == 1) {
      Hash(*experts, part.read, slice, 0, kRecordStripes - 1);
    } else {
      Hash(*experts, part.read, slice, stripe, stripe);
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
  const Span<const ExpertRecord> slices = SlicesOf(*experts, read);
  SlotRead &slot = experts->slot_reads[read.slot];
  slot = {experts->visit, 0, false, 0};
  const size_t apart = IsOneRead(slices) ? 1 : slices.size();
  for (uint32_t slice = 0; slice < apart; ++slice) {
    const uint32_t parts = PartsOf(slices[slice]);
    for (size_t i = parts; i < kRecordStripes; ++i) HashesOf(*experts, read.slot, slice).stripes[i] = WideChecksum(nullptr, 0);
    for (uint32_t i = 0; i < parts; ++i) {
      const auto part = static_cast<uint32_t>(slice * kRecordStripes + i);
      experts->unsubmitted[experts->unsubmitted_count++] = {read, part};
    }
    slot.left += parts;
  }
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
      const Span<const ExpertRecord> slices = SlicesOf(*experts, next.read);
      const Stripe place = PlaceOf(slices, next.part);
      bytes += place.end - place.begin;
      if (bytes > kMostBytesUnderWay && experts->under_way + count >= kFewestUnderWay) break;
      requests[count] = {SlotOf(*experts, next.read.slot) + place.begin, slices[0].offset + place.begin,
                         static_cast<size_t>(place.end - place.begin), IdOf(next)};
    }
    if (count == 0) return Status::kOk;
    size_t accepted = 0;
    const Status status = experts->storage.Submit({requests, count}, &accepted);
    experts->unsubmitted_count -= accepted;
    experts->under_way += accepted;
    for (size_t i = 0; i < accepted; ++i) experts->bytes_under_way += requests[i].bytes;
    for (size_t i = 0; i < experts->unsubmitted_count; ++i) experts->unsubmitted[i] = experts->unsubmitted[i + accepted];
    // A port that takes nothing while nothing is under way would be waited for in vain.
    const bool refused = status != Status::kOk || (accepted == 0 && experts->under_way == 0);
    if (refused) return Fail(experts, Status::kStorage, Awaited(*experts), 0);
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
    if (HandOver(experts) == Status::kOk) continue;
    experts->fault = {};  // a demand will find out
    return;
  }
}

void CancelGuess(StreamingExperts *experts) {
  Drop(experts, Waiting::kGuess);
  const auto parts = static_cast<uint32_t>(experts->slices * kRecordStripes);
  for (uint32_t part = 0; experts->guessing && part < parts; ++part) experts->storage.Cancel(IdOf({experts->guess, part}));
}

// A demand is not to wait for a guess that was wrong.
void GiveUpGuess(StreamingExperts *experts) {
  if (!experts->guessing) return;
  bool demand = false;
  for (const ExpertUse &use : experts->pool.event()) {
    if (use.slot == experts->guess.slot) return;
    demand = demand || use.state == ExpertUse::State::kWanted;
  }
  if (demand) CancelGuess(experts);
}

// Until a read ends.
Status Stall(StreamingExperts *experts) {
  const uint64_t begin = experts->clock.Now();
  const uint64_t per_second = experts->ticks_per_second;
  Status status = Status::kOk;
  for (bool any = false; !any && status == Status::kOk;) {
    status = Collect(experts, per_second == 0 ? UINT64_MAX : per_second / kSlicesPerSecond, &any);
    if (any || status != Status::kOk) break;
    if (experts->stop != nullptr) status = experts->stop->Take();
    if (status != Status::kOk) break;
    if (experts->timeout_ticks != 0 && experts->clock.Now() - begin >= experts->timeout_ticks) {
      status = Fail(experts, Status::kStalled, Awaited(*experts), 0);
    }
  }
  experts->traffic.stall_ticks += experts->clock.Now() - begin;
  return status;
}

// The slots of the profile that runs, empty, where they are others than those there are. What is under way for the old ones comes
// first: none of it may land in a slot that is no more.
Status LayOutSlots(StreamingExperts *experts) {
  const Span<const uint8_t> before = experts->graph->profiles[experts->layout_profile].slices;
  const Span<const uint8_t> after = experts->graph->profiles[experts->profile].slices;
  if (__builtin_memcmp(before.data(), after.data(), after.size()) != 0) {
    CancelGuess(experts);
    while (experts->under_way != 0) ACORN_TRY(Stall(experts));
    experts->pool.Resize(experts->layouts[experts->profile].count);
  }
  experts->layout_profile = experts->profile;
  return Status::kOk;
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
  if (experts->layout_profile != experts->profile) ACORN_TRY(LayOutSlots(experts));
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
  if (Of(ctx)->layout_profile != Of(ctx)->profile) return false;
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

uint64_t ReadBytes(const ExpertRecord *records, uint32_t slices) {
  const ExpertRecord &last = records[slices - 1];
  return last.offset - records[0].offset + AlignUp(expert::RecordBytes(last.shape), kSegmentAlignment);
}

uint64_t BytesOfLastRead(uint64_t record_bytes) {
  const uint32_t parts = PartsOf(record_bytes);
  return parts == 1 ? record_bytes : record_bytes - StripeOf(record_bytes, parts - 1).begin;
}

uint64_t SlotArrayBytes(const StreamingShape &shape) {
  uint64_t most = 0;
  for (uint32_t p = 0; p < shape.profiles; ++p) {
    uint64_t bytes;
    if (!CheckedMul(&bytes, shape.layouts[p].bytes, shape.layouts[p].count) || !CheckedAdd(&bytes, bytes, kSegmentAlignment)) {
      return UINT64_MAX;
    }
    if (bytes > most) most = bytes;
  }
  return most;
}

Status LayOutStreaming(const StreamingShape &shape, Arena *tables, Arena *slots, StreamingExperts *experts) {
  ExpertPool pool;
  const Span<uint8_t> array = slots->Take<uint8_t>(SlotArrayBytes(shape));
  ACORN_TRY(pool.Open(tables, shape.pool));
  const Span<uint8_t> handed_out = tables->Take<uint8_t>(shape.pool.experts);
  const Span<SlotRead> slot_reads = tables->Take<SlotRead>(shape.pool.slots);
  const Span<SliceHashes> hashes = tables->Take<SliceHashes>(uint64_t{shape.pool.slots} * shape.slices);
  const Span<WaitingRead> unsubmitted = tables->Take<WaitingRead>((uint64_t{shape.pool.experts} + 1) * shape.slices * kRecordStripes);
  const Span<ExpertRead> guesses = tables->Take<ExpertRead>(shape.pool.experts);
  if (array.empty()) return Status::kOk;
  experts->pool = pool;
  experts->handed_out = handed_out;
  experts->slot_reads = slot_reads;
  experts->hashes = hashes;
  experts->slices = shape.slices;
  experts->unsubmitted = unsubmitted;
  experts->guesses = guesses;
  for (uint32_t p = 0; p < shape.profiles; ++p) experts->layouts[p] = shape.layouts[p];
  experts->pool.Resize(shape.layouts[0].count);
  const uint64_t address = reinterpret_cast<uintptr_t>(array.data()), skipped = AlignUp(address, kSegmentAlignment) - address;
  experts->slots = array.subspan(skipped, array.size() - skipped);
  return Status::kOk;
}

ExpertSource SourceOf(StreamingExperts *experts, uint32_t profile) {
  experts->profile = profile;
  return {experts, Begin, Next, Release, IsThere, End};
}

}  // namespace acorn
