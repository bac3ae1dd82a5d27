// A mapped file is followed by zeros up to the end of its page, where no sanitizer looks. Here they are poisoned. The linker sends
// the importers' calls of mmap and munmap to these (--wrap).
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

namespace {

size_t WholePages(size_t size) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (size + page - 1) / page * page;
}

}  // namespace

extern "C" {

void *__real_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *address, size_t size);

void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
  void *data = __real_mmap(address, size, protection, flags, fd, offset);
  if (data != MAP_FAILED) ASAN_POISON_MEMORY_REGION(static_cast<uint8_t *>(data) + size, WholePages(size) - size);
  return data;
}

int __wrap_munmap(void *address, size_t size) {
  ASAN_UNPOISON_MEMORY_REGION(address, WholePages(size));
  return __real_munmap(address, size);
}

}  // extern "C"
