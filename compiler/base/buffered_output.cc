#include "base/buffered_output.h"

#include <unistd.h>

#include <cerrno>

namespace acorn::compiler {
namespace {

constexpr size_t kBufferBytes = 1 << 16;

}  // namespace

bool WriteAll(int file, const void *data, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t count = write(file, static_cast<const uint8_t *>(data) + done, bytes - done);
    if (count < 0 && errno != EINTR) return false;
    if (count > 0) done += static_cast<size_t>(count);
  }
  return true;
}

bool SyncFile(int file) {
  while (fsync(file) != 0) {
    if (errno != EINTR) return false;
  }
  return true;
}

bool BufferedOutput::Write(const void *data, size_t bytes) {
  const auto *begin = static_cast<const uint8_t *>(data);
  if (buffer_.size() + bytes > kBufferBytes && !Flush()) return false;
  if (bytes >= kBufferBytes) return WriteAll(file_, data, bytes);
  buffer_.insert(buffer_.end(), begin, begin + bytes);
  return true;
}

bool BufferedOutput::Flush() {
  if (!WriteAll(file_, buffer_.data(), buffer_.size())) return false;
  buffer_.clear();
  return true;
}

}  // namespace acorn::compiler
