#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "acorn_posix.h"
#include "files.h"
#include "reads.h"
#include "shares.h"

#define DEFAULT_THREADS_LIMIT 16u /* small models gain nothing from more: loops of a decode step take microseconds */

struct acorn_posix {
  acorn_pool *pool;   /* NULL: one thread */
  acorn_shares shares;
  int fd;             /* what the port's read reads; -1: none */
  char *path;         /* of fd, for messages */
  acorn_reads *reads; /* of fd's file; NULL: none */
  acorn_posix_read_options read_options;
  uint32_t threads;
  uint32_t max_log_level;
};

uint32_t acorn_posix_cpus(void) {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return (uint32_t)CPU_COUNT(&set);
#endif
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? (uint32_t)online : 1;
}

uint64_t acorn_posix_ticks(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* getrusage's maximum survives exec and so may be the parent's; Linux keeps one for each address space. */
uint64_t acorn_posix_peak_rss_bytes(void) {
#if defined(__linux__)
  FILE *status = fopen("/proc/self/status", "r");
  if (status != NULL) {
    char line[256];
    unsigned long long kib = 0;
    while (fgets(line, sizeof line, status) != NULL && sscanf(line, "VmHWM: %llu kB", &kib) != 1) {
    }
    fclose(status);
    if (kib != 0) return (uint64_t)kib * 1024;
  }
  struct rusage usage;
  return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
#else
  return 0;
#endif
}

acorn_posix *acorn_posix_create(uint32_t threads) {
  if (threads == 0) {
    threads = acorn_posix_cpus();
    if (threads > DEFAULT_THREADS_LIMIT) threads = DEFAULT_THREADS_LIMIT;
  }
  acorn_posix *posix = calloc(1, sizeof *posix);
  if (posix == NULL) return NULL;
  posix->threads = threads;
  posix->fd = -1;
  posix->read_options.struct_size = sizeof posix->read_options;
  if (threads > 1) {
    posix->pool = acorn_pool_create(threads);
    if (posix->pool == NULL) {
      free(posix);
      return NULL;
    }
  }
  return posix;
}

int acorn_posix_pin(acorn_posix *posix) { return acorn_shares_pin(&posix->shares, posix->pool, posix->threads); }

void acorn_posix_destroy(acorn_posix *posix) {
  if (posix == NULL) return;
  acorn_reads_destroy(posix->reads);
  if (posix->pool != NULL) acorn_pool_destroy(posix->pool);
  acorn_shares_unpin(&posix->shares);
  if (posix->fd >= 0) close(posix->fd);
  free(posix->path);
  free(posix);
}

int acorn_posix_set_file(acorn_posix *posix, const char *path) {
  if (posix->reads != NULL && posix->reads->under_way != 0) return EBUSY;
  int fd;
  uint64_t bytes;
  int error = acorn_open_file(&fd, &bytes, path);
  if (error != 0) return error;
  char *name = strdup(path);
  acorn_reads *reads = NULL;
  error = name == NULL ? ENOMEM : acorn_reads_create(&reads, path, fd, &posix->read_options);
  if (error != 0) {
    free(name);
    close(fd);
    return error;
  }
  acorn_reads_destroy(posix->reads);
  if (posix->fd >= 0) close(posix->fd);
  free(posix->path);
  posix->fd = fd;
  posix->path = name;
  posix->reads = reads;
  return 0;
}

int acorn_posix_set_read_options(acorn_posix *posix, const acorn_posix_read_options *options) {
  const int error = acorn_reads_check(options);
  if (error == 0) posix->read_options = *options;
  return error;
}

int acorn_posix_get_read_info(const acorn_posix *posix, acorn_posix_read_info *info) {
  const acorn_reads *reads = posix->reads;
  if (info->struct_size != sizeof *info || reads == NULL) return EINVAL;
  *info = (acorn_posix_read_info){sizeof *info, reads->depth, reads->alignment, reads->direct,
                                  reads->backend == NULL ? "" : reads->backend->name};
  return 0;
}

uint32_t acorn_posix_stop_reads(acorn_posix *posix, uint64_t timeout_ns) {
  return posix->reads == NULL ? 0 : acorn_reads_stop(posix->reads, timeout_ns);
}

static void log_message(void *ctx, uint32_t level, const char *message, size_t bytes) {
  const acorn_posix *posix = ctx;
  if (level > posix->max_log_level) return;
  fprintf(stderr, "acorn: %s%.*s\n", level == 0 ? "error: " : level == 1 ? "warning: " : "", (int)bytes, message);
}

static uint64_t ticks(void *ctx) {
  (void)ctx;
  return acorn_posix_ticks();
}

static void parallel_for(void *ctx, acorn_task task, void *arg, uint32_t count) {
  const acorn_posix *posix = ctx;
  acorn_shares_run(&posix->shares, posix->pool, task, arg, count);
}

static int read_file(void *ctx, void *to, uint64_t offset, size_t bytes) {
  const acorn_posix *posix = ctx;
  return acorn_read_at(posix->fd, to, offset, bytes);
}

/* Said when it begins to matter, and once: a program that reads nothing asynchronously need not know. */
static void tell_buffered(acorn_posix *posix) {
  char message[512];
  const int bytes = snprintf(message, sizeof message, "%s: the file system takes no direct reads; reading through the page cache",
                             posix->path);
  if (bytes > 0) log_message(posix, 1, message, (size_t)bytes < sizeof message ? (size_t)bytes : sizeof message - 1);
}

static int read_submit(void *ctx, const acorn_read_request *requests, size_t count, size_t *accepted) {
  acorn_posix *posix = ctx;
  acorn_reads *reads = posix->reads;
  if (reads->backend == NULL && !reads->direct && !reads->buffered) tell_buffered(posix);
  return acorn_reads_submit(reads, requests, count, accepted);
}

static int read_wait(void *ctx, acorn_read_result *results, size_t capacity, uint64_t timeout_ticks, size_t *count) {
  const acorn_posix *posix = ctx;
  return acorn_reads_wait(posix->reads, results, capacity, timeout_ticks, count);
}

static int read_cancel(void *ctx, uint64_t id) {
  const acorn_posix *posix = ctx;
  return acorn_reads_cancel(posix->reads, id);
}

void acorn_posix_port(acorn_posix *posix, acorn_port *port, uint32_t max_log_level) {
  posix->max_log_level = max_log_level;
  memset(port, 0, sizeof *port);
  port->struct_size = sizeof *port;
  port->cpu_features = acorn_posix_cpu_features();
  port->threads = posix->threads;
  port->ctx = posix;
  port->log = log_message;
  port->ticks = ticks;
  port->ticks_per_second = 1000000000u;
  port->parallel_for = posix->pool != NULL ? parallel_for : NULL;
  if (posix->fd < 0) return;
  port->read = read_file;
  port->read_depth = posix->reads->depth;
  port->read_alignment = posix->reads->alignment;
  port->read_submit = read_submit;
  port->read_wait = read_wait;
  port->read_cancel = read_cancel;
}
