// Reads a model image that may be hostile: header, checksums, flatbuffer, then every rule of schema/FORMAT.md, with checked
// arithmetic and before any pointer into the image is formed. Needs no memory: each element is checked on its own and comes
// out by value, so that acorn_plan can walk a model before there is a block.
#pragma once

#include "base/span.h"
#include "base/status.h"
#include "model/graph.h"

namespace flatbuffers {
template <typename T>
class Vector;
}  // namespace flatbuffers

namespace acorn::schema {
struct Model;
struct Ref;
struct Run;
struct Slice;
struct State;
struct Step;
struct Factor;
}  // namespace acorn::schema

namespace acorn {

/// Where an image is bad. section is static text.
struct Fault {
  Status status = Status::kOk;
  const char *section = "";
  uint64_t index = 0;
  uint64_t offset = 0;
};

/// Everything in a file is read in place, as little-endian integers: on a big-endian machine no file is worth looking at.
Status CheckByteOrder(Fault *fault);

/// What the fixed beginning of a file says of the rest.
struct Header {
  uint64_t file_bytes, graph_bytes;
  uint64_t resident_bytes;  // of the file without the experts at its end
};

/// Checks the header alone, of which `start` holds kHeaderBytes or what there is: every rule but the checksum of the graph and
/// that the file is as long as it says. Fills in *fault where it fails.
Status ReadHeader(Span<const uint8_t> start, Header *header, Fault *fault);

struct GraphCounts {
  uint32_t values, weights, ropes, caches, body, head, expert_sets;
  uint32_t expert_records;  // of all sets: slices
  uint32_t experts;         // of all sets
  uint32_t states;
  uint32_t profiles;  // bodies, each of `body` steps
};

/// What a file says of one of its segments.
struct SegmentPlace {
  const char *kind;  // static text, as FORMAT.md names it
  uint64_t offset, bytes;
  uint64_t checksum;
  bool has_records;  // of experts, each with a checksum of its own; the segment has none then
};

/// The head, or the body of a profile: kBody at rate 0.
enum class StepList : uint32_t { kBody = 0, kHead = UINT32_MAX };
constexpr StepList BodyOf(uint32_t profile) { return static_cast<StepList>(profile); }

class ModelReader {
 public:
  /// Checks everything that is not an element of a list: header, sizes, checksums (of the weights too where `check_weights`),
  /// the flatbuffer's structure, segments, counts. An image may end where the experts begin.
  Status Open(Span<const uint8_t> image, bool check_weights);

  /// The same of the header and the graph alone, for who reads the rest piece by piece: where the segments lie, but nothing that is in
  /// them. Legal after it are, beside fault(): the segments, expert sets and records.
  /// start: the first kHeaderBytes + graph_bytes of the file
  Status OpenGraph(Span<const uint8_t> start);
  uint32_t segment_count() const;
  SegmentPlace SegmentAt(uint32_t index) const;
  uint32_t expert_set_count() const;
  /// That the records of a set, which has been read, lie in.
  uint32_t SegmentOf(uint32_t expert_set) const;

  /// The small facts and the counts, legal after Open. The spans of `graph` for the lists stay empty.
  Status ReadSummary(Graph *graph, GraphCounts *counts);
  Status ReadValue(uint32_t index, Value *out);
  Status ReadWeight(uint32_t index, Weight *out);
  Status ReadRope(uint32_t index, Rope *out);
  Status ReadCache(uint32_t index, Cache *out);
  /// Of a cache, as the file says it: ReadCache checks it.
  uint32_t WindowOf(uint32_t cache) const;
  Status ReadState(uint32_t index, State *out);
  /// The span of `out` for the records stays empty.
  Status ReadExpertSet(uint32_t index, ExpertSet *out);
  /// index: expert * slices + slice
  Status ReadExpertRecord(uint32_t set, uint32_t index, ExpertRecord *out);
  uint64_t file_bytes() const { return header_.file_bytes; }
  /// True if the experts are part of the image.
  bool has_experts() const { return image_.size() == header_.file_bytes; }
  Status ReadStep(StepList list, uint32_t index, Step *out);
  /// Of profile `profile`, legal after ReadSummary.
  uint32_t RateOf(uint32_t profile) const;

  /// Everything has been read once: from here on nothing is refused that was not, however often it is read.
  void EndChecks() { checked_ = true; }

  const Fault &fault() const { return fault_; }

  /// For rules that are checked elsewhere (lifetimes): records where the image breaks one.
  Status Fail(Status status, const char *section, uint64_t index, uint64_t offset);
  /// The same of what was read last.
  Status Invalid() { return Fail(Status::kInvalid, section_, index_, 0); }

 private:
  /// Counts what the checks go over.
  Status Walk(uint64_t bytes);
  Status CheckHeader();
  Status CheckGraph();
  Status CheckRecords();
  /// Where a segment lies. end: of what stands before it, then of the segment
  Status CheckPlace(uint32_t segment, uint64_t *end);
  Status CheckSegments(bool check_weights);
  Status CheckProfiles(const GraphCounts &counts);
  Status ReadReference(const GraphCounts &counts, Graph *graph);
  Status Resolve(const schema::Ref *ref, uint8_t kind, uint64_t bytes, const uint8_t **out);
  Status ResolveConstants(const schema::Ref *ref, uint64_t bytes, const uint8_t **out);
  template <typename T>
  Status ResolveArray(const schema::Ref *ref, uint64_t count, const T **out) {
    const uint8_t *bytes = nullptr;
    ACORN_TRY(ResolveConstants(ref, count * sizeof(T), &bytes));
    *out = reinterpret_cast<const T *>(bytes);
    return Status::kOk;
  }
  Status ReadSlice(const schema::Slice *slice, Slice *out, DType *type);
  Status CheckShift(uint32_t shift, uint32_t low = 1, uint32_t high = 62);
  Status CheckZeroPoint(int32_t zero_point, DType type);
  Status CheckMultipliers(const int32_t *multipliers, uint64_t count, int64_t low, int64_t high);
  Status ReadFactor(const schema::Factor *factor, Scale *out);
  Status ReadOctaves(const schema::Factor *factor, Scale *out);
  /// Runs of `count` rows or columns in all, of `limit`, that begin on multiples of `unit`; absent: all of them.
  Status ReadRuns(const flatbuffers::Vector<const schema::Run *> *runs, uint64_t count, uint64_t limit, uint32_t unit,
                  IndexRuns *out);
  Status FindState(uint32_t index, DType type, const schema::State **out);

  Status ReadStepOp(const schema::Step &step, Step *out);
  Status Read(const void *table, EmbeddingOp *out);
  Status Read(const void *table, RmsNormOp *out);
  Status Read(const void *table, LinearOp *out);
  Status Read(const void *table, RotateOp *out);
  Status Read(const void *table, AppendOp *out);
  Status Read(const void *table, AttentionOp *out);
  Status Read(const void *table, GluOp *out);
  Status Read(const void *table, HadamardOp *out);
  Status Read(const void *table, AddOp *out);
  Status Read(const void *table, LayerNormOp *out);
  Status Read(const void *table, ExpertsOp *out);
  Status Read(const void *table, ConvOp *out);
  Status Read(const void *table, ScanOp *out);

  Span<const uint8_t> image_;
  Header header_ = {};
  const schema::Model *model_ = nullptr;
  uint64_t walked_ = 0;  // bytes
  bool checked_ = false;
  const char *section_ = "header";  // what is being read, for faults
  uint64_t index_ = 0;
  Fault fault_;
};

}  // namespace acorn
