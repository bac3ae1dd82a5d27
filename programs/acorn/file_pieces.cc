#include "file_pieces.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "error.h"

namespace acorn::program {

FilePieces::FilePieces(const std::string &path) : path_(path) {
  file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO is refused, not waited for
  if (file_ < 0) Fail(ExitCode::kIo, "%s: %s", path.c_str(), std::strerror(errno));
  struct stat facts = {};
  if (fstat(file_, &facts) == 0 && S_ISREG(facts.st_mode)) {
    bytes_ = static_cast<uint64_t>(facts.st_size);
    return;
  }
  close(file_);
  Fail(ExitCode::kIo, "%s: not a regular file", path.c_str());
}

FilePieces::~FilePieces() { close(file_); }

void FilePieces::Read(uint64_t offset, void *to, size_t bytes) {
  auto *at = static_cast<char *>(to);
  while (bytes != 0) {
    const ssize_t got = pread(file_, at, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) Fail(ExitCode::kIo, "%s: reading at %llu: %s", path_.c_str(), static_cast<unsigned long long>(offset), std::strerror(errno));
    if (got == 0) Fail(ExitCode::kIo, "%s: became shorter while it was read", path_.c_str());
    at += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
}

void FilePieces::ForPieces(uint64_t offset, uint64_t bytes, const std::function<void(const uint8_t *, size_t)> &take) {
  piece_.resize(kPieceBytes);
  for (uint64_t done = 0; done < bytes;) {
    const auto count = static_cast<size_t>(std::min<uint64_t>(kPieceBytes, bytes - done));
    Read(offset + done, piece_.data(), count);
    take(piece_.data(), count);
    done += count;
  }
}

}  // namespace acorn::program
