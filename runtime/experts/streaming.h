// Experts that lie in storage: slots in memory, filled by reads that run while the experts already there are computed. A slot holds
// the slices of an expert that a profile uses, and is as large as the largest of these: a session at another rate than the last one
// finds other slots, all of them empty.
// What a record holds is checked when it arrives. A read that fails ends the visit with a status and leaves everything in order:
// the same tokens can be fed again.
#pragma once

#include "acorn_schema/file.h"
#include "base/arena.h"
#include "base/span.h"
#include "base/status.h"
#include "experts/pool.h"
#include "model/graph.h"
#include "ops/op.h"
#include "platform/parallel.h"
#include "platform/stop.h"
#include "platform/storage.h"

namespace acorn {

/// Of the largest read that failed or stalled last.
struct ExpertFault {
  Status status;  // kOk: none
  uint32_t set, expert;
  uint64_t offset;  // in the file
  int32_t error;    // the port's number
};

/// Sums since open.
struct ExpertTraffic {
  uint64_t bytes_read;
  uint64_t stall_ticks;  // with nothing to compute
};

/// What is known of the bytes that come to a slot. Of a large expert each slice is a read of its own, of a large slice each stripe, so
/// that the first ones are checked while the others are on their way.
struct SlotRead {
  uint32_t visit;  // number of the visit that asked for it
  uint32_t left;   // reads that have not ended
  bool failed;
  int32_t error;   // of the first read that failed
};
struct SliceHashes {
  uint64_t stripes[kRecordStripes];
};

/// A read that waits to be handed over.
struct WaitingRead {
  ExpertRead read;
  uint32_t part;  // of the expert's reads: slice * kRecordStripes + stripe
};

/// The slots of one profile.
struct SlotLayout {
  uint64_t bytes;  // of a slot, a multiple of 16 KiB
  uint32_t count;
};

struct StreamingExperts {
  const Graph *graph;
  Storage storage;
  Clock clock;
  ExpertPool pool;
  Span<uint8_t> slots;
  SlotLayout layouts[kMaxProfiles];
  uint32_t profile;         // of the session that runs
  uint32_t layout_profile;  // whose slots these are
  uint64_t ticks_per_second;  // of the clock; 0: nothing is counted, and a read may take as long as it likes
  uint64_t timeout_ticks;  // of a visit without any read coming in; 0: none
  Stop *stop;              // of the session that runs: ends a wait, which takes it
  // the visit
  uint32_t set;
  uint32_t visit;  // number of it
  size_t handed_out_count;
  Span<uint8_t> handed_out;    // [most experts of a set]
  Span<SlotRead> slot_reads;      // [slots]
  Span<SliceHashes> hashes;       // [slots, slices]
  uint32_t slices;                // most of an expert
  Span<WaitingRead> unsubmitted;  // [(most experts of a set + 1 guess) * slices * stripes]; of these the first `unsubmitted_count`
  size_t unsubmitted_count;
  size_t under_way;          // reads
  uint64_t bytes_under_way;  // of them
  Span<ExpertRead> guesses;  // [most experts of a set]; slots set aside for what may be wanted: the first `guess_count`
  size_t guess_count;
  ExpertRead guess;  // that is read now
  bool guessing;     // there is one
  ExpertFault fault;
  ExpertTraffic traffic;
};

struct StreamingShape {
  ExpertPoolShape pool;  // slots: the most of any profile
  SlotLayout layouts[kMaxProfiles];
  uint32_t profiles;
  uint32_t slices;  // most of an expert
};

/// Bytes that are read of the first slices of an expert: whole blocks, which the file has (FORMAT.md).
uint64_t ReadBytes(const ExpertRecord *records, uint32_t slices);

/// What is left to do with an expert of one slice and so many bytes when the last of its reads has landed, for tools that count with
/// its time: WideChecksum() of so many bytes.
uint64_t BytesOfLastRead(uint64_t record_bytes);

/// Bytes of the slots of any profile with room to align them to 16 KiB; UINT64_MAX, which no arena has, where 64 bits are too few.
uint64_t SlotArrayBytes(const StreamingShape &shape);

/// Lays tables and slots out in `tables` and `slots`, which may only count; then the rest is not touched. The slots are those of
/// profile 0.
/// Returns: as ExpertPool::Open
Status LayOutStreaming(const StreamingShape &shape, Arena *tables, Arena *slots, StreamingExperts *experts);

/// Sets a slot aside for an expert of a set whose turn is still to come, if there is one to spare; read when nothing else is.
void Prefetch(StreamingExperts *experts, uint32_t set, uint32_t expert);

/// For sessions at that profile. Where its slots are others than those of the visit before, its first visit lays them out: reads that
/// are under way are waited for, as long as for any.
ExpertSource SourceOf(StreamingExperts *experts, uint32_t profile);

}  // namespace acorn
