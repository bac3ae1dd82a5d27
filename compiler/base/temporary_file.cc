#include "base/temporary_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace acorn::compiler {

TemporaryFile::TemporaryFile(std::string target) : target_(std::move(target)) {
  path_ = target_ + ".part" + std::to_string(getpid());
  file_ = std::fopen(path_.c_str(), "wb");
  if (file_ == nullptr) Fail();
}

TemporaryFile::~TemporaryFile() {
  if (file_ != nullptr) std::fclose(file_);
  if (!committed_) std::remove(path_.c_str());
}

void TemporaryFile::Write(const void *data, size_t bytes) {
  if (bytes != 0 && std::fwrite(data, 1, bytes, file_) != bytes) Fail();
  position_ += bytes;
}

void TemporaryFile::PadTo(uint64_t position) {
  static const uint8_t kZeros[4096] = {};
  while (position_ < position) Write(kZeros, static_cast<size_t>(std::min<uint64_t>(sizeof kZeros, position - position_)));
}

void TemporaryFile::Commit() {
  if (std::fflush(file_) != 0 || fsync(fileno(file_)) != 0) Fail();
  std::FILE *file = file_;
  file_ = nullptr;
  if (std::fclose(file) != 0) Fail();
  if (std::rename(path_.c_str(), target_.c_str()) != 0) Fail();
  committed_ = true;
}

void TemporaryFile::Fail() { throw Error(ExitCode::kIo, "cannot write " + target_ + ": " + std::strerror(errno)); }

}  // namespace acorn::compiler
