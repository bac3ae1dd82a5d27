/* Asynchronous reads for port.c: the file, the table of reads under way, and two ways to read behind it. One thread at a time
 * calls. */
#ifndef ACORN_POSIX_READS_H_
#define ACORN_POSIX_READS_H_

#include <stddef.h>
#include <stdint.h>

#include "acorn_port.h"
#include "acorn_posix.h"

/* One read under way. */
typedef struct acorn_read {
  acorn_read_request request;
  size_t done;            /* bytes that are at request.to */
  int32_t error;          /* as in acorn_read_result */
  uint32_t cancelled;     /* atomic: read_cancel was called for it */
  uint32_t used;          /* is under way */
  struct acorn_read *next; /* in the free list, or in a list of the backend's */
} acorn_read;

typedef struct acorn_read_list {
  acorn_read *first, *last;
} acorn_read_list;

void acorn_read_list_add(acorn_read_list *list, acorn_read *read);
acorn_read *acorn_read_list_take(acorn_read_list *list); /* NULL: empty */

typedef struct acorn_reads acorn_reads;

/* A way to read. Each keeps its own state in acorn_reads.state. */
typedef struct acorn_read_backend {
  const char *name;
  /* Returns: 0, or an errno value with nothing to stop. */
  int (*start)(acorn_reads *reads);
  /* No read is under way. */
  void (*stop)(acorn_reads *reads);
  void (*push)(acorn_reads *reads, acorn_read *read);
  /* After the last push of a call. Returns: 0 or an errno value. */
  int (*flush)(acorn_reads *reads);
  /* Takes a read that has ended; *read is NULL where none has before the time. deadline_ns: 0 only looks, UINT64_MAX for ever.
   * Returns: 0 or an errno value. */
  int (*pop)(acorn_reads *reads, uint64_t deadline_ns, acorn_read **read);
  void (*cancel)(acorn_reads *reads, acorn_read *read);
} acorn_read_backend;

extern const acorn_read_backend acorn_read_threads;
#if defined(ACORN_HAVE_URING)
extern const acorn_read_backend acorn_read_uring;
#endif

struct acorn_reads {
  int fd;
  uint32_t depth, alignment, under_way;
  uint32_t direct;   /* past the page cache */
  uint32_t buffered; /* through it, as asked for */
  const acorn_read_backend *wanted;  /* NULL: the best that can be had */
  const acorn_read_backend *backend; /* NULL until the first read */
  void *state;
  acorn_read_list free;
  acorn_read reads[]; /* [depth] */
};

/* Opens the file of `path` anew, which must be the one that `fd` is, for direct reads if it can be.
 * Returns: 0 or an errno value. */
int acorn_reads_create(acorn_reads **reads, const char *path, int fd, const acorn_posix_read_options *options);
/* Waits for the reads that are under way. */
void acorn_reads_destroy(acorn_reads *reads);
/* Returns: 0 or an errno value; ENOSYS where the build or the kernel has no io_uring. */
int acorn_reads_check(const acorn_posix_read_options *options);

/* As the callbacks of acorn_port; they return errno values. */
int acorn_reads_submit(acorn_reads *reads, const acorn_read_request *requests, size_t count, size_t *accepted);
int acorn_reads_wait(acorn_reads *reads, acorn_read_result *results, size_t capacity, uint64_t timeout_ns, size_t *count);
int acorn_reads_cancel(acorn_reads *reads, uint64_t id);
/* Cancels all and drops their results. Returns: how many are still under way after the time. */
uint32_t acorn_reads_stop(acorn_reads *reads, uint64_t timeout_ns);

/* For the backends: the part of a read that one call to the system is asked for, at most 1 GiB. */
size_t acorn_read_step(const acorn_read *read);
/* Takes in what the system said to it: bytes, or a negative errno value. Returns 1 when the read has ended, 0 when its rest is to
 * be asked for. */
int acorn_read_advance(const acorn_reads *reads, acorn_read *read, int64_t got);

#endif /* ACORN_POSIX_READS_H_ */
