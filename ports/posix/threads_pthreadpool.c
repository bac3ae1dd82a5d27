#include <pthreadpool.h>

#include "threads.h"

/* A task needs both numbers as 32 bits. */
struct call {
  acorn_task task;
  void *arg;
};

static void run_one(void *context, size_t thread, size_t index) {
  const struct call *call = context;
  call->task(call->arg, (uint32_t)index, (uint32_t)thread);
}

acorn_pool *acorn_pool_create(uint32_t threads) { return (acorn_pool *)pthreadpool_create(threads); }

void acorn_pool_destroy(acorn_pool *pool) { pthreadpool_destroy((pthreadpool_t)pool); }

void acorn_pool_run(acorn_pool *pool, acorn_task task, void *arg, uint32_t count) {
  struct call call = {task, arg};
  pthreadpool_parallelize_1d_with_thread((pthreadpool_t)pool, run_one, &call, count, 0);
}
