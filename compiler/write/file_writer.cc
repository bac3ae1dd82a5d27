#include "write/file_writer.h"

#include <algorithm>

#include "acorn_schema/acorn_generated.h"
#include "acorn_schema/file.h"
#include "base/temporary_file.h"

namespace acorn::compiler {
namespace {

uint64_t AlignUp(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

void StoreLittle(uint8_t *p, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) p[i] = static_cast<uint8_t>(value >> (8 * i));
}

/// experts: offset of the first segment of experts; 0: none.
void WriteHeaderAndGraph(TemporaryFile *file, const std::vector<uint8_t> &graph, uint64_t file_bytes, uint64_t experts) {
  uint8_t header[kHeaderBytes] = {};
  std::copy_n(kFileMagic, 8, header + kHeaderMagic);
  StoreLittle(header + kHeaderVersion, kFileVersion, 4);
  StoreLittle(header + kHeaderSize, kHeaderBytes, 4);
  StoreLittle(header + kHeaderFileBytes, file_bytes, 8);
  StoreLittle(header + kHeaderGraphOffset, kHeaderBytes, 8);
  StoreLittle(header + kHeaderGraphBytes, graph.size(), 8);
  StoreLittle(header + kHeaderGraphChecksum, Checksum(graph.data(), graph.size()), 8);
  StoreLittle(header + kHeaderExperts, experts, 8);
  StoreLittle(header + kHeaderChecksum, Checksum(header, kHeaderChecksum), 8);
  file->Write(header, sizeof header);
  file->Write(graph.data(), graph.size());
}

}  // namespace

uint64_t SegmentsBegin(uint64_t graph_bytes) { return AlignUp(kHeaderBytes + graph_bytes, kSegmentAlignment); }

std::vector<SegmentPlace> PlaceSegments(const std::vector<SegmentBytes> &segments, uint64_t graph_bytes) {
  std::vector<SegmentPlace> places;
  uint64_t offset = kHeaderBytes + graph_bytes;
  for (const SegmentBytes &segment : segments) {
    offset = AlignUp(offset, kSegmentAlignment);
    const bool experts = segment.kind == static_cast<uint8_t>(schema::SegmentKind::Experts);  // each has a checksum of its own
    const uint64_t bytes = experts ? segment.spooled_bytes : segment.bytes.size();
    places.push_back({segment.kind, offset, bytes, experts ? 0 : Checksum(segment.bytes.data(), bytes)});
    offset += bytes;
  }
  return places;
}

uint64_t WriteModelFile(const std::string &path, const std::vector<uint8_t> &graph, const std::vector<SegmentBytes> &segments,
                        Spool *experts) {
  const std::vector<SegmentPlace> places = PlaceSegments(segments, graph.size());
  const uint64_t file_bytes = places.empty() ? kHeaderBytes + graph.size() : places.back().offset + places.back().bytes;
  TemporaryFile file(path);
  const auto first_experts = std::find_if(places.begin(), places.end(), [](const SegmentPlace &place) {
    return place.kind == static_cast<uint8_t>(schema::SegmentKind::Experts);
  });
  WriteHeaderAndGraph(&file, graph, file_bytes, first_experts == places.end() ? 0 : first_experts->offset);
  for (size_t i = 0; i < segments.size(); ++i) {
    file.PadTo(places[i].offset);
    if (places[i].kind == static_cast<uint8_t>(schema::SegmentKind::Experts)) break;
    file.Write(segments[i].bytes.data(), segments[i].bytes.size());
  }
  experts->CopyTo(&file);  // their segments follow each other without a gap, as in the spool
  file.Commit();
  return file_bytes;
}

uint64_t WriteModelFile(const std::string &path, const std::vector<uint8_t> &graph, const uint8_t *segments, uint64_t bytes,
                        uint64_t experts) {
  const uint64_t begin = SegmentsBegin(graph.size());
  TemporaryFile file(path);
  WriteHeaderAndGraph(&file, graph, begin + bytes, experts == 0 ? 0 : begin + experts);
  file.PadTo(begin);
  file.Write(segments, bytes);
  file.Commit();
  return begin + bytes;
}

}  // namespace acorn::compiler
