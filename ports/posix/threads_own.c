/* Threads that take tasks from one counter. A worker joins a loop if it comes while the loop is open; the caller works
 * too, closes the loop when no task is left and waits only for those who joined: a worker that sleeps or has no CPU holds
 * nobody up. Between loops workers spin for a while, since the next loop of a decode step comes within microseconds. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "threads.h"

#define SPINS 20000u
#define JOINED_BITS 8 /* state: generation, odd while a loop is open, then how many workers have joined it */
#define JOINED_MASK 0xffu
#define MAX_WORKERS JOINED_MASK

struct acorn_pool {
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  acorn_task task;
  void *arg;
  uint32_t count;
  uint32_t stop;
  uint32_t next;     /* atomic: the next task to take */
  uint32_t state;    /* atomic */
  uint32_t left;     /* atomic: workers that joined the present loop and have left it */
  uint32_t sleepers; /* atomic */
  uint32_t workers;  /* threads without the caller's */
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

static int is_new(uint32_t state, uint32_t seen) { return (state >> JOINED_BITS) % 2 == 1 && state >> JOINED_BITS != seen; }

/* Waits for an open loop other than `seen` and joins it. Returns its generation. */
static uint32_t join_loop(struct acorn_pool *pool, uint32_t seen) {
  uint32_t spins = 0;
  for (;;) {
    uint32_t state = __atomic_load_n(&pool->state, __ATOMIC_ACQUIRE);
    if (is_new(state, seen)) {
      if (__atomic_compare_exchange_n(&pool->state, &state, state + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
        return state >> JOINED_BITS;
      }
      continue;
    }
    if (spins++ < SPINS) {
      relax();
      continue;
    }
    /* Sequentially consistent with open_loop: it sees the sleeper, or the sleeper sees the loop. */
    pthread_mutex_lock(&pool->mutex);
    __atomic_fetch_add(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
    while (!is_new(__atomic_load_n(&pool->state, __ATOMIC_SEQ_CST), seen)) pthread_cond_wait(&pool->wake, &pool->mutex);
    __atomic_fetch_sub(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&pool->mutex);
    spins = 0;
  }
}

static void *work(void *context) {
  const struct worker *self = context;
  struct acorn_pool *pool = self->pool;
  for (uint32_t seen = 0;;) {
    seen = join_loop(pool, seen);
    if (pool->stop) return NULL;
    take_tasks(pool, self->thread);
    __atomic_fetch_add(&pool->left, 1, __ATOMIC_RELEASE);
  }
}

static void open_loop(struct acorn_pool *pool) {
  /* Closed: nobody else writes the state now. */
  const uint32_t generation = (__atomic_load_n(&pool->state, __ATOMIC_RELAXED) >> JOINED_BITS) + 1;
  __atomic_store_n(&pool->left, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&pool->next, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&pool->state, generation << JOINED_BITS, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&pool->sleepers, __ATOMIC_SEQ_CST) == 0) return;
  pthread_mutex_lock(&pool->mutex);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->mutex);
}

static void close_loop(struct acorn_pool *pool) {
  const uint32_t generation = __atomic_load_n(&pool->state, __ATOMIC_RELAXED) >> JOINED_BITS;
  const uint32_t state = __atomic_exchange_n(&pool->state, (generation + 1) << JOINED_BITS, __ATOMIC_ACQ_REL);
  for (uint32_t spins = 0; __atomic_load_n(&pool->left, __ATOMIC_ACQUIRE) != (state & JOINED_MASK); ++spins) {
    if (spins < SPINS) {
      relax();
    } else {
      sched_yield();
    }
  }
}

acorn_pool *acorn_pool_create(uint32_t threads) {
  if (threads - 1 > MAX_WORKERS) return NULL;
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
  open_loop(pool);
  for (uint32_t i = 0; i < pool->workers; ++i) pthread_join(pool->worker[i].handle, NULL);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->mutex);
  free(pool);
}

void acorn_pool_run(acorn_pool *pool, acorn_task task, void *arg, uint32_t count) {
  pool->task = task;
  pool->arg = arg;
  pool->count = count;
  open_loop(pool);
  take_tasks(pool, 0);
  close_loop(pool);
}
