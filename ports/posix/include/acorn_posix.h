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
void acorn_posix_destroy(acorn_posix *posix);

/* The file that port.read of ports filled in from now on reads, for acorn_image_read; without it they have no read.
 * Returns: 0, or an errno value and the file of before. */
int acorn_posix_set_file(acorn_posix *posix, const char *path);

/* Fills in the port; valid as long as `posix`. Messages of levels above max_log_level are dropped. */
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

/* Returns: 0, or an errno value with nothing to release. An empty file gives bytes 0 and is legal to close. */
int acorn_posix_open_file(acorn_posix_file *file, const char *path, uint32_t residency);
void acorn_posix_close_file(acorn_posix_file *file);

/* Memory for the library's block, aligned to pages; NULL when there is none. */
void *acorn_posix_allocate(size_t bytes);
void acorn_posix_release(void *memory, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif /* ACORN_POSIX_H_ */
