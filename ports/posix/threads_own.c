/* Threads that each have a part of a loop's tasks, the same part of every loop as far as they go, since what they have written lies
 * in their caches, and then help with the others'. A worker joins a loop if it comes while the loop is open; the caller works too,
 * closes the loop when no task is left and waits only for those who joined: a worker that sleeps or has no CPU holds nobody up.
 * Between loops workers spin for a while, since the next loop of a decode step comes within microseconds. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "threads.h"

#define SPIN_NS 500000 /* what a program does between two tokens takes less; a core that waits longer had better sleep */
#define JOINED_BITS 8 /* state: generation, odd while a loop is open, then how many workers have joined it */
#define JOINED_MASK 0xffu
#define MAX_WORKERS JOINED_MASK
#define LINE 64 /* bytes that cores hand to one another at a time */

/* What is left of a thread's part of the present loop. It takes tasks from the front, others from the back. */
struct part {
  _Alignas(LINE) int32_t left; /* atomic; at most 0: nothing */
  uint32_t begin;
  uint32_t end;                /* atomic */
};

struct worker {
  struct acorn_pool *pool;
  uint32_t thread;
  pthread_t handle;
};

struct acorn_pool {
  _Alignas(LINE) uint32_t state; /* atomic */
  acorn_task task;
  void *arg;
  uint32_t stop;
  uint32_t workers;              /* threads without the caller's */
  struct part *part;             /* of each thread, the caller's first */
  struct worker *worker;
  _Alignas(LINE) uint32_t left;  /* atomic: workers that joined the present loop and have left it */
  uint32_t sleepers;             /* atomic */
  pthread_mutex_t mutex;
  pthread_cond_t wake;
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static int claim(struct part *part) {
  return __atomic_load_n(&part->left, __ATOMIC_RELAXED) > 0 && __atomic_fetch_sub(&part->left, 1, __ATOMIC_RELAXED) > 0;
}

/* Its own tasks, then what others have left of theirs. */
static void take_tasks(struct acorn_pool *pool, uint32_t thread) {
  const uint32_t threads = pool->workers + 1;
  struct part *part = &pool->part[thread];
  for (uint32_t task = part->begin; claim(part); ++task) pool->task(pool->arg, task, thread);
  for (uint32_t i = 1; i < threads; ++i) {
    part = &pool->part[thread + i < threads ? thread + i : thread + i - threads];
    while (claim(part)) pool->task(pool->arg, __atomic_sub_fetch(&part->end, 1, __ATOMIC_RELAXED), thread);
  }
}

static int is_new(uint32_t state, uint32_t seen) { return (state >> JOINED_BITS) % 2 == 1 && state >> JOINED_BITS != seen; }

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Relaxes once, and looks at the clock now and then. False: SPIN_NS are over.  round: 0 at first;  begin: its own */
static int spin(uint32_t *round, uint64_t *begin) {
  relax();
  if ((*round)++ % 64 != 0) return 1;
  const uint64_t now = now_ns();
  if (*round == 1) *begin = now;
  return now - *begin < SPIN_NS;
}

/* Waits for an open loop other than `seen` and joins it. Returns its generation. */
static uint32_t join_loop(struct acorn_pool *pool, uint32_t seen) {
  uint32_t round = 0;
  uint64_t begin = 0;
  for (;;) {
    uint32_t state = __atomic_load_n(&pool->state, __ATOMIC_ACQUIRE);
    if (is_new(state, seen)) {
      if (__atomic_compare_exchange_n(&pool->state, &state, state + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
        return state >> JOINED_BITS;
      }
      continue;
    }
    if (spin(&round, &begin)) continue;
    /* Sequentially consistent with open_loop: it sees the sleeper, or the sleeper sees the loop. Whoever was woken spins again, be it
     * between two loops: it would sleep through the next ones. */
    pthread_mutex_lock(&pool->mutex);
    __atomic_fetch_add(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
    const uint32_t last = __atomic_load_n(&pool->state, __ATOMIC_SEQ_CST);
    while (!is_new(last, seen) && __atomic_load_n(&pool->state, __ATOMIC_SEQ_CST) >> JOINED_BITS == last >> JOINED_BITS) {
      pthread_cond_wait(&pool->wake, &pool->mutex);
    }
    __atomic_fetch_sub(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&pool->mutex);
    round = 0;
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

static void open_loop(struct acorn_pool *pool, uint32_t count) {
  const uint32_t threads = pool->workers + 1;
  for (uint32_t t = 0; t < threads; ++t) {
    struct part *part = &pool->part[t];
    part->begin = (uint32_t)((uint64_t)count * t / threads);
    part->end = (uint32_t)((uint64_t)count * (t + 1) / threads);
    part->left = (int32_t)(part->end - part->begin);
  }
  /* Closed: nobody else writes the state now. */
  const uint32_t generation = (__atomic_load_n(&pool->state, __ATOMIC_RELAXED) >> JOINED_BITS) + 1;
  __atomic_store_n(&pool->left, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&pool->state, generation << JOINED_BITS, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&pool->sleepers, __ATOMIC_SEQ_CST) == 0) return;
  pthread_mutex_lock(&pool->mutex);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->mutex);
}

static void close_loop(struct acorn_pool *pool) {
  const uint32_t generation = __atomic_load_n(&pool->state, __ATOMIC_RELAXED) >> JOINED_BITS;
  const uint32_t state = __atomic_exchange_n(&pool->state, (generation + 1) << JOINED_BITS, __ATOMIC_ACQ_REL);
  uint32_t round = 0;
  uint64_t begin = 0;
  while (__atomic_load_n(&pool->left, __ATOMIC_ACQUIRE) != (state & JOINED_MASK)) {
    if (!spin(&round, &begin)) sched_yield();
  }
}

static void free_pool(struct acorn_pool *pool) {
  free(pool->part);
  free(pool->worker);
  free(pool);
}

acorn_pool *acorn_pool_create(uint32_t threads) {
  if (threads - 1 > MAX_WORKERS) return NULL;
  void *memory;
  if (posix_memalign(&memory, LINE, sizeof(struct acorn_pool)) != 0) return NULL;
  struct acorn_pool *pool = memory;
  *pool = (struct acorn_pool){0};
  if (posix_memalign(&memory, LINE, threads * sizeof *pool->part) == 0) pool->part = memory;
  pool->worker = calloc(threads - 1, sizeof *pool->worker);
  if (pool->part == NULL || pool->worker == NULL) {
    free_pool(pool);
    return NULL;
  }
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
  open_loop(pool, 0);
  for (uint32_t i = 0; i < pool->workers; ++i) pthread_join(pool->worker[i].handle, NULL);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->mutex);
  free_pool(pool);
}

void acorn_pool_run(acorn_pool *pool, acorn_task task, void *arg, uint32_t count) {
  pool->task = task;
  pool->arg = arg;
  open_loop(pool, count);
  take_tasks(pool, 0);
  close_loop(pool);
}
