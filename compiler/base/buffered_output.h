// BufferedOutput: bytes on their way to a file. stdio would lose its buffer to a signal; nothing here is lost to one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace acorn::compiler {

/// Each call here goes on after a signal and after a write that took less; false: errno says why not.
[[nodiscard]] bool WriteAll(int file, const void *data, size_t bytes);
/// Returns when all that was written is on the disk.
[[nodiscard]] bool SyncFile(int file);

/// Not the owner of the file.
class BufferedOutput {
 public:
  explicit BufferedOutput(int file) : file_(file) {}

  [[nodiscard]] bool Write(const void *data, size_t bytes);
  [[nodiscard]] bool Flush();

 private:
  int file_;
  std::vector<uint8_t> buffer_;
};

}  // namespace acorn::compiler
