#include "base/spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace acorn::compiler {

Spool::~Spool() {
  if (file_ >= 0) close(file_);
}

void Spool::Write(const void *data, size_t bytes) {
  if (file_ < 0) {
    const std::string path = target_ + ".spool" + std::to_string(getpid());
    file_ = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file_ < 0 || unlink(path.c_str()) != 0) Fail();
    output_ = BufferedOutput(file_);
  }
  if (!output_.Write(data, bytes)) Fail();
  bytes_ += bytes;
}

void Spool::CopyTo(TemporaryFile *file) {
  if (file_ < 0) return;
  if (!output_.Flush()) Fail();
  std::vector<uint8_t> buffer(size_t{1} << 20);
  for (uint64_t done = 0; done < bytes_;) {
    const size_t most = static_cast<size_t>(std::min<uint64_t>(buffer.size(), bytes_ - done));
    const ssize_t count = pread(file_, buffer.data(), most, static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) errno = EIO;  // it became shorter
    if (count <= 0) Fail();
    file->Write(buffer.data(), static_cast<size_t>(count));
    done += static_cast<uint64_t>(count);
  }
}

void Spool::Fail() { throw Error(ExitCode::kIo, "cannot write " + target_ + ": " + std::strerror(errno)); }

}  // namespace acorn::compiler
