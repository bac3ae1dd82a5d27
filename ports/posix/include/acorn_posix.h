/* acorn_posix: what acorn_port asks for, on a POSIX system (Linux, Android): threads, CPU features, clock, log; and model
 * files in memory. C99, allocates; a program that wants other threads or another clock fills in acorn_port itself. */
#ifndef ACORN_POSIX_H_
#define ACORN_POSIX_H_

#include <stddef.h>
#include <stdint.h>

#include "acorn_port.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct acorn_posix acorn_posix;

/* Starts a pool of `threads` threads, the caller's among them; 0: as many as acorn_posix_cpus() says, at most 16.
 * Returns: NULL when threads or memory are not to be had. */
acorn_posix *acorn_posix_create(uint32_t threads);
/* Pins each thread of the pool, the caller's among them, to a CPU of its own: of those that this process may use, the ones that the
 * kernel calls the fastest. The threads then measure their speed, together and for about 1 ms, and where CPUs differ by more than a
 * quarter (big.LITTLE) a slow one leaves the end of each loop to the faster ones. The caller must be the thread that runs the model, and
 * later destroys the port, which lets it run where it could before. Threads that it starts meanwhile have its CPU.
 * Returns: 0; EINVAL where there are fewer CPUs than threads; ENOTSUP; or an errno value of sched_setaffinity. */
int acorn_posix_pin(acorn_posix *posix);
/* Cancels the reads that are under way and waits until the storage has let go of their memory: on a device that hangs, until the
 * system gives it up. A program that cannot wait asks acorn_posix_stop_reads first. */
void acorn_posix_destroy(acorn_posix *posix);

/* The file that port.read and port.read_submit of ports filled in from now on read; without it they have neither. No read of the
 * file of before may be under way (EBUSY).
 * Returns: 0, or an errno value and the file of before. */
int acorn_posix_set_file(acorn_posix *posix, const char *path);

/* How the files of later calls of acorn_posix_set_file are read asynchronously. Zeros are the defaults. */
#define ACORN_POSIX_READ_DEPTH_MAX 64u
#define ACORN_POSIX_READS_ANY 0u     /* io_uring where the build and the kernel have it, else threads */
#define ACORN_POSIX_READS_URING 1u   /* refused with ENOSYS where they have not */
#define ACORN_POSIX_READS_THREADS 2u /* pread on threads of their own, as many as the depth, at most 16 */
typedef struct acorn_posix_read_options {
  uint32_t struct_size;
  uint32_t depth;    /* reads under way at once, at most ACORN_POSIX_READ_DEPTH_MAX; 0: 32 */
  uint32_t method;   /* ACORN_POSIX_READS_... */
  uint32_t buffered; /* 1: through the page cache, where the file system takes direct reads too */
} acorn_posix_read_options;
/* Returns: 0, EINVAL, ENOSYS, or ENOMEM; then the options are those of before. */
int acorn_posix_set_read_options(acorn_posix *posix, const acorn_posix_read_options *options);

/* What became of it. */
typedef struct acorn_posix_read_info {
  uint32_t struct_size;
  uint32_t depth, alignment;
  uint32_t direct;    /* 1: past the page cache (O_DIRECT) */
  const char *method; /* "io_uring" or "threads"; "" before the first read */
} acorn_posix_read_info;
/* Returns: 0; EINVAL where no file is set or struct_size is another. */
int acorn_posix_get_read_info(const acorn_posix *posix, acorn_posix_read_info *info);

/* Cancels all asynchronous reads, waits at most timeout_ns (UINT64_MAX: as long as it takes) and drops their results. Called like
 * port.read_wait, by the thread that runs the model.
 * Returns: how many reads are still under way. Their memory must be left alone, and acorn_posix_destroy would wait for them. */
uint32_t acorn_posix_stop_reads(acorn_posix *posix, uint64_t timeout_ns);

/* Fills in the port; valid as long as `posix`. Messages of levels above max_log_level are dropped. A thread that has submitted
 * reads must not end while they are under way. */
void acorn_posix_port(acorn_posix *posix, acorn_port *port, uint32_t max_log_level);

/* ACORN_CPU_… bits of this machine. */
uint32_t acorn_posix_cpu_features(void);

/* CPUs that this process may run on. */
uint32_t acorn_posix_cpus(void);

/* Ticks of a monotonic clock; nanoseconds. */
uint64_t acorn_posix_ticks(void);

/* Largest resident set of this process so far, in bytes; 0 where the system does not say. */
uint64_t acorn_posix_peak_rss_bytes(void);

/* A file in memory, aligned to pages. */
typedef struct acorn_posix_file {
  const void *data;
  size_t bytes;
} acorn_posix_file;

#define ACORN_POSIX_MAP 0u  /* shared with the page cache, read as it is touched */
#define ACORN_POSIX_COPY 1u /* read at once into memory of its own, large pages where the system gives them */
#define ACORN_POSIX_MAP_POPULATED 2u /* mapped, with all pages there when the call returns; the first token comes the sooner */

/* Returns: 0, or an errno value with nothing to release. An empty file gives bytes 0 and is legal to close. */
int acorn_posix_open_file(acorn_posix_file *file, const char *path, uint32_t residency);
/* The first most_bytes bytes of it, or all where it has fewer: a model whose experts stream needs no more (acorn_image_resident). */
int acorn_posix_open_part(acorn_posix_file *file, const char *path, uint32_t residency, uint64_t most_bytes);
void acorn_posix_close_file(acorn_posix_file *file);

/* Memory for the library's block, aligned to pages; NULL when there is none. */
void *acorn_posix_allocate(size_t bytes);
/* The same in large pages where the system gives them, for a block whose caches are long or that experts are read into: storage
 * reaches memory in fewer pieces then (twice the speed of direct reads and a quarter of their CPU time, bench/results). All of it
 * soon counts as resident, not only what was touched; never more than `bytes`, in pages. */
void *acorn_posix_allocate_for_reads(size_t bytes);
void acorn_posix_release(void *memory, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif /* ACORN_POSIX_H_ */
