/* A pool of threads for port.c: its own, or pthreadpool. */
#ifndef ACORN_POSIX_THREADS_H_
#define ACORN_POSIX_THREADS_H_

#include "acorn_port.h"

typedef struct acorn_pool acorn_pool;

/* threads >= 2, the caller's among them. NULL: not to be had. */
acorn_pool *acorn_pool_create(uint32_t threads);
void acorn_pool_destroy(acorn_pool *pool);

/* Runs task(arg, i, thread) for i in [0, count) and waits for all. */
void acorn_pool_run(acorn_pool *pool, acorn_task task, void *arg, uint32_t count);

#endif /* ACORN_POSIX_THREADS_H_ */
