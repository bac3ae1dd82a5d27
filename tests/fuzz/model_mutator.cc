// Changes model files behind their checksums: a number somewhere in the graph, a list of the graph longer, shorter or in another
// order, bytes of a segment, the header; then all checksums are set right, of experts' records too. One change in 32 is blind.
#include <algorithm>

#include "acorn_schema/acorn_generated.h"
#include "acorn_schema/expert_record.h"
#include "acorn_schema/file.h"
#include "tests/fuzz/fuzz.h"

namespace acorn::fuzz {
namespace {

using File = std::vector<uint8_t>;

void Put(File *file, uint64_t at, uint64_t value) { std::memcpy(file->data() + at, &value, 8); }

uint64_t Align(uint64_t value) { return (value + kSegmentAlignment - 1) / kSegmentAlignment * kSegmentAlignment; }

/// As far as the file goes.
uint64_t GraphBytes(const File &file) {
  return std::min<uint64_t>(LoadLittle64(file.data() + kHeaderGraphBytes), file.size() - kHeaderBytes);
}

/// The verifier of this version of FlatBuffers lets lists of structs stand anywhere; reading such a one here is undefined.
template <typename T>
bool IsReadable(const flatbuffers::Vector<const T *> *list) {
  return list == nullptr || reinterpret_cast<uintptr_t>(list->Data()) % alignof(T) == 0;
}

/// Null where it is none.
const schema::Model *Graph(const File &file) {
  flatbuffers::Verifier verifier(file.data() + kHeaderBytes, GraphBytes(file), 16);
  if (!schema::VerifyModelBuffer(verifier)) return nullptr;
  const schema::Model *model = schema::GetModel(file.data() + kHeaderBytes);
  if (!IsReadable(model->segments())) return nullptr;
  if (model->expert_sets() == nullptr) return model;
  for (const schema::ExpertSet *set : *model->expert_sets()) {
    if (!IsReadable(set->records())) return nullptr;
  }
  return model;
}

bool IsInside(const File &file, const schema::Segment &segment) {
  return segment.offset() <= file.size() && segment.bytes() <= file.size() - segment.offset();
}

/// Bytes of a slice's record, 0 where its numbers make none.
uint64_t RecordBytesOf(const schema::ExpertSet &set, const schema::ExpertRecord &record, uint32_t ffn) {
  constexpr uint32_t kMost = 1 << 20;
  const auto is_format = [](uint8_t format) { return format >= 1 && format <= static_cast<uint8_t>(WeightFormat::kW2G32); };
  if (set.hidden() == 0 || set.hidden() > kMost || ffn == 0 || ffn > kMost || !is_format(record.format()) ||
      !is_format(record.down_format()) || set.layout() < 1 || set.layout() > static_cast<uint8_t>(Layout::kX8C2S4)) {
    return 0;
  }
  const expert::Shape shape = {set.hidden(), ffn, static_cast<WeightFormat>(record.format()),
                               static_cast<WeightFormat>(record.down_format()), static_cast<Layout>(set.layout())};
  for (size_t part = 0; part < expert::kParts; ++part) {
    if (!expert::IsLegal(expert::MatrixOf(shape, part))) return 0;
  }
  return expert::RecordBytes(shape);
}

void SealRecords(File *file, const schema::Model &model, const schema::ExpertSet &set) {
  if (set.records() == nullptr || model.segments() == nullptr || set.segment() >= model.segments()->size()) return;
  const schema::Segment &segment = *model.segments()->Get(set.segment());
  const size_t slices = set.slices() == nullptr ? 0 : set.slices()->size();
  for (flatbuffers::uoffset_t i = 0; i < set.records()->size(); ++i) {
    const schema::ExpertRecord *record = set.records()->Get(i);
    const uint32_t ffn = slices == 0 ? set.ffn() : set.slices()->Get(i % static_cast<flatbuffers::uoffset_t>(slices));
    const uint64_t bytes = RecordBytesOf(set, *record, ffn), begin = segment.offset() + record->offset();
    if (bytes == 0 || !IsInside(*file, segment) || record->offset() > segment.bytes() || bytes > segment.bytes() - record->offset()) {
      continue;
    }
    const uint64_t place = static_cast<uint64_t>(reinterpret_cast<const uint8_t *>(record) - file->data());
    Put(file, place + sizeof record->offset(), RecordChecksum(file->data() + begin, bytes));
  }
}

/// Sets every checksum right that the graph names, as far as it is one.
void SealSegments(File *file) {
  const schema::Model *model = Graph(*file);
  if (model == nullptr || model->segments() == nullptr) return;
  for (const schema::Segment *segment : *model->segments()) {
    if (!IsInside(*file, *segment) || segment->kind() == schema::SegmentKind::Experts) continue;
    const uint64_t place = static_cast<uint64_t>(reinterpret_cast<const uint8_t *>(segment) - file->data());
    Put(file, place + sizeof(schema::Segment) - 8, Checksum(file->data() + segment->offset(), segment->bytes()));
  }
  if (model->expert_sets() == nullptr) return;
  for (const schema::ExpertSet *set : *model->expert_sets()) SealRecords(file, *model, *set);
}

void SealHeader(File *file) {
  Put(file, kHeaderGraphChecksum, Checksum(file->data() + kHeaderBytes, GraphBytes(*file)));
  Put(file, kHeaderChecksum, Checksum(file->data(), kHeaderChecksum));
}

/// Takes an element out, puts one of `spare` in, or changes two for each other.
template <typename T>
void ChangeList(Chooser *chooser, std::vector<T> *list, std::vector<T> *spare) {
  const uint64_t place = chooser->Below(list->size() + 1);
  if (!spare->empty() && chooser->OneIn(3)) {
    list->insert(list->begin() + static_cast<int64_t>(place), std::move((*spare)[chooser->Below(spare->size())]));
  } else if (place < list->size() && chooser->OneIn(2)) {
    list->erase(list->begin() + static_cast<int64_t>(place));
  } else if (place < list->size()) {
    std::swap((*list)[place], (*list)[chooser->Below(list->size())]);
  }
}

void ChangeSomeList(Chooser *chooser, schema::ModelT *model, schema::ModelT *spare) {
  switch (chooser->Below(12)) {
    case 0: return ChangeList(chooser, &model->segments, &spare->segments);
    case 1: return ChangeList(chooser, &model->values, &spare->values);
    case 2: return ChangeList(chooser, &model->weights, &spare->weights);
    case 3: return ChangeList(chooser, &model->ropes, &spare->ropes);
    case 4: return ChangeList(chooser, &model->caches, &spare->caches);
    case 5: return ChangeList(chooser, &model->head, &spare->head);
    case 6: return ChangeList(chooser, &model->expert_sets, &spare->expert_sets);
    case 7: return ChangeList(chooser, &model->states, &spare->states);
    case 8: return ChangeList(chooser, &model->profiles, &spare->profiles);
    case 9: return ChangeList(chooser, &model->prefix_tokens, &spare->prefix_tokens);
    case 10:
      if (model->profiles.empty()) return;
      return ChangeList(chooser, &model->profiles[chooser->Below(model->profiles.size())]->body, &spare->body);
    default: return ChangeList(chooser, &model->body, &spare->body);
  }
}

/// The file with another graph; what lies behind it moves as far as the graph's size asks for.
void PutGraph(File *file, schema::ModelT *model) {
  const uint64_t before = std::min<uint64_t>(Align(kHeaderBytes + GraphBytes(*file)), file->size());
  flatbuffers::FlatBufferBuilder sized;
  sized.Finish(schema::Model::Pack(sized, model), schema::ModelIdentifier());
  const uint64_t after = Align(kHeaderBytes + sized.GetSize());
  for (schema::Segment &segment : model->segments) {
    segment = schema::Segment(segment.kind(), segment.offset() - before + after, segment.bytes(), segment.checksum());
  }
  flatbuffers::FlatBufferBuilder placed;
  placed.Finish(schema::Model::Pack(placed, model), schema::ModelIdentifier());
  File moved(after);
  std::copy_n(file->data(), kHeaderBytes, moved.data());
  std::copy_n(placed.GetBufferPointer(), placed.GetSize(), moved.data() + kHeaderBytes);
  moved.insert(moved.end(), file->begin() + static_cast<int64_t>(before), file->end());
  const uint64_t experts = LoadLittle64(file->data() + kHeaderExperts);
  Put(&moved, kHeaderGraphBytes, placed.GetSize());
  Put(&moved, kHeaderExperts, experts == 0 ? 0 : experts - before + after);
  *file = std::move(moved);
}

void ChangeGraphNumber(Chooser *chooser, File *file) {
  const size_t bytes = size_t{1} << chooser->Below(4);
  const uint64_t places = GraphBytes(*file) / bytes;
  if (places == 0) return;
  uint8_t *at = file->data() + kHeaderBytes + chooser->Below(places) * bytes;
  if (chooser->OneIn(8)) {  // what stands elsewhere: an offset, an index, a size
    std::memmove(at, file->data() + kHeaderBytes + chooser->Below(places) * bytes, bytes);
  } else {
    chooser->ChangeNumber(at, bytes);
  }
}

void ChangeSegment(Chooser *chooser, File *file) {
  const schema::Model *model = Graph(*file);
  if (model == nullptr || model->segments() == nullptr || model->segments()->size() == 0) return;
  const schema::Segment segment = *model->segments()->Get(static_cast<uint32_t>(chooser->Below(model->segments()->size())));
  if (!IsInside(*file, segment) || segment.bytes() < 8) return;
  for (uint64_t i = 0; i <= chooser->Below(4); ++i) {
    const size_t bytes = size_t{1} << chooser->Below(4);
    chooser->ChangeNumber(file->data() + segment.offset() + chooser->Below(segment.bytes() / bytes) * bytes, bytes);
  }
}

/// The verifier lets a step pass that names an operator and has none; FlatBuffers cannot write such a one again.
bool HasOperators(const flatbuffers::Vector<flatbuffers::Offset<schema::Step>> *steps) {
  return steps == nullptr || std::all_of(steps->begin(), steps->end(), [](const schema::Step *step) { return step->op() != nullptr; });
}

bool HasOperators(const schema::Model &model) {
  if (!HasOperators(model.body()) || !HasOperators(model.head())) return false;
  return model.profiles() == nullptr || std::all_of(model.profiles()->begin(), model.profiles()->end(), [](const schema::Profile *profile) {
    return HasOperators(profile->body());
  });
}

void ChangeGraph(Chooser *chooser, File *file) {
  const schema::Model *model = Graph(*file);
  if (model == nullptr || !HasOperators(*model)) return ChangeGraphNumber(chooser, file);
  const std::unique_ptr<schema::ModelT> changed(model->UnPack()), spare(model->UnPack());
  ChangeSomeList(chooser, changed.get(), spare.get());
  PutGraph(file, changed.get());
}

}  // namespace
}  // namespace acorn::fuzz

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
  using namespace acorn;
  using namespace acorn::fuzz;
  Chooser chooser(seed);
  if (size < kHeaderBytes + 64 || chooser.OneIn(32)) return LLVMFuzzerMutate(data, size, max_size);
  File file(data, data + size);
  bool header_stays = true;
  for (uint64_t i = 0; i <= chooser.Below(3); ++i) {
    switch (chooser.Below(16)) {
      case 0: chooser.ChangeNumber(file.data() + 4 * chooser.Below(kHeaderBytes / 4), 4), header_stays = false; break;
      case 1:
      case 2:
      case 3: ChangeGraph(&chooser, &file); break;
      case 4:
      case 5:
      case 6:
      case 7: ChangeSegment(&chooser, &file); break;
      default: ChangeGraphNumber(&chooser, &file); break;
    }
  }
  if (file.size() > max_size) return size;
  if (header_stays) Put(&file, kHeaderFileBytes, file.size());
  SealSegments(&file);
  SealHeader(&file);
  std::copy(file.begin(), file.end(), data);
  return file.size();
}
