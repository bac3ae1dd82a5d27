// TemporaryFile: a file that is written whole or not at all: under another name beside its own until Commit() renames it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

namespace acorn::compiler {

class TemporaryFile {
 public:
  /// Every member throws Error(kIo) naming `target` when the file cannot be written.
  explicit TemporaryFile(std::string target);
  /// Removes what was written unless Commit() was reached.
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile &) = delete;
  TemporaryFile &operator=(const TemporaryFile &) = delete;

  void Write(const void *data, size_t bytes);
  /// Zeros up to `position` bytes from the start of the file.
  void PadTo(uint64_t position);
  /// The file is there under its own name, in place of one that was there before.
  void Commit();

 private:
  [[noreturn]] void Fail();

  std::string target_;
  std::string path_;
  std::FILE *file_ = nullptr;
  uint64_t position_ = 0;
  bool committed_ = false;
};

}  // namespace acorn::compiler
