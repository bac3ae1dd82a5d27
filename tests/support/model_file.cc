#include "tests/support/model_file.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "acorn_schema/file.h"
#include "tests/support/model_builder.h"

namespace acorn::test {
namespace {

uint64_t Align(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

void Store(uint8_t *to, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) to[i] = static_cast<uint8_t>(value >> (8 * i));
}

template <typename T>
std::vector<uint8_t> Little(const std::vector<T> &values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  for (size_t i = 0; i < values.size(); ++i) {
    Store(bytes.data() + i * sizeof(T), static_cast<uint64_t>(values[i]), sizeof(T));
  }
  return bytes;
}

}  // namespace

uint16_t SegmentSet::Open(schema::SegmentKind kind) {
  segments_.push_back({kind, {}});
  return static_cast<uint16_t>(segments_.size() - 1);
}

schema::Ref SegmentSet::Put(uint16_t index, const std::vector<uint8_t> &bytes) {
  std::vector<uint8_t> &segment = segments_[index].bytes;
  segment.resize(Align(segment.size(), kRefAlignment));
  const uint64_t offset = segment.size();
  segment.insert(segment.end(), bytes.begin(), bytes.end());
  return schema::Ref(index, offset, bytes.size());
}

schema::Ref SegmentSet::Put(uint16_t index, const std::vector<int8_t> &values) { return Put(index, Little(values)); }
schema::Ref SegmentSet::Put(uint16_t index, const std::vector<int16_t> &values) { return Put(index, Little(values)); }
schema::Ref SegmentSet::Put(uint16_t index, const std::vector<int32_t> &values) { return Put(index, Little(values)); }
schema::Ref SegmentSet::Put(uint16_t index, const std::vector<uint64_t> &values) { return Put(index, Little(values)); }

std::vector<schema::Segment> SegmentSet::Table(uint64_t graph_bytes) const {
  std::vector<schema::Segment> table;
  uint64_t offset = kHeaderBytes + graph_bytes;
  for (const Pending &segment : segments_) {
    offset = Align(offset, kSegmentAlignment);
    table.emplace_back(segment.kind, offset, segment.bytes.size(), Checksum(segment.bytes.data(), segment.bytes.size()));
    offset += segment.bytes.size();
  }
  return table;
}

std::vector<uint8_t> SegmentSet::File(const uint8_t *graph, uint64_t graph_bytes) const {
  const std::vector<schema::Segment> table = Table(graph_bytes);
  std::vector<uint8_t> file(table.back().offset() + table.back().bytes());
  std::copy(graph, graph + graph_bytes, file.begin() + kHeaderBytes);
  const auto *entries = schema::GetModel(file.data() + kHeaderBytes)->segments();
  for (size_t i = 0; i < table.size(); ++i) {
    std::memcpy(const_cast<schema::Segment *>(entries->Get(static_cast<flatbuffers::uoffset_t>(i))), &table[i],
                sizeof(schema::Segment));
    std::copy(segments_[i].bytes.begin(), segments_[i].bytes.end(), file.begin() + static_cast<int64_t>(table[i].offset()));
  }
  uint64_t experts = 0;
  for (const schema::Segment &segment : table) {
    if (segment.kind() == schema::SegmentKind::Experts && experts == 0) experts = segment.offset();
  }
  WriteHeader(file.data(), file.size(), graph_bytes, experts);
  return file;
}

void WriteHeader(uint8_t *file, uint64_t file_bytes, uint64_t graph_bytes, uint64_t experts) {
  std::memcpy(file + kHeaderMagic, kFileMagic, 8);
  Store(file + kHeaderVersion, kFileVersion, 4);
  Store(file + kHeaderSize, kHeaderBytes, 4);
  Store(file + kHeaderFileBytes, file_bytes, 8);
  Store(file + kHeaderGraphOffset, kHeaderBytes, 8);
  Store(file + kHeaderGraphBytes, graph_bytes, 8);
  Store(file + kHeaderGraphChecksum, Checksum(file + kHeaderBytes, graph_bytes), 8);
  Store(file + kHeaderExperts, experts, 8);
  Store(file + kHeaderChecksum, Checksum(file, kHeaderChecksum), 8);
}

void AlignedBytes::Free::operator()(uint8_t *data) const { std::free(data); }

AlignedBytes::AlignedBytes(const std::vector<uint8_t> &bytes)
    : data_(static_cast<uint8_t *>(std::aligned_alloc(kSegmentAlignment, Align(bytes.size() + 1, kSegmentAlignment)))),
      size_(bytes.size()) {
  std::copy(bytes.begin(), bytes.end(), data_.get());
}

AlignedBytes::AlignedBytes(const AlignedBytes &other)
    : AlignedBytes(std::vector<uint8_t>(other.data(), other.data() + other.size())) {}

AlignedBytes &AlignedBytes::operator=(const AlignedBytes &other) {
  AlignedBytes copy(other);
  *this = std::move(copy);
  return *this;
}

void Reseal(AlignedBytes *file) {
  uint8_t *graph = file->data() + kHeaderBytes;
  const uint64_t graph_bytes = LoadLittle64(file->data() + kHeaderGraphBytes);
  const auto *segments = schema::GetModel(graph)->segments();
  for (flatbuffers::uoffset_t i = 0; i < segments->size(); ++i) {
    const schema::Segment *segment = segments->Get(i);
    const uint64_t checksum = Checksum(file->data() + segment->offset(), segment->bytes());
    auto *entry = reinterpret_cast<uint8_t *>(const_cast<schema::Segment *>(segment));
    Store(entry + sizeof(schema::Segment) - 8, checksum, 8);  // the struct's last member
  }
  Store(file->data() + kHeaderGraphChecksum, Checksum(graph, graph_bytes), 8);
  Store(file->data() + kHeaderChecksum, Checksum(file->data(), kHeaderChecksum), 8);
}

bool WriteModel(const AlignedBytes &file, const std::string &path) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char *>(file.data()), static_cast<std::streamsize>(file.size()));
  return static_cast<bool>(out.flush());
}

}  // namespace acorn::test
