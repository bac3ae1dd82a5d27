#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "acorn_posix.h"

static void *map_anonymous(size_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

/* Reads a whole file into memory of its own. Returns 0 or an errno value. */
static int read_file(acorn_posix_file *file, int fd, size_t bytes) {
  char *memory = map_anonymous(bytes);
  if (memory == NULL) return ENOMEM;
#if defined(MADV_HUGEPAGE)
  (void)madvise(memory, bytes, MADV_HUGEPAGE); /* only speed depends on it */
#endif
  for (size_t done = 0; done < bytes;) {
    const ssize_t count = read(fd, memory + done, bytes - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      const int error = count < 0 ? errno : EIO; /* shorter than fstat said */
      munmap(memory, bytes);
      return error;
    }
    done += (size_t)count;
  }
  (void)mprotect(memory, bytes, PROT_READ);
  file->data = memory;
  return 0;
}

static int map_file(acorn_posix_file *file, int fd, size_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return errno;
  (void)madvise(memory, bytes, MADV_WILLNEED); /* starts reading ahead; only speed depends on it */
  file->data = memory;
  return 0;
}

int acorn_posix_open_file(acorn_posix_file *file, const char *path, uint32_t residency) {
  file->data = NULL;
  file->bytes = 0;
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  struct stat status;
  int error = 0;
  if (fstat(fd, &status) != 0) {
    error = errno;
  } else if (S_ISDIR(status.st_mode)) {
    error = EISDIR;
  } else if (!S_ISREG(status.st_mode)) {
    error = EINVAL;
  } else if (status.st_size > 0) {
    const size_t bytes = (size_t)status.st_size;
    error = residency == ACORN_POSIX_COPY ? read_file(file, fd, bytes) : map_file(file, fd, bytes);
    if (error == 0) file->bytes = bytes;
  }
  close(fd);
  return error;
}

void acorn_posix_close_file(acorn_posix_file *file) {
  if (file->bytes != 0) munmap((void *)file->data, file->bytes);
  file->data = NULL;
  file->bytes = 0;
}

void *acorn_posix_allocate(size_t bytes) { return bytes == 0 ? NULL : map_anonymous(bytes); }

void acorn_posix_release(void *memory, size_t bytes) {
  if (memory != NULL) munmap(memory, bytes);
}
