#include "write/file_writer.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "acorn_schema/file.h"
#include "base/error.h"

namespace acorn::compiler {
namespace {

uint64_t AlignUp(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

void StoreLittle(uint8_t *p, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) p[i] = static_cast<uint8_t>(value >> (8 * i));
}

/// A file that disappears unless it is renamed.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::string target) : target_(std::move(target)) {
    path_ = target_ + ".part" + std::to_string(getpid());
    file_ = std::fopen(path_.c_str(), "wb");
    if (file_ == nullptr) Fail();
  }
  ~TemporaryFile() {
    if (file_ != nullptr) std::fclose(file_);
    if (!committed_) std::remove(path_.c_str());
  }
  TemporaryFile(const TemporaryFile &) = delete;
  TemporaryFile &operator=(const TemporaryFile &) = delete;

  void Write(const uint8_t *data, size_t bytes) {
    if (bytes != 0 && std::fwrite(data, 1, bytes, file_) != bytes) Fail();
    position_ += bytes;
  }
  void PadTo(uint64_t position) {
    static const uint8_t kZeros[4096] = {};
    while (position_ < position) Write(kZeros, static_cast<size_t>(std::min<uint64_t>(sizeof kZeros, position - position_)));
  }
  void Commit() {
    if (std::fflush(file_) != 0) Fail();
    std::FILE *file = file_;
    file_ = nullptr;
    if (std::fclose(file) != 0) Fail();
    if (std::rename(path_.c_str(), target_.c_str()) != 0) Fail();
    committed_ = true;
  }
  uint64_t position() const { return position_; }

 private:
  [[noreturn]] void Fail() { throw Error(ExitCode::kIo, "cannot write " + target_ + ": " + std::strerror(errno)); }

  std::string target_;
  std::string path_;
  std::FILE *file_ = nullptr;
  uint64_t position_ = 0;
  bool committed_ = false;
};

void WriteHeaderAndGraph(TemporaryFile *file, const std::vector<uint8_t> &graph, uint64_t file_bytes) {
  uint8_t header[kHeaderBytes] = {};
  std::memcpy(header + kHeaderMagic, kFileMagic, 8);
  StoreLittle(header + kHeaderVersion, kFileVersion, 4);
  StoreLittle(header + kHeaderSize, kHeaderBytes, 4);
  StoreLittle(header + kHeaderFileBytes, file_bytes, 8);
  StoreLittle(header + kHeaderGraphOffset, kHeaderBytes, 8);
  StoreLittle(header + kHeaderGraphBytes, graph.size(), 8);
  StoreLittle(header + kHeaderGraphChecksum, Checksum(graph.data(), graph.size()), 8);
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
    places.push_back({segment.kind, offset, segment.bytes.size(), Checksum(segment.bytes.data(), segment.bytes.size())});
    offset += segment.bytes.size();
  }
  return places;
}

uint64_t WriteModelFile(const std::string &path, const std::vector<uint8_t> &graph, const std::vector<SegmentBytes> &segments) {
  const std::vector<SegmentPlace> places = PlaceSegments(segments, graph.size());
  const uint64_t file_bytes = places.empty() ? kHeaderBytes + graph.size() : places.back().offset + places.back().bytes;
  TemporaryFile file(path);
  WriteHeaderAndGraph(&file, graph, file_bytes);
  for (size_t i = 0; i < segments.size(); ++i) {
    file.PadTo(places[i].offset);
    file.Write(segments[i].bytes.data(), segments[i].bytes.size());
  }
  file.Commit();
  return file_bytes;
}

uint64_t WriteModelFile(const std::string &path, const std::vector<uint8_t> &graph, const uint8_t *segments, uint64_t bytes) {
  const uint64_t begin = SegmentsBegin(graph.size());
  TemporaryFile file(path);
  WriteHeaderAndGraph(&file, graph, begin + bytes);
  file.PadTo(begin);
  file.Write(segments, bytes);
  file.Commit();
  return begin + bytes;
}

}  // namespace acorn::compiler
