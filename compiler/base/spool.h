// Spool: bytes that are put aside on the disk until their place in a file is known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "base/buffered_output.h"
#include "base/temporary_file.h"

namespace acorn::compiler {

/// A file without a name in the folder of `target`, which is gone with the process however that ends. Everything throws
/// Error(kIo) that names the target. Nothing is created before the first byte.
class Spool {
 public:
  explicit Spool(std::string target) : target_(std::move(target)) {}
  ~Spool();
  Spool(const Spool &) = delete;
  Spool &operator=(const Spool &) = delete;

  void Write(const void *data, size_t bytes);
  /// Appends all bytes to `file`.
  void CopyTo(TemporaryFile *file);
  uint64_t bytes() const { return bytes_; }

 private:
  [[noreturn]] void Fail();

  std::string target_;
  int file_ = -1;
  BufferedOutput output_{-1};
  uint64_t bytes_ = 0;
};

}  // namespace acorn::compiler
