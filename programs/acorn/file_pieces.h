// A file that is read piece by piece, for what goes over all of it and must not hold it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace acorn::program {

class FilePieces {
 public:
  static constexpr size_t kPieceBytes = 1 << 20;

  /// Throws Failure where it cannot be read.
  explicit FilePieces(const std::string &path);
  ~FilePieces();
  FilePieces(const FilePieces &) = delete;
  FilePieces &operator=(const FilePieces &) = delete;

  const std::string &path() const { return path_; }
  uint64_t bytes() const { return bytes_; }
  /// Reads a range of the file.  Throws Failure, also where the file ends before.
  void Read(uint64_t offset, void *to, size_t bytes);
  /// take(data, bytes) for a range of the file in order, kPieceBytes each but the last.  Throws as Read
  void ForPieces(uint64_t offset, uint64_t bytes, const std::function<void(const uint8_t *, size_t)> &take);

 private:
  std::string path_;
  int file_ = -1;
  uint64_t bytes_ = 0;
  std::vector<uint8_t> piece_;
};

}  // namespace acorn::program
