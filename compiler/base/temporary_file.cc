#include "base/temporary_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace acorn::compiler {
namespace {

// The new name is on the disk too. File systems that cannot say so of a folder (EINVAL) do it by themselves or not at all.
bool SyncFolderOf(const std::string &path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash == 0 ? 1 : slash);
  const int file = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return false;
  const int error = SyncFile(file) || errno == EINVAL ? 0 : errno;
  close(file);
  errno = error;
  return error == 0;
}

}  // namespace

TemporaryFile::TemporaryFile(std::string target)
    : target_(std::move(target)), path_(target_ + ".part" + std::to_string(getpid())) {
  // A device or a folder would be replaced by a file.
  struct stat found = {};
  if (stat(target_.c_str(), &found) == 0 && !S_ISREG(found.st_mode)) {
    throw Error(ExitCode::kIo, "cannot write " + target_ + ": it is not a regular file");
  }
  file_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file_ < 0) Fail();
  output_ = BufferedOutput(file_);
}

TemporaryFile::~TemporaryFile() {
  if (file_ >= 0) close(file_);
  if (!committed_) std::remove(path_.c_str());
}

void TemporaryFile::Write(const void *data, size_t bytes) {
  if (!output_.Write(data, bytes)) Fail();
  position_ += bytes;
}

void TemporaryFile::PadTo(uint64_t position) {
  static const uint8_t kZeros[4096] = {};
  while (position_ < position) Write(kZeros, static_cast<size_t>(std::min<uint64_t>(sizeof kZeros, position - position_)));
}

void TemporaryFile::Commit() {
  if (!output_.Flush() || !SyncFile(file_)) Fail();
  const int file = std::exchange(file_, -1);
  if (close(file) != 0 && errno != EINTR) Fail();  // after a signal it is closed all the same
  if (std::rename(path_.c_str(), target_.c_str()) != 0) Fail();
  committed_ = true;
  if (!SyncFolderOf(target_)) Fail();
}

void TemporaryFile::Fail() { throw Error(ExitCode::kIo, "cannot write " + target_ + ": " + std::strerror(errno)); }

}  // namespace acorn::compiler
