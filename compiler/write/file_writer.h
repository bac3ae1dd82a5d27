// FileWriter: the bytes of a model file: header, graph, aligned segments with checksums; written whole or not at all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/spool.h"

namespace acorn::compiler {

struct SegmentBytes {
  uint8_t kind = 0;  // schema::SegmentKind
  std::vector<uint8_t> bytes;
  uint64_t spooled_bytes = 0;  // of a segment of experts, in place of `bytes`: the next ones of the spool, whole alignments
};

/// Where a segment goes, known before the graph is: offsets depend on the graph's size, so the graph is finished twice
/// with the same size. offset from the start of the file.
struct SegmentPlace {
  uint8_t kind = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t checksum = 0;
};

/// Places of the segments behind a graph of `graph_bytes` bytes.
std::vector<SegmentPlace> PlaceSegments(const std::vector<SegmentBytes> &segments, uint64_t graph_bytes);

/// Offset of the first segment behind a graph of `graph_bytes` bytes.
uint64_t SegmentsBegin(uint64_t graph_bytes);

/// Writes header, graph and segments to `path` through a temporary file beside it and a rename. Throws Error(kIo), and
/// leaves nothing behind. Returns the size of the file.
/// experts: what the last segments are made of; may be empty
uint64_t WriteModelFile(const std::string &path, const std::vector<uint8_t> &graph, const std::vector<SegmentBytes> &segments,
                        Spool *experts);
/// The same with segments that lie as they are to lie in the file, from the first one's beginning to the last one's end.
/// experts: offset of the first segment of experts from there; 0: none
uint64_t WriteModelFile(const std::string &path, const std::vector<uint8_t> &graph, const uint8_t *segments, uint64_t bytes,
                        uint64_t experts);

}  // namespace acorn::compiler
