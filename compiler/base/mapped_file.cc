#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace acorn::compiler {
namespace {

[[noreturn]] void Fail(const std::string &path, const char *what) {
  throw Error(ExitCode::kIo, path + ": " + what + ": " + std::strerror(errno));
}

}  // namespace

MappedFile::MappedFile(const std::string &path) : path_(path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO is refused, not waited for
  if (fd < 0) Fail(path, "cannot open");
  struct stat info;
  if (fstat(fd, &info) != 0) {
    close(fd);
    Fail(path, "cannot read its size");
  }
  if (!S_ISREG(info.st_mode)) {
    close(fd);
    throw Error(ExitCode::kIo, path + ": not a regular file");
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ > 0) {
    void *data = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
      close(fd);
      Fail(path, "cannot map");
    }
    data_ = static_cast<const uint8_t *>(data);
  }
  close(fd);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t *>(data_), size_);
}

void MappedFile::Release(size_t offset, size_t size) const {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page;  // whole pages inside the range only
  const size_t end = (offset + size) / page * page;
  if (data_ == nullptr || begin >= end || end > size_) return;
  madvise(const_cast<uint8_t *>(data_) + begin, end - begin, MADV_DONTNEED);
}

}  // namespace acorn::compiler
