/* acorn_simulated: a port whose storage is a device of acorn_device.h, around another port or a file in memory. Its clock is
 * virtual and goes on only while a read is waited for, so tests are exact and sleep never; or it is the other port's, and reads
 * are held back to what the device would take, so a bench on this machine sees a phone's storage. Faults are made on order or by
 * chance from a seed. C99, allocates at creation. One thread at a time calls what reads or moves the clock. */
#ifndef ACORN_SIMULATED_H_
#define ACORN_SIMULATED_H_

#include <stddef.h>
#include <stdint.h>

#include "acorn_device.h"
#include "acorn_port.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct acorn_simulated acorn_simulated;

#define ACORN_SIMULATED_DEPTH_MAX 256u
#define ACORN_SIMULATED_FAULTS_MAX 16u
#define ACORN_SIMULATED_EIO 5 /* error of a failed read */

/* What may go wrong with a read. */
#define ACORN_SIMULATED_ERROR 1u  /* fails after its time, with ACORN_SIMULATED_EIO */
#define ACORN_SIMULATED_SHORT 2u  /* brings half of its bytes, whole alignments */
#define ACORN_SIMULATED_DAMAGE 3u /* one bit of it is wrong */
#define ACORN_SIMULATED_STALL 4u  /* comes stall_ns later; a cancel ends it at once */
#define ACORN_SIMULATED_HANG 5u   /* the same, and does not hear a cancel */
#define ACORN_SIMULATED_KINDS 6u

typedef struct acorn_simulated_options {
  uint32_t struct_size;
  uint32_t depth;     /* port.read_depth, at most ACORN_SIMULATED_DEPTH_MAX; 0: the device's. More wait before the device. */
  uint32_t alignment; /* port.read_alignment; 0: the other port's, 4096 with a file in memory */
  uint32_t reserved;
  acorn_device_timing timing;
  const void *file; /* a file in memory; NULL: the other port reads, and must have read_submit */
  uint64_t file_bytes;
  uint64_t seed;
  uint64_t jitter_ns;                      /* each result comes up to so much later, by chance: out of order */
  uint64_t stall_ns;                       /* UINT64_MAX: for ever */
  uint64_t tick_ns;                        /* virtual time that a look at the clock takes */
  uint32_t chance_q16[ACORN_SIMULATED_KINDS]; /* of each kind of fault for a read, in 1/65536; [0] means nothing */
  /* Real time: sleeps until the other port's clock, which must be in nanoseconds, says so. NULL: virtual time. */
  void (*sleep_until)(void *ctx, uint64_t ticks);
  void *sleep_ctx;
} acorn_simulated_options;

/* In:      inner  what answers everything but reads and virtual time; copied
 * Returns: NULL without memory, or where the options contradict each other or `inner`. */
acorn_simulated *acorn_simulated_create(const acorn_simulated_options *options, const acorn_port *inner);
/* Waits for reads that the other port has under way. */
void acorn_simulated_destroy(acorn_simulated *simulated);
/* Fills in the port; valid as long as `simulated`. A request that breaks the rules of acorn_port.h fails read_submit. A wait
 * without end for a read that never ends fails too, in virtual time. */
void acorn_simulated_port(acorn_simulated *simulated, acorn_port *port);

/* Lets virtual time pass, as computing does. */
void acorn_simulated_advance(acorn_simulated *simulated, uint64_t ns);

/* A fault on order: the next `times` reads (UINT32_MAX: all) that touch the bytes from `offset` on have it. The first that was
 * ordered counts. Storage that has gone away is an error of all bytes, for all reads. */
typedef struct acorn_simulated_fault {
  uint32_t kind, times;
  uint64_t offset, bytes;
} acorn_simulated_fault;
/* Returns: 0, or 1 if there is no such kind or there are ACORN_SIMULATED_FAULTS_MAX already. */
int acorn_simulated_add_fault(acorn_simulated *simulated, const acorn_simulated_fault *fault);
void acorn_simulated_clear_faults(acorn_simulated *simulated);

/* Reads since the creation. */
typedef struct acorn_simulated_counts {
  uint64_t submitted, ended, failed, cancelled, bytes; /* failed and cancelled are among those ended; bytes of the good ones */
  uint32_t under_way, most_under_way;
} acorn_simulated_counts;
acorn_simulated_counts acorn_simulated_get_counts(const acorn_simulated *simulated);

#ifdef __cplusplus
}
#endif

#endif /* ACORN_SIMULATED_H_ */
