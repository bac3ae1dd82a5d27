#include "reads.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALIGNMENT_DEFAULT 4096u /* for direct reads, where the system does not say */
#define ALIGNMENT_MAX 16384u    /* of acorn_port */
#define DEPTH_DEFAULT 32u       /* what eMMC, UFS and SATA queue */
#define STEP_BYTES ((size_t)1 << 30)

void acorn_read_list_add(acorn_read_list *list, acorn_read *read) {
  read->next = NULL;
  if (list->first == NULL) {
    list->first = read;
  } else {
    list->last->next = read;
  }
  list->last = read;
}

acorn_read *acorn_read_list_take(acorn_read_list *list) {
  acorn_read *read = list->first;
  if (read != NULL) list->first = read->next;
  return read;
}

size_t acorn_read_step(const acorn_read *read) {
  const size_t rest = read->request.bytes - read->done;
  return rest < STEP_BYTES ? rest : STEP_BYTES;
}

/* The pages of a read through the page cache would push out what is mapped: they are in the caller's memory now. */
static void drop_pages(const acorn_reads *reads, const acorn_read *read) {
  if (!reads->direct) {
    (void)posix_fadvise(reads->fd, (off_t)read->request.offset, (off_t)read->request.bytes, POSIX_FADV_DONTNEED);
  }
}

int acorn_read_advance(const acorn_reads *reads, acorn_read *read, int64_t got) {
  const int cancelled = __atomic_load_n(&read->cancelled, __ATOMIC_RELAXED) != 0;
  if (got >= 0) {
    read->done += (size_t)got;
    /* A direct read that ends off the alignment ended at the end of the file; there is no reading on from there. */
    if (read->done != read->request.bytes && got != 0 && read->done % reads->alignment == 0) {
      if (!cancelled) return 0;
      read->error = ACORN_READ_CANCELLED;
    }
  } else if (got == -EINTR || got == -EAGAIN || got == -ECANCELED) {
    if (!cancelled) return 0;
    read->error = ACORN_READ_CANCELLED;
  } else {
    read->error = (int32_t)-got;
  }
  drop_pages(reads, read);
  return 1;
}

/* The alignment that direct reads of a file need, as far as the system says; 0: it takes none. */
static uint32_t direct_alignment(int fd) {
#if defined(STATX_DIOALIGN) && !defined(__ANDROID__) /* there statx may be forbidden, by a signal */
  struct statx status;
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 && (status.stx_mask & STATX_DIOALIGN) != 0) {
    const uint32_t memory = status.stx_dio_mem_align, offset = status.stx_dio_offset_align;
    return offset == 0 ? 0 : memory > offset ? memory : offset;
  }
#else
  (void)fd;
#endif
  return ALIGNMENT_DEFAULT;
}

/* Some file systems open for direct reads and then refuse each. */
static int takes_direct(int fd, uint32_t alignment) {
  void *memory;
  if (alignment == 0 || alignment > ALIGNMENT_MAX || (alignment & (alignment - 1)) != 0 ||
      posix_memalign(&memory, ALIGNMENT_MAX, alignment) != 0) {
    return 0;
  }
  const ssize_t got = pread(fd, memory, alignment, 0);
  free(memory);
  return got >= 0;
}

/* Opens the file of `path` for the reads, directly where that goes. Returns: 0 or an errno value. */
static int open_reads(acorn_reads *reads, const char *path) {
#if defined(O_DIRECT)
  if (!reads->buffered) {
    reads->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
    if (reads->fd >= 0) {
      reads->alignment = direct_alignment(reads->fd);
      reads->direct = 1;
      if (takes_direct(reads->fd, reads->alignment)) return 0;
      close(reads->fd);
    }
  }
#endif
  reads->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (reads->fd < 0) return errno;
  reads->direct = 0;
  reads->alignment = 1;
  (void)posix_fadvise(reads->fd, 0, 0, POSIX_FADV_RANDOM); /* what is next to an expert is not what comes next */
  return 0;
}

static int is_same_file(int a, int b) {
  struct stat first, second;
  return fstat(a, &first) == 0 && fstat(b, &second) == 0 && first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

int acorn_reads_check(const acorn_posix_read_options *options) {
  if (options->struct_size != sizeof *options || options->depth > ACORN_POSIX_READ_DEPTH_MAX ||
      options->method > ACORN_POSIX_READS_THREADS || options->buffered > 1) {
    return EINVAL;
  }
  if (options->method != ACORN_POSIX_READS_URING) return 0;
#if defined(ACORN_HAVE_URING)
  acorn_reads trial = {.depth = 1};
  const int error = acorn_read_uring.start(&trial);
  if (error == 0) acorn_read_uring.stop(&trial);
  return error == 0 || error == ENOMEM ? error : ENOSYS;
#else
  return ENOSYS;
#endif
}

int acorn_reads_create(acorn_reads **out, const char *path, int fd, const acorn_posix_read_options *options) {
  const uint32_t depth = options->depth == 0 ? DEPTH_DEFAULT : options->depth;
  acorn_reads *reads = calloc(1, sizeof *reads + depth * sizeof reads->reads[0]);
  if (reads == NULL) return ENOMEM;
  reads->depth = depth;
  reads->buffered = options->buffered;
  for (uint32_t i = 0; i < depth; ++i) acorn_read_list_add(&reads->free, &reads->reads[i]);
  if (options->method == ACORN_POSIX_READS_THREADS) reads->wanted = &acorn_read_threads;
#if defined(ACORN_HAVE_URING)
  if (options->method == ACORN_POSIX_READS_URING) reads->wanted = &acorn_read_uring;
#endif
  int error = open_reads(reads, path);
  if (error == 0 && !is_same_file(reads->fd, fd)) {
    close(reads->fd);
    error = ESTALE; /* replaced in between */
  }
  if (error != 0) {
    free(reads);
    return error;
  }
  *out = reads;
  return 0;
}

void acorn_reads_destroy(acorn_reads *reads) {
  if (reads == NULL) return;
  (void)acorn_reads_stop(reads, UINT64_MAX);
  if (reads->backend != NULL) reads->backend->stop(reads);
  close(reads->fd);
  free(reads);
}

static int start(acorn_reads *reads) {
#if defined(ACORN_HAVE_URING)
  /* Containers and old kernels often forbid it. */
  if (reads->wanted != &acorn_read_threads && acorn_read_uring.start(reads) == 0) {
    reads->backend = &acorn_read_uring;
    return 0;
  }
#endif
  const int error = acorn_read_threads.start(reads);
  if (error == 0) reads->backend = &acorn_read_threads;
  return error;
}

static acorn_read *find(acorn_reads *reads, uint64_t id) {
  for (uint32_t i = 0; i < reads->depth; ++i) {
    if (reads->reads[i].used && reads->reads[i].request.id == id) return &reads->reads[i];
  }
  return NULL;
}

static int is_legal(const acorn_reads *reads, const acorn_read_request *request) {
  const uint64_t unaligned = (uintptr_t)request->to | request->offset | request->bytes;
  return request->to != NULL && request->bytes != 0 && unaligned % reads->alignment == 0 && request->offset <= INT64_MAX &&
         request->bytes <= INT64_MAX - request->offset && (uint64_t)(off_t)request->offset == request->offset;
}

int acorn_reads_submit(acorn_reads *reads, const acorn_read_request *requests, size_t count, size_t *accepted) {
  *accepted = 0;
  int error = reads->backend == NULL ? start(reads) : 0;
  if (error != 0) return error;
  for (; *accepted < count && reads->under_way < reads->depth; ++*accepted) {
    const acorn_read_request *request = &requests[*accepted];
    if (!is_legal(reads, request)) {
      error = EINVAL;
      break;
    }
    acorn_read *read = acorn_read_list_take(&reads->free);
    *read = (acorn_read){.request = *request, .used = 1};
    ++reads->under_way;
    reads->backend->push(reads, read);
  }
  const int flushed = *accepted == 0 ? 0 : reads->backend->flush(reads);
  return error != 0 ? error : flushed;
}

static uint64_t deadline(uint64_t timeout_ns) {
  if (timeout_ns == 0) return 0;
  const uint64_t now = acorn_posix_ticks();
  return timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
}

int acorn_reads_wait(acorn_reads *reads, acorn_read_result *results, size_t capacity, uint64_t timeout_ns, size_t *count) {
  uint64_t until = deadline(timeout_ns);
  for (*count = 0; *count < capacity && reads->under_way != 0; ++*count) {
    acorn_read *read;
    const int error = reads->backend->pop(reads, until, &read);
    if (error != 0) return error;
    if (read == NULL) break;
    results[*count] = (acorn_read_result){read->request.id, read->error == 0 ? read->done : 0, read->error};
    read->used = 0;
    acorn_read_list_add(&reads->free, read);
    --reads->under_way;
    until = 0; /* the rest only as far as it is there */
  }
  return 0;
}

static void cancel(acorn_reads *reads, acorn_read *read) {
  if (__atomic_exchange_n(&read->cancelled, 1, __ATOMIC_RELAXED) == 0) reads->backend->cancel(reads, read);
}

int acorn_reads_cancel(acorn_reads *reads, uint64_t id) {
  acorn_read *read = find(reads, id);
  if (read == NULL) return ENOENT;
  cancel(reads, read);
  return 0;
}

uint32_t acorn_reads_stop(acorn_reads *reads, uint64_t timeout_ns) {
  for (uint32_t i = 0; i < reads->depth; ++i) {
    if (reads->reads[i].used) cancel(reads, &reads->reads[i]);
  }
  const uint64_t until = deadline(timeout_ns);
  while (reads->under_way != 0) {
    const uint64_t now = acorn_posix_ticks();
    acorn_read_result result;
    size_t count;
    const uint64_t left = until == UINT64_MAX ? UINT64_MAX : until > now ? until - now : 0;
    if (acorn_reads_wait(reads, &result, 1, left, &count) != 0 || count == 0) break;
  }
  return reads->under_way;
}
