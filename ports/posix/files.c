#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "acorn_posix.h"
#include "files.h"

#define LARGE_PAGE_BYTES ((size_t)2 << 20) /* beside pages of 4 KiB, on x86-64 and AArch64 */

int acorn_read_at(int fd, void *to, uint64_t offset, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const uint64_t at = offset + done;
    if (at > INT64_MAX || (uint64_t)(off_t)at != at) return EINVAL;
    const ssize_t count = pread(fd, (char *)to + done, bytes - done, (off_t)at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    if (count == 0) return EIO; /* the file ends before */
    done += (size_t)count;
  }
  return 0;
}

int acorn_open_file(int *fd, uint64_t *bytes, const char *path) {
  const int opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would wait for its writer */
  if (opened < 0) return errno;
  struct stat status;
  int error = 0;
  if (fstat(opened, &status) != 0) {
    error = errno;
  } else if (S_ISDIR(status.st_mode)) {
    error = EISDIR;
  } else if (!S_ISREG(status.st_mode)) {
    error = EINVAL;
  }
  if (error != 0) {
    close(opened);
    return error;
  }
  *fd = opened;
  *bytes = (uint64_t)status.st_size;
  return 0;
}

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
  const int error = acorn_read_at(fd, memory, 0, bytes);
  if (error != 0) {
    munmap(memory, bytes);
    return error;
  }
  (void)mprotect(memory, bytes, PROT_READ);
  file->data = memory;
  return 0;
}

static int map_file(acorn_posix_file *file, int fd, size_t bytes, int populate) {
  int flags = MAP_SHARED;
#if defined(MAP_POPULATE)
  if (populate) flags |= MAP_POPULATE;
#else
  (void)populate; /* only speed depends on it */
#endif
  void *memory = mmap(NULL, bytes, PROT_READ, flags, fd, 0);
  if (memory == MAP_FAILED) return errno;
#if defined(MADV_HUGEPAGE)
  (void)madvise(memory, bytes, MADV_HUGEPAGE); /* where the file system can, what is read from now on comes in large pages */
#endif
  (void)madvise(memory, bytes, MADV_WILLNEED); /* starts reading ahead; only speed depends on it */
  file->data = memory;
  return 0;
}

int acorn_posix_open_part(acorn_posix_file *file, const char *path, uint32_t residency, uint64_t most_bytes) {
  file->data = NULL;
  file->bytes = 0;
  int fd = -1;
  uint64_t bytes = 0;
  int error = acorn_open_file(&fd, &bytes, path);
  if (error != 0) return error;
  if (bytes > most_bytes) bytes = most_bytes;
  if (bytes > SIZE_MAX) {
    error = EFBIG;
  } else if (bytes > 0) {
    error = residency == ACORN_POSIX_COPY ? read_file(file, fd, (size_t)bytes)
                                          : map_file(file, fd, (size_t)bytes, residency == ACORN_POSIX_MAP_POPULATED);
    if (error == 0) file->bytes = (size_t)bytes;
  }
  close(fd);
  return error;
}

int acorn_posix_open_file(acorn_posix_file *file, const char *path, uint32_t residency) {
  return acorn_posix_open_part(file, path, residency, UINT64_MAX);
}

void acorn_posix_close_file(acorn_posix_file *file) {
  if (file->bytes != 0) munmap((void *)file->data, file->bytes);
  file->data = NULL;
  file->bytes = 0;
}

void *acorn_posix_allocate(size_t bytes) { return bytes == 0 ? NULL : map_anonymous(bytes); }

void *acorn_posix_allocate_for_reads(size_t bytes) {
#if defined(MADV_HUGEPAGE)
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  if (bytes == 0 || bytes > SIZE_MAX - LARGE_PAGE_BYTES - page) return NULL;
  const size_t rounded = (bytes + page - 1) / page * page;
  char *memory = map_anonymous(rounded + LARGE_PAGE_BYTES);
  if (memory == NULL) return NULL;
  /* Only whole large pages that begin where one may are given. */
  const size_t before = (LARGE_PAGE_BYTES - (uintptr_t)memory % LARGE_PAGE_BYTES) % LARGE_PAGE_BYTES;
  if (before != 0) munmap(memory, before);
  munmap(memory + before + rounded, LARGE_PAGE_BYTES - before);
  (void)madvise(memory + before, rounded, MADV_HUGEPAGE);
  return memory + before;
#else
  return acorn_posix_allocate(bytes);
#endif
}

void acorn_posix_release(void *memory, size_t bytes) {
  if (memory != NULL) munmap(memory, bytes);
}
