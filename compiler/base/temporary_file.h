// TemporaryFile: a file that appears under its name whole, or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/buffered_output.h"

namespace acorn::compiler {

/// Written beside `target` and renamed to it by Commit(); without Commit() it disappears. Everything throws Error(kIo) that
/// names the target.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::string target);
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile &) = delete;
  TemporaryFile &operator=(const TemporaryFile &) = delete;

  void Write(const void *data, size_t bytes);
  /// Zeros up to `position`.
  void PadTo(uint64_t position);
  /// On the disk, then under its name. Where it throws, the target is what it was before, or, if only the folder could not be
  /// written, the new file.
  void Commit();
  uint64_t position() const { return position_; }

 private:
  [[noreturn]] void Fail();

  std::string target_;
  std::string path_;
  int file_ = -1;
  BufferedOutput output_{-1};
  uint64_t position_ = 0;
  bool committed_ = false;
};

}  // namespace acorn::compiler
