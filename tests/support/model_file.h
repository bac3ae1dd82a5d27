// Assembles the bytes of an Acorn file from segments and a finished flatbuffer. For model_builder.h and the tests of the
// reader; FORMAT.md is the description that it follows.
#pragma once

#include <cstdint>
#include <vector>

#include "acorn_schema/acorn_generated.h"

namespace acorn::test {

/// The segments of a file while it is being built.
class SegmentSet {
 public:
  /// Adds an empty segment behind the others.
  uint16_t Open(schema::SegmentKind kind);
  /// Appends bytes to a segment at the next multiple of 64 and says where they are.
  schema::Ref Put(uint16_t segment, const std::vector<uint8_t> &bytes);
  schema::Ref Put(uint16_t segment, const std::vector<int8_t> &values);
  schema::Ref Put(uint16_t segment, const std::vector<int16_t> &values);
  schema::Ref Put(uint16_t segment, const std::vector<int32_t> &values);
  schema::Ref Put(uint16_t segment, const std::vector<uint64_t> &values);

  /// The segments' entries, the first one placed behind a flatbuffer of `graph_bytes`.
  std::vector<schema::Segment> Table(uint64_t graph_bytes) const;
  /// The whole file. The entries inside `graph` are replaced by Table(graph_bytes): a flatbuffer's size does not depend
  /// on them, and it must be known before they are.
  std::vector<uint8_t> File(const uint8_t *graph, uint64_t graph_bytes) const;

 private:
  struct Pending {
    schema::SegmentKind kind;
    std::vector<uint8_t> bytes;
  };
  std::vector<Pending> segments_;
};

/// Writes magic, version, sizes and checksums of a header whose file lies at `file`. experts: offset of their first segment, 0: none
void WriteHeader(uint8_t *file, uint64_t file_bytes, uint64_t graph_bytes, uint64_t experts = 0);

}  // namespace acorn::test
