/* Loops shared out among threads on CPUs of different speed (big.LITTLE): each takes the next task when it is free, and a slow one
 * leaves the last tasks to the faster ones, which would else wait for it. */
#ifndef ACORN_POSIX_SHARES_H_
#define ACORN_POSIX_SHARES_H_

#include <sched.h>

#include "threads.h"

#define ACORN_SHARES_MAX 256u /* threads; others share as equals */

typedef struct acorn_shares {
  uint32_t threads;
  uint32_t differ;                     /* 0: all are as fast, and there is nothing to share out */
  uint32_t reserve[ACORN_SHARES_MAX];  /* of a thread: tasks that the faster ones do while it does one */
#if defined(__linux__)
  int pinned;
  cpu_set_t before; /* where the thread that pinned might run */
#endif
} acorn_shares;

/* speeds: of `threads` threads, in any unit, not 0. Those within a quarter of each other count as alike. */
void acorn_shares_set(acorn_shares *shares, const uint64_t *speeds, uint32_t threads);

/* As acorn_pool_run. */
void acorn_shares_run(const acorn_shares *shares, acorn_pool *pool, acorn_task task, void *arg, uint32_t count);

/* Pins the pool's threads, the caller's first, to CPUs of this process, each to its own, by the kernel's word for their speed
 * (cpu_capacity, else the largest frequency) the fastest ones; then all measure theirs at the same time, some 1 ms.
 * Returns: 0 | EINVAL: fewer CPUs than threads, or more threads than ACORN_SHARES_MAX | ENOTSUP | errno of the first that failed;
 * then some may be pinned */
int acorn_shares_pin(acorn_shares *shares, acorn_pool *pool, uint32_t threads);

/* Lets the caller, which has pinned, run where it could before. */
void acorn_shares_unpin(acorn_shares *shares);

#endif /* ACORN_POSIX_SHARES_H_ */
