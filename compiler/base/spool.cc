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
  if (file_ != nullptr) std::fclose(file_);
}

void Spool::Write(const void *data, size_t bytes) {
  if (file_ == nullptr) {
    const std::string path = target_ + ".spool" + std::to_string(getpid());
    file_ = std::fopen(path.c_str(), "w+b");
    if (file_ == nullptr || unlink(path.c_str()) != 0) Fail();
  }
  if (std::fwrite(data, 1, bytes, file_) != bytes) Fail();
  bytes_ += bytes;
}

void Spool::CopyTo(TemporaryFile *file) {
  if (file_ == nullptr) return;
  if (std::fflush(file_) != 0 || std::fseek(file_, 0, SEEK_SET) != 0) Fail();
  std::vector<uint8_t> buffer(size_t{1} << 20);
  for (uint64_t left = bytes_; left != 0;) {
    const size_t count = static_cast<size_t>(std::min<uint64_t>(buffer.size(), left));
    if (std::fread(buffer.data(), 1, count, file_) != count) Fail();
    file->Write(buffer.data(), count);
    left -= count;
  }
}

void Spool::Fail() { throw Error(ExitCode::kIo, "cannot write " + target_ + ": " + std::strerror(errno)); }

}  // namespace acorn::compiler
