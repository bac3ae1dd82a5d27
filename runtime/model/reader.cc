#include "model/reader.h"

// FlatBuffers asserts only on misuse by the program; what a file can cause, its verifier reports.
#define FLATBUFFERS_ASSERT(condition) ((void)0)
#include "acorn_schema/acorn_generated.h"
#include "acorn_schema/file.h"
#include "base/checked.h"
#include "model/expert_record.h"

namespace acorn {
namespace {

constexpr bool kLittleEndian = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;

// Nesting and count of tables in a legal file are small: a model, its lists, a step, its operator.
constexpr flatbuffers::uoffset_t kMaxDepth = 8;
constexpr flatbuffers::uoffset_t kMaxTables = 1u << 18;

// Bytes that the first checks may go over for each byte of the image. A file whose tables have arrays of their own takes less than ten, of its
// constants alone; one whose steps share the same few would take as many as it has steps.
constexpr uint64_t kMaxWalks = 16;

// A legal (format, layout) pair and its packed bytes.
bool PackedBytes(const Weight &weight, uint64_t *bytes) {
  if (!LayoutHolds(weight.layout, weight.format)) return false;
  if (weight.layout == Layout::kC4) {
    if (weight.k % GroupSize(weight.format) != 0 || weight.k_panel != weight.k) return false;
  } else if (weight.k_panel == 0 || weight.k_panel > weight.k || (weight.k_panel < weight.k && weight.k_panel % 16 != 0)) {
    return false;
  }
  *bytes = PartBytes(weight, weight.n, weight.k);
  return true;
}

// FlatBuffers' verifier looks at the alignment of a vector's length alone, which is 4: a vector of wider elements may lie askew.
template <typename T>
bool IsAligned(const void *elements) {
  return reinterpret_cast<uintptr_t>(elements) % alignof(T) == 0;
}

// Nothing for a vector that is not there or lies askew.
template <typename T>
Span<const T> SpanOf(const flatbuffers::Vector<T> *vector) {
  return vector == nullptr || !IsAligned<T>(vector->Data()) ? Span<const T>() : Span<const T>(vector->data(), vector->size());
}

// Slices of each expert; 0 where the list of records cannot be that of a set.
uint32_t SlicesOf(const schema::ExpertSet &set) {
  const uint32_t slices = set.slices() == nullptr ? 1 : set.slices()->size();
  if (set.records() == nullptr || slices == 0 || slices > kMaxExpertSlices || set.records()->size() % slices != 0 ||
      set.records()->size() / slices > kMaxExperts) {
    return 0;
  }
  return slices;
}

uint32_t SliceWidth(const schema::ExpertSet &set, uint32_t slice) {
  return set.slices() == nullptr ? set.ffn() : set.slices()->Get(slice);
}

}  // namespace

Status CheckByteOrder(Fault *fault) {
  if (kLittleEndian) return Status::kOk;
  *fault = {Status::kUnsupported, "byte order", 0, 0};
  return Status::kUnsupported;
}

Status ReadHeader(Span<const uint8_t> start, Header *header, Fault *fault) {
  const uint8_t *p = start.data();
  const auto fail = [fault](Status status, uint64_t offset) {
    *fault = {status, "header", 0, offset};
    return status;
  };
  if (start.size() < 8 || __builtin_memcmp(p, kFileMagic, 8) != 0) return fail(Status::kForeign, kHeaderMagic);
  if (start.size() < kHeaderBytes) return fail(Status::kTruncated, start.size());
  if (LoadLittle32(p + kHeaderVersion) != kFileVersion) return fail(Status::kVersion, kHeaderVersion);
  if (LoadLittle64(p + kHeaderChecksum) != Checksum(p, kHeaderChecksum)) return fail(Status::kDamaged, kHeaderChecksum);
  if (LoadLittle32(p + kHeaderSize) != kHeaderBytes) return fail(Status::kInvalid, kHeaderSize);
  header->file_bytes = LoadLittle64(p + kHeaderFileBytes);
  header->graph_bytes = LoadLittle64(p + kHeaderGraphBytes);
  if (LoadLittle64(p + kHeaderGraphOffset) != kHeaderBytes || header->file_bytes < kHeaderBytes ||
      header->graph_bytes > header->file_bytes - kHeaderBytes || header->graph_bytes >= FLATBUFFERS_MAX_BUFFER_SIZE) {
    return fail(Status::kInvalid, kHeaderGraphBytes);
  }
  const uint64_t experts = LoadLittle64(p + kHeaderExperts);
  if (experts != 0 && (experts % kSegmentAlignment != 0 || experts >= header->file_bytes ||
                       experts < kHeaderBytes + header->graph_bytes)) {
    return fail(Status::kInvalid, kHeaderExperts);
  }
  header->resident_bytes = experts == 0 ? header->file_bytes : experts;
  return Status::kOk;
}

Status ModelReader::Fail(Status status, const char *section, uint64_t index, uint64_t offset) {
  fault_ = {status, section, index, offset};
  return status;
}

Status ModelReader::Walk(uint64_t bytes) {
  if (checked_) return Status::kOk;
  walked_ += bytes;
  return walked_ / kMaxWalks <= image_.size() ? Status::kOk : Fail(Status::kInvalid, "graph", 0, kHeaderBytes);
}

Status ModelReader::CheckHeader() {
  ACORN_TRY(ReadHeader(image_, &header_, &fault_));
  if (header_.file_bytes > image_.size() && header_.resident_bytes != image_.size()) {
    return Fail(Status::kTruncated, "header", 0, image_.size());
  }
  return header_.file_bytes < image_.size() ? Fail(Status::kInvalid, "header", 0, kHeaderFileBytes) : Status::kOk;
}

Status ModelReader::CheckGraph() {
  const uint8_t *p = image_.data(), *graph = p + kHeaderBytes;
  const uint64_t bytes = header_.graph_bytes;
  if (LoadLittle64(p + kHeaderGraphChecksum) != Checksum(graph, bytes)) return Fail(Status::kDamaged, "graph", 0, kHeaderBytes);
  flatbuffers::Verifier verifier(graph, bytes, kMaxDepth, kMaxTables);
  // The identifier is compared here since FlatBuffers' own check needs a C library.
  if (bytes < 16 || __builtin_memcmp(graph + 4, schema::ModelIdentifier(), 4) != 0 ||
      !verifier.VerifyBuffer<schema::Model>(nullptr)) {
    return Fail(Status::kInvalid, "graph", 0, kHeaderBytes);
  }
  model_ = schema::GetModel(graph);
  const auto *segments = model_->segments();
  if (segments == nullptr || segments->size() == 0 || segments->size() >= 65535 ||
      !IsAligned<schema::Segment>(segments->Data())) {
    return Fail(Status::kInvalid, "segment", 0, 0);
  }
  return Status::kOk;
}

Status ModelReader::CheckPlace(uint32_t index, uint64_t *end) {
  const schema::Segment *segment = model_->segments()->Get(index);
  // In the order of the file, so that no two overlap.
  if (segment->kind() < schema::SegmentKind::MIN || segment->kind() > schema::SegmentKind::MAX ||
      segment->kind() == schema::SegmentKind::None || segment->offset() % kSegmentAlignment != 0 || segment->offset() < *end) {
    return Fail(Status::kInvalid, "segment", index, segment->offset());
  }
  const bool experts = segment->kind() == schema::SegmentKind::Experts;
  if (!RangeInside(segment->offset(), segment->bytes(), experts ? header_.file_bytes : header_.resident_bytes)) {
    return Fail(Status::kTruncated, "segment", index, segment->offset());
  }
  *end = segment->offset() + segment->bytes();
  if (experts && segment->offset() < header_.resident_bytes) return Fail(Status::kInvalid, "segment", index, segment->offset());
  return Status::kOk;
}

Status ModelReader::CheckSegments(bool check_weights) {
  uint64_t end = kHeaderBytes + header_.graph_bytes;
  for (uint32_t i = 0; i < model_->segments()->size(); ++i) {
    ACORN_TRY(CheckPlace(i, &end));
    const schema::Segment *segment = model_->segments()->Get(i);
    const schema::SegmentKind kind = segment->kind();
    // Records of experts have checksums of their own.
    const bool check = kind == schema::SegmentKind::Weights ? check_weights : kind != schema::SegmentKind::Experts;
    if (check && Checksum(image_.data() + segment->offset(), segment->bytes()) != segment->checksum()) {
      return Fail(Status::kDamaged, "segment", i, segment->offset());
    }
  }
  return Status::kOk;
}

Status ModelReader::Open(Span<const uint8_t> image, bool check_weights) {
  ACORN_TRY(CheckByteOrder(&fault_));
  image_ = image;
  ACORN_TRY(CheckHeader());
  ACORN_TRY(CheckGraph());
  ACORN_TRY(CheckSegments(check_weights));
  return check_weights && has_experts() ? CheckRecords() : Status::kOk;
}

Status ModelReader::OpenGraph(Span<const uint8_t> start) {
  ACORN_TRY(CheckByteOrder(&fault_));
  image_ = start;
  ACORN_TRY(ReadHeader(start, &header_, &fault_));
  ACORN_TRY(CheckGraph());
  uint64_t end = kHeaderBytes + header_.graph_bytes;
  for (uint32_t i = 0; i < segment_count(); ++i) ACORN_TRY(CheckPlace(i, &end));
  return Status::kOk;
}

uint32_t ModelReader::segment_count() const { return model_->segments()->size(); }

SegmentPlace ModelReader::SegmentAt(uint32_t index) const {
  static constexpr const char *kKinds[] = {"", "constants", "weights", "tokenizer", "experts"};
  const schema::Segment *segment = model_->segments()->Get(index);
  return {kKinds[static_cast<size_t>(segment->kind())], segment->offset(), segment->bytes(), segment->checksum(),
          segment->kind() == schema::SegmentKind::Experts};
}

uint32_t ModelReader::expert_set_count() const { return model_->expert_sets() == nullptr ? 0 : model_->expert_sets()->size(); }

uint32_t ModelReader::SegmentOf(uint32_t expert_set) const { return model_->expert_sets()->Get(expert_set)->segment(); }

Status ModelReader::CheckRecords() {
  const auto *sets = model_->expert_sets();
  for (uint32_t i = 0; sets != nullptr && i < sets->size(); ++i) {
    ExpertSet set;
    ACORN_TRY(ReadExpertSet(i, &set));
    for (uint32_t j = 0; j < sets->Get(i)->records()->size(); ++j) {
      ExpertRecord record;
      ACORN_TRY(ReadExpertRecord(i, j, &record));
      ACORN_TRY(Walk(expert::RecordBytes(record.shape)));
      const Status status = CheckExpertRecord(set, record, image_.data() + record.offset);
      if (status != Status::kOk) return Fail(status, "expert", j, record.offset);
    }
  }
  return Status::kOk;
}

Status ModelReader::ReadSummary(Graph *graph, GraphCounts *counts) {
  section_ = "model";
  index_ = 0;
  const auto text = [](const flatbuffers::String *s) {
    return s == nullptr ? Span<const char>() : Span<const char>(s->c_str(), s->size());
  };
  const auto count = [](const auto *vector) { return vector == nullptr ? 0u : vector->size(); };
  *counts = {count(model_->values()), count(model_->weights()), count(model_->ropes()),
             count(model_->caches()), count(model_->body()),    count(model_->head()),
             count(model_->expert_sets()), 0, 0, count(model_->states()), 1 + count(model_->profiles())};
  for (uint32_t i = 0; i < counts->expert_sets; ++i) {
    const schema::ExpertSet *set = model_->expert_sets()->Get(i);
    const uint32_t slices = SlicesOf(*set);
    const uint64_t experts = slices == 0 ? 0 : set->records()->size() / slices;
    if (slices == 0 || counts->expert_sets * experts > kMaxExpertsOfAll) return Fail(Status::kInvalid, "experts", i, 0);
    counts->expert_records += set->records()->size();
    counts->experts += static_cast<uint32_t>(experts);
  }
  if (counts->values == 0 || counts->values > kMaxValues) return Fail(Status::kInvalid, "values", counts->values, 0);
  if (counts->body == 0) return Fail(Status::kInvalid, "body", 0, 0);
  if (counts->head == 0) return Fail(Status::kInvalid, "head", 0, 0);
  ACORN_TRY(CheckProfiles(*counts));
  section_ = "model";
  index_ = 0;
  graph->name = text(model_->name());
  graph->family = text(model_->family());
  graph->vocab_size = model_->vocab_size();
  graph->max_context = model_->max_context();
  graph->prefix_tokens = SpanOf(model_->prefix_tokens());
  if (graph->prefix_tokens.size() > kMaxPrefixRows || graph->max_context == 0 ||
      uint64_t{graph->max_context} + graph->prefix_tokens.size() > (counts->caches == 0 ? kMaxTokensWithoutCache : kMaxRows)) {
    return Invalid();
  }
  for (const int32_t token : graph->prefix_tokens) {
    if (token < 0 || static_cast<uint32_t>(token) >= graph->vocab_size) return Invalid();
  }
  graph->body_out = model_->body_out();
  graph->logits = model_->logits();
  if (graph->body_out >= counts->values || graph->logits >= counts->values) return Invalid();
  Value logits;
  ACORN_TRY(ReadValue(graph->logits, &logits));
  section_ = "model";
  index_ = 0;
  if (logits.dtype != DType::kS32 || logits.width != graph->vocab_size) return Invalid();
  ACORN_TRY(ReadFactor(model_->logit_factor(), &graph->logit_factor));
  graph->tokenizer = {};
  if (model_->tokenizer_segment() != 65535) {
    if (model_->tokenizer_segment() >= model_->segments()->size()) return Invalid();
    const schema::Segment *segment = model_->segments()->Get(model_->tokenizer_segment());
    if (segment->kind() != schema::SegmentKind::Tokenizer) return Invalid();
    graph->tokenizer = image_.subspan(segment->offset(), segment->bytes());
  }
  return ReadReference(*counts, graph);
}

Status ModelReader::CheckProfiles(const GraphCounts &counts) {
  section_ = "profiles";
  index_ = counts.profiles;
  if (counts.profiles > kMaxProfiles) return Invalid();
  for (uint32_t i = 1; i < counts.profiles; ++i) {
    index_ = i - 1;
    const auto *body = model_->profiles()->Get(i - 1)->body();
    if (body == nullptr || body->size() != counts.body || RateOf(i) > kMaxRate || RateOf(i) <= RateOf(i - 1)) return Invalid();
  }
  return Status::kOk;
}

uint32_t ModelReader::RateOf(uint32_t profile) const {
  return profile == 0 ? 0 : model_->profiles()->Get(profile - 1)->rate();
}

Status ModelReader::ReadReference(const GraphCounts &counts, Graph *graph) {
  section_ = "reference";
  index_ = 0;
  graph->reference = {};
  const schema::ReferenceRun *run = model_->reference_run();
  if (run == nullptr) return Status::kOk;
  const ReferenceRun out = {SpanOf(run->prompt()), SpanOf(run->generated()), run->sampled(),      run->temperature_q16(),
                            run->seed(),           SpanOf(run->prefill()),   SpanOf(run->decode())};
  const uint64_t tokens = uint64_t{out.prompt.size()} + out.generated.size();
  if (out.prompt.empty() || out.generated.empty() || tokens > kMaxReferenceTokens || tokens > graph->max_context ||
      out.sampled > out.generated.size() || out.temperature_q16 == 0 || out.temperature_q16 > kMaxReferenceTemperatureQ16) {
    return Invalid();
  }
  for (const Span<const int32_t> ids : {out.prompt, out.generated}) {
    for (const int32_t id : ids) {
      if (id < 0 || static_cast<uint32_t>(id) >= graph->vocab_size) return Invalid();
      ++index_;
    }
  }
  const uint64_t steps = uint64_t{counts.body} + counts.head;
  for (const Span<const uint64_t> digests : {out.prefill, out.decode}) {
    index_ = digests.size();
    if (digests.size() != steps) return Invalid();
  }
  graph->reference = out;
  return Status::kOk;
}

Status ModelReader::ReadValue(uint32_t index, Value *out) {
  section_ = "values";
  index_ = index;
  const schema::Value *value = model_->values()->Get(index);
  if (value->dtype() == schema::DType::None || value->dtype() > schema::DType::MAX || value->width() == 0 ||
      value->width() > kMaxWidth) {
    return Invalid();
  }
  *out = {static_cast<DType>(value->dtype()), value->width()};
  return Status::kOk;
}

// A range of a segment of the wanted kind, of exactly `bytes` bytes.
Status ModelReader::Resolve(const schema::Ref *ref, uint8_t kind, uint64_t bytes, const uint8_t **out) {
  const auto *segments = model_->segments();
  if (ref == nullptr || ref->segment() >= segments->size()) return Invalid();
  const schema::Segment *segment = segments->Get(ref->segment());
  if (static_cast<uint8_t>(segment->kind()) != kind || ref->bytes() != bytes || ref->offset() % kRefAlignment != 0 ||
      !RangeInside(ref->offset(), ref->bytes(), segment->bytes())) {
    return Fail(Status::kInvalid, section_, index_, ref->offset());
  }
  *out = image_.data() + segment->offset() + ref->offset();
  return Status::kOk;
}

Status ModelReader::ResolveConstants(const schema::Ref *ref, uint64_t bytes, const uint8_t **out) {
  ACORN_TRY(Resolve(ref, static_cast<uint8_t>(schema::SegmentKind::Constants), bytes, out));
  return Walk(bytes);
}

Status ModelReader::ReadWeight(uint32_t index, Weight *out) {
  section_ = "weights";
  index_ = index;
  const schema::Weight *weight = model_->weights()->Get(index);
  out->format = static_cast<WeightFormat>(weight->format());
  out->layout = static_cast<Layout>(weight->layout());
  out->n = weight->n();
  out->k = weight->k();
  out->k_panel = weight->k_panel();
  if (out->n == 0 || out->k == 0 || out->n > kMaxWidth || out->k > kMaxWidth || !PackedBytes(*out, &out->bytes)) return Invalid();
  return Resolve(weight->data(), static_cast<uint8_t>(schema::SegmentKind::Weights), out->bytes, &out->data);
}

Status ModelReader::ReadRope(uint32_t index, Rope *out) {
  section_ = "ropes";
  index_ = index;
  const schema::Rope *rope = model_->ropes()->Get(index);
  out->rotary_dims = rope->rotary_dims();
  out->limit = rope->limit() == 0 ? UINT64_MAX : rope->limit();
  if (out->rotary_dims == 0 || out->rotary_dims % 2 != 0 || out->rotary_dims > kMaxHeadDim) return Invalid();
  return ResolveArray(rope->frequencies(), out->rotary_dims / 2, &out->frequencies);
}

Status ModelReader::ReadCache(uint32_t index, Cache *out) {
  section_ = "caches";
  index_ = index;
  const schema::Cache *cache = model_->caches()->Get(index);
  out->kv_heads = cache->kv_heads();
  out->head_dim = cache->head_dim();
  out->bits = cache->bits();
  out->window = cache->window();
  out->prefix_k = out->prefix_v = nullptr;
  if (out->bits != 8 && out->bits != 4) return Invalid();
  if (out->kv_heads == 0 || out->head_dim == 0 || out->head_dim % 2 != 0 || out->head_dim > kMaxHeadDim ||
      out->kv_heads > kMaxWidth / kMaxHeadDim) {
    return Invalid();
  }
  const uint64_t rows = model_->prefix_tokens() == nullptr ? 0 : model_->prefix_tokens()->size();
  if (rows + out->window > kMaxRows) return Invalid();
  if (rows == 0) return Status::kOk;
  const uint64_t elements = rows * out->kv_heads * out->head_dim;
  ACORN_TRY(ResolveArray(cache->prefix_k(), elements, &out->prefix_k));
  ACORN_TRY(ResolveArray(cache->prefix_v(), elements, &out->prefix_v));
  bool good = true;  // s8 activations are symmetric: kernels rely on it
  for (uint64_t i = 0; i < elements; ++i) good &= out->prefix_k[i] != INT8_MIN && out->prefix_v[i] != INT8_MIN;
  return good ? Status::kOk : Invalid();
}

uint32_t ModelReader::WindowOf(uint32_t cache) const { return model_->caches()->Get(cache)->window(); }

Status ModelReader::ReadExpertSet(uint32_t index, ExpertSet *out) {
  section_ = "experts";
  index_ = index;
  const schema::ExpertSet *set = model_->expert_sets()->Get(index);
  *out = {};
  out->hidden = set->hidden();
  out->layout = static_cast<Layout>(set->layout());
  out->slices = SlicesOf(*set);
  out->in_bound = set->in_bound();
  out->down_bound = set->down_bound();
  // An s8 input: FORMAT.md "Bounds".
  if (out->hidden == 0 || out->hidden > kMaxWidth || set->ffn() == 0 || set->ffn() > kMaxWidth || out->in_bound >> 31 != 0 ||
      out->down_bound >> 31 != 0 || set->segment() >= model_->segments()->size() ||
      model_->segments()->Get(set->segment())->kind() != schema::SegmentKind::Experts || out->slices == 0 ||
      set->records()->size() == 0 || !IsAligned<schema::ExpertRecord>(set->records()->Data())) {
    return Invalid();
  }
  out->count = set->records()->size() / out->slices;
  uint32_t end = 0;
  for (uint32_t slice = 0; slice < out->slices; ++slice) {
    const uint32_t width = SliceWidth(*set, slice);
    if (width == 0 || width > set->ffn() - end) return Invalid();
    out->ends[slice] = end += width;
  }
  if (end != set->ffn()) return Invalid();
  uint64_t begin = 0, bytes = 0;  // of an expert; of its slices so far
  for (uint32_t i = 0; i < set->records()->size(); ++i) {
    const uint32_t slice = i % out->slices;
    ExpertRecord record;
    ACORN_TRY(ReadExpertRecord(index, i, &record));
    if (slice == 0) {
      begin = record.offset;
      bytes = 0;
    }
    // One behind the other, so that any number of them is read in one go.
    if (record.offset != begin + bytes) return Fail(Status::kInvalid, "expert", i, record.offset);
    bytes += AlignUp(expert::RecordBytes(record.shape), kSegmentAlignment);
    if (bytes > out->bytes[slice]) out->bytes[slice] = bytes;
    out->formats |= 1u << static_cast<uint32_t>(record.shape.format) | 1u << static_cast<uint32_t>(record.shape.down_format);
  }
  return Status::kOk;
}

Status ModelReader::ReadExpertRecord(uint32_t set_index, uint32_t index, ExpertRecord *out) {
  section_ = "experts";
  index_ = set_index;
  const schema::ExpertSet *set = model_->expert_sets()->Get(set_index);
  const schema::Segment *segment = model_->segments()->Get(set->segment());
  const schema::ExpertRecord *record = set->records()->Get(index);
  ACORN_TRY(Walk(sizeof(*record)));
  // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): sets without slices are refused where they are counted
  out->shape = {set->hidden(), SliceWidth(*set, index % SlicesOf(*set)), static_cast<WeightFormat>(record->format()),
                static_cast<WeightFormat>(record->down_format()), static_cast<Layout>(set->layout())};
  out->checksum = record->checksum();
  out->gate_shift = record->gate_shift();
  out->up_shift = record->up_shift();
  out->down_shift = record->down_shift();
  for (size_t part = 0; part < expert::kParts; ++part) {
    if (!expert::IsLegal(expert::MatrixOf(out->shape, part))) return Fail(Status::kInvalid, "expert", index, record->offset());
  }
  // Whole blocks can be read: the segment goes on to the end of the last one.
  if (record->offset() % kSegmentAlignment != 0 ||
      !RangeInside(record->offset(), AlignUp(expert::RecordBytes(out->shape), kSegmentAlignment), segment->bytes())) {
    return Fail(Status::kInvalid, "expert", index, record->offset());
  }
  ACORN_TRY(CheckShift(record->gate_shift()));
  ACORN_TRY(CheckShift(record->up_shift()));
  ACORN_TRY(CheckShift(record->down_shift()));
  out->offset = segment->offset() + record->offset();
  return Status::kOk;
}

Status ModelReader::ReadSlice(const schema::Slice *slice, Slice *out, DType *type) {
  if (slice == nullptr || slice->value() >= model_->values()->size()) return Invalid();
  const schema::Value *value = model_->values()->Get(slice->value());
  if (slice->width() == 0 || !RangeInside(slice->offset(), slice->width(), value->width())) return Invalid();
  *out = {slice->value(), slice->offset(), slice->width()};
  *type = static_cast<DType>(value->dtype());
  return Status::kOk;
}

Status ModelReader::CheckShift(uint32_t shift, uint32_t low, uint32_t high) {
  return shift >= low && shift <= high ? Status::kOk : Invalid();
}

Status ModelReader::CheckZeroPoint(int32_t zero_point, DType type) {
  const int32_t limit = type == DType::kS8 ? 127 : 0;  // only s8 edges have one
  return zero_point >= -limit && zero_point <= limit ? Status::kOk : Invalid();
}

Status ModelReader::CheckMultipliers(const int32_t *multipliers, uint64_t count, int64_t low, int64_t high) {
  bool good = true;
  for (uint64_t i = 0; i < count; ++i) good &= multipliers[i] >= low && multipliers[i] <= high;
  return good ? Status::kOk : Invalid();
}

Status ModelReader::ReadFactor(const schema::Factor *factor, Scale *out) {
  if (factor == nullptr || factor->multiplier() < 0) return Invalid();
  *out = {factor->multiplier(), factor->shift()};
  return CheckShift(factor->shift());
}

Status ModelReader::Read(const void *table, EmbeddingOp *out) {
  const auto &op = *static_cast<const schema::Embedding *>(table);
  DType type;
  ACORN_TRY(ReadSlice(op.out(), &out->out, &type));
  out->weight = op.weight();
  out->shift = op.shift();
  if (type != DType::kS16 || model_->weights() == nullptr || out->weight >= model_->weights()->size()) return Invalid();
  const schema::Weight *weight = model_->weights()->Get(out->weight);
  if (weight->n() != model_->vocab_size() || weight->k() != out->out.width) return Invalid();
  ACORN_TRY(ResolveArray(op.multipliers(), weight->n(), &out->multipliers));
  ACORN_TRY(CheckMultipliers(out->multipliers, weight->n(), 0, INT32_MAX));
  return CheckShift(op.shift());
}

Status ModelReader::Read(const void *table, RmsNormOp *out) {
  const auto &op = *static_cast<const schema::RmsNorm *>(table);
  DType in, result;
  ACORN_TRY(ReadSlice(op.input(), &out->in, &in));
  ACORN_TRY(ReadSlice(op.out(), &out->out, &result));
  out->groups = op.groups();
  out->eps_term = op.eps_term();
  out->zero_point = op.zero_point();
  if (in != DType::kS16 || (result != DType::kS8 && result != DType::kS16) || out->in.width != out->out.width ||
      out->groups == 0 || out->in.width % out->groups != 0 || out->eps_term >> 60 != 0) {
    return Invalid();
  }
  const uint32_t depth = out->in.width / out->groups;
  const bool own = op.gamma() != nullptr && op.gamma()->bytes() == uint64_t{out->in.width} * sizeof(int16_t);
  out->gamma_stride = own ? depth : 0;
  ACORN_TRY(ResolveArray(op.gamma(), own ? out->in.width : depth, &out->gamma));
  ACORN_TRY(ReadFactor(op.factor(), &out->factor));
  if (out->factor.multiplier < 1 << 30) return Invalid();
  ACORN_TRY(CheckShift(static_cast<uint32_t>(out->factor.shift), 2, 49));
  return CheckZeroPoint(out->zero_point, result);
}

Status ModelReader::Read(const void *table, GluOp *out) {
  const auto &op = *static_cast<const schema::Glu *>(table);
  DType gate, up, result;
  ACORN_TRY(ReadSlice(op.gate(), &out->gate, &gate));
  ACORN_TRY(ReadSlice(op.up(), &out->up, &up));
  ACORN_TRY(ReadSlice(op.out(), &out->out, &result));
  out->shift = op.shift();
  out->fused = false;
  if (gate != DType::kS16 || up != DType::kS16 || result != DType::kS16 || out->gate.width != out->out.width ||
      out->up.width != out->out.width) {
    return Invalid();
  }
  ACORN_TRY(ReadFactor(op.index(), &out->index));
  ACORN_TRY(ResolveArray(op.factor_table(), 514, &out->table));
  return CheckShift(op.shift());
}

Status ModelReader::Read(const void *table, HadamardOp *out) {
  const auto &op = *static_cast<const schema::Hadamard *>(table);
  DType in, result;
  ACORN_TRY(ReadSlice(op.input(), &out->in, &in));
  ACORN_TRY(ReadSlice(op.out(), &out->out, &result));
  out->block = op.block();
  out->zero_point = op.zero_point();
  if (in != DType::kS16 || (result != DType::kS8 && result != DType::kS15) || out->in.width != out->out.width ||
      out->block == 0 || out->block > 1024 || (out->block & (out->block - 1)) != 0 || out->in.width % out->block != 0) {
    return Invalid();
  }
  ACORN_TRY(ReadFactor(op.factor(), &out->factor));
  return CheckZeroPoint(out->zero_point, result);
}

Status ModelReader::Read(const void *table, AddOp *out) {
  const auto &op = *static_cast<const schema::Add *>(table);
  DType a, b, result;
  ACORN_TRY(ReadSlice(op.a(), &out->a, &a));
  ACORN_TRY(ReadSlice(op.b(), &out->b, &b));
  ACORN_TRY(ReadSlice(op.out(), &out->out, &result));
  out->a_multiplier = op.a_multiplier();
  out->b_multiplier = op.b_multiplier();
  out->shift = op.shift();
  if (a != DType::kS16 || b != DType::kS16 || result != DType::kS16 || out->a.width != out->out.width ||
      out->b.width != out->out.width || out->a_multiplier == INT32_MIN || out->b_multiplier == INT32_MIN) {
    return Invalid();
  }
  return CheckShift(op.shift());
}

Status ModelReader::Read(const void *table, LayerNormOp *out) {
  const auto &op = *static_cast<const schema::LayerNorm *>(table);
  DType in, result;
  ACORN_TRY(ReadSlice(op.input(), &out->in, &in));
  ACORN_TRY(ReadSlice(op.out(), &out->out, &result));
  out->groups = op.groups();
  out->eps_term = op.eps_term();
  out->shift = op.shift();
  out->zero_point = op.zero_point();
  if (in != DType::kS16 || (result != DType::kS8 && result != DType::kS16) || out->in.width != out->out.width ||
      out->groups == 0 || out->in.width % out->groups != 0 || out->in.width / out->groups > kMaxLayerNormDepth ||
      out->eps_term >> 60 != 0) {
    return Invalid();
  }
  ACORN_TRY(ResolveArray(op.gamma(), out->in.width, &out->gamma));
  ACORN_TRY(ResolveArray(op.bias(), out->in.width, &out->bias));
  ACORN_TRY(CheckShift(op.shift()));
  return CheckZeroPoint(out->zero_point, result);
}

// The distance of two logits has 32 bits, and its product with the multiplier 62.
Status ModelReader::ReadOctaves(const schema::Factor *factor, Scale *out) {
  ACORN_TRY(ReadFactor(factor, out));
  return out->multiplier <= 1 << 30 ? Status::kOk : Invalid();
}

Status ModelReader::Read(const void *table, ExpertsOp *out) {
  const auto &op = *static_cast<const schema::Experts *>(table);
  DType in, router, result;
  ACORN_TRY(ReadSlice(op.input(), &out->in, &in));
  ACORN_TRY(ReadSlice(op.router(), &out->router, &router));
  ACORN_TRY(ReadSlice(op.out(), &out->out, &result));
  out->set = op.set();
  out->top_k = op.top_k();
  out->scoring = static_cast<Scoring>(op.scoring());
  out->glu_shift = op.glu_shift();
  out->block = op.block();
  out->down_zero_point = op.down_zero_point();
  if (in != DType::kS8 || router != DType::kS32 || result != DType::kS16 || model_->expert_sets() == nullptr ||
      out->set >= model_->expert_sets()->size()) {
    return Invalid();
  }
  const schema::ExpertSet *set = model_->expert_sets()->Get(out->set);
  const uint32_t slices = SlicesOf(*set);
  if (slices == 0 || set->records()->size() / slices != out->router.width || set->hidden() != out->in.width ||
      set->hidden() != out->out.width || op.slices() > slices) {
    return Invalid();
  }
  out->slices = op.slices() == 0 ? slices : op.slices();
  uint64_t ffn = 0;
  for (uint32_t slice = 0; slice < out->slices; ++slice) ffn += SliceWidth(*set, slice);
  out->ffn = static_cast<uint32_t>(ffn);
  if (out->top_k == 0 || out->top_k > kMaxTopK || out->top_k > out->router.width || out->scoring < Scoring::kSoftmaxOfChosen ||
      out->scoring > Scoring::kSigmoidOfChosen || out->block == 0 || out->block > 1024 || (out->block & (out->block - 1)) != 0 ||
      ffn > kMaxWidth || ffn % out->block != 0) {
    return Invalid();
  }
  ACORN_TRY(ReadOctaves(op.octaves(), &out->octaves));
  ACORN_TRY(ReadFactor(op.glu_index(), &out->glu_index));
  ACORN_TRY(ResolveArray(op.glu_table(), 514, &out->glu_table));
  ACORN_TRY(CheckShift(op.glu_shift()));
  ACORN_TRY(ReadFactor(op.down_factor(), &out->down_factor));
  ACORN_TRY(CheckZeroPoint(out->down_zero_point, DType::kS8));
  out->shared = out->shared_gate = {};
  out->shared_octaves = {};
  if (op.shared() == nullptr) return op.shared_gate() == nullptr ? Status::kOk : Invalid();
  DType shared, gate;
  ACORN_TRY(ReadSlice(op.shared(), &out->shared, &shared));
  if (shared != DType::kS16 || out->shared.width != out->out.width) return Invalid();
  if (op.shared_gate() == nullptr) return Status::kOk;
  ACORN_TRY(ReadSlice(op.shared_gate(), &out->shared_gate, &gate));
  if (gate != DType::kS32 || out->shared_gate.width != 1) return Invalid();
  return ReadOctaves(op.shared_octaves(), &out->shared_octaves);
}

Status ModelReader::ReadStepOp(const schema::Step &step, Step *out) {
  const void *table = step.op();
  if (table == nullptr) return Invalid();
  switch (step.op_type()) {
    case schema::Op::Embedding: out->kind = OpKind::kEmbedding; return Read(table, &out->embedding);
    case schema::Op::RmsNorm: out->kind = OpKind::kRmsNorm; return Read(table, &out->rms_norm);
    case schema::Op::Linear: out->kind = OpKind::kLinear; return Read(table, &out->linear);
    case schema::Op::Rotate: out->kind = OpKind::kRotate; return Read(table, &out->rotate);
    case schema::Op::Append: out->kind = OpKind::kAppend; return Read(table, &out->append);
    case schema::Op::Attention: out->kind = OpKind::kAttention; return Read(table, &out->attention);
    case schema::Op::Glu: out->kind = OpKind::kGlu; return Read(table, &out->glu);
    case schema::Op::Hadamard: out->kind = OpKind::kHadamard; return Read(table, &out->hadamard);
    case schema::Op::Add: out->kind = OpKind::kAdd; return Read(table, &out->add);
    case schema::Op::LayerNorm: out->kind = OpKind::kLayerNorm; return Read(table, &out->layer_norm);
    case schema::Op::Experts: out->kind = OpKind::kExperts; return Read(table, &out->experts);
    case schema::Op::Conv: out->kind = OpKind::kConv; return Read(table, &out->conv);
    case schema::Op::Scan: out->kind = OpKind::kScan; return Read(table, &out->scan);
    default: return Fail(Status::kUnsupported, section_, index_, static_cast<uint64_t>(step.op_type()));
  }
}

Status ModelReader::ReadStep(StepList list, uint32_t index, Step *out) {
  const bool head = list == StepList::kHead;
  const uint32_t profile = head ? 0 : static_cast<uint32_t>(list);
  const auto step_of = [&](uint32_t p) {
    return (p == 0 ? model_->body() : model_->profiles()->Get(p - 1)->body())->Get(index);
  };
  section_ = head ? "head" : profile == 0 ? "body" : "profile";
  index_ = profile == 0 ? index : (profile - 1) * model_->body()->size() + index;
  ACORN_TRY(ReadStepOp(*(head ? model_->head()->Get(index) : step_of(profile)), out));
  // The head runs for the rows whose logits are wanted, which need not be neighbours: nothing there may know positions.
  if (head && (out->kind == OpKind::kEmbedding || out->kind == OpKind::kRotate || out->kind == OpKind::kAppend ||
               out->kind == OpKind::kAttention || out->kind == OpKind::kExperts || StateOf(*out) != kNoState)) {
    return Invalid();
  }
  const StepEdges edges = EdgesOf(*out);
  if ((edges.reads & edges.writes) != 0) return Invalid();
  if (profile == 0) return Status::kOk;
  Step wide;
  ACORN_TRY(ReadStepOp(*step_of(profile - 1), &wide));
  return IsNarrower(*out, wide) ? Status::kOk : Invalid();
}

}  // namespace acorn
