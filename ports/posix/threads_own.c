/* Threads that take tasks from one counter. Between loops they spin for a while, since the next loop of a decode step
 * comes within microseconds, and then sleep. */
#include <pthread.h>
#include <stdlib.h>

#include "threads.h"

#define SPINS 20000u

struct acorn_pool {
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  acorn_task task;
  void *arg;
  uint32_t count;
  uint32_t next;       /* atomic: the next task to take */
  uint32_t generation; /* atomic: counts the loops */
  uint32_t working;    /* atomic: threads that have not finished the present loop */
  uint32_t stop;
  uint32_t workers; /* threads without the caller's */
  struct worker {
    struct acorn_pool *pool;
    uint32_t thread;
    pthread_t handle;
  } worker[];
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void take_tasks(struct acorn_pool *pool, uint32_t thread) {
  for (;;) {
    const uint32_t index = __atomic_fetch_add(&pool->next, 1, __ATOMIC_RELAXED);
    if (index >= pool->count) return;
    pool->task(pool->arg, index, thread);
  }
}

static void *work(void *context) {
  struct worker *self = context;
  struct acorn_pool *pool = self->pool;
  uint32_t seen = 0;
  for (;;) {
    uint32_t spins = 0;
    while (__atomic_load_n(&pool->generation, __ATOMIC_ACQUIRE) == seen && spins++ < SPINS) relax();
    if (__atomic_load_n(&pool->generation, __ATOMIC_ACQUIRE) == seen) {
      pthread_mutex_lock(&pool->mutex);
      while (__atomic_load_n(&pool->generation, __ATOMIC_ACQUIRE) == seen) pthread_cond_wait(&pool->wake, &pool->mutex);
      pthread_mutex_unlock(&pool->mutex);
    }
    seen = __atomic_load_n(&pool->generation, __ATOMIC_ACQUIRE);
    if (pool->stop) return NULL;
    take_tasks(pool, self->thread);
    __atomic_fetch_sub(&pool->working, 1, __ATOMIC_RELEASE);
  }
}

/* Every worker sees each generation exactly once: the next one is not announced before all have left this one. */
static void announce(struct acorn_pool *pool) {
  __atomic_store_n(&pool->working, pool->workers, __ATOMIC_RELAXED);
  pthread_mutex_lock(&pool->mutex);
  __atomic_fetch_add(&pool->generation, 1, __ATOMIC_RELEASE);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->mutex);
}

acorn_pool *acorn_pool_create(uint32_t threads) {
  struct acorn_pool *pool = calloc(1, sizeof *pool + (threads - 1) * sizeof pool->worker[0]);
  if (pool == NULL) return NULL;
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->wake, NULL);
  for (; pool->workers < threads - 1; ++pool->workers) {
    struct worker *worker = &pool->worker[pool->workers];
    worker->pool = pool;
    worker->thread = pool->workers + 1;
    if (pthread_create(&worker->handle, NULL, work, worker) != 0) {
      acorn_pool_destroy(pool);
      return NULL;
    }
  }
  return pool;
}

void acorn_pool_destroy(acorn_pool *pool) {
  if (pool == NULL) return;
  pool->stop = 1;
  announce(pool);
  for (uint32_t i = 0; i < pool->workers; ++i) pthread_join(pool->worker[i].handle, NULL);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->mutex);
  free(pool);
}

void acorn_pool_run(acorn_pool *pool, acorn_task task, void *arg, uint32_t count) {
  pool->task = task;
  pool->arg = arg;
  pool->count = count;
  __atomic_store_n(&pool->next, 0, __ATOMIC_RELAXED);
  announce(pool);
  take_tasks(pool, 0);
  while (__atomic_load_n(&pool->working, __ATOMIC_ACQUIRE) != 0) relax();
}
