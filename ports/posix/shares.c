#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "acorn_posix.h"
#include "shares.h"

void acorn_shares_set(acorn_shares *shares, const uint64_t *speeds, uint32_t threads) {
  shares->threads = threads;
  shares->differ = 0;
  for (uint32_t t = 0; t < threads; ++t) {
    uint64_t faster = 0;
    for (uint32_t other = 0; other < threads; ++other) {
      if (speeds[other] > speeds[t] + speeds[t] / 4) faster += speeds[other];
    }
    shares->reserve[t] = (uint32_t)(faster / speeds[t]);
    if (shares->reserve[t] != 0) shares->differ = 1;
  }
}

struct loop {
  const acorn_shares *shares;
  acorn_task task;
  void *arg;
  uint32_t count;
  _Atomic uint32_t next;
};

/* One of the threads until there is nothing left for it. The fastest leave nothing. */
static void take_tasks(void *arg, uint32_t index, uint32_t thread) {
  struct loop *loop = arg;
  const uint32_t reserve = loop->shares->reserve[thread];
  (void)index;
  uint32_t next = atomic_load_explicit(&loop->next, memory_order_relaxed);
  while (next < loop->count && loop->count - next >= reserve) {
    if (!atomic_compare_exchange_weak_explicit(&loop->next, &next, next + 1, memory_order_relaxed, memory_order_relaxed)) continue;
    loop->task(loop->arg, next, thread);
    next = atomic_load_explicit(&loop->next, memory_order_relaxed);
  }
}

void acorn_shares_run(const acorn_shares *shares, acorn_pool *pool, acorn_task task, void *arg, uint32_t count) {
  if (!shares->differ) {
    acorn_pool_run(pool, task, arg, count);
    return;
  }
  struct loop loop = {shares, task, arg, count, 0};
  acorn_pool_run(pool, take_tasks, &loop, shares->threads);
  /* A thread may have stood in for a faster one that came late, and left its reserve. */
  while (loop.next < count) task(arg, loop.next++, 0);
}

#if defined(__linux__)

struct cpu {
  int number;
  unsigned long long rank;
};

/* The kernel's word for a CPU's speed; 0 where it says none. */
static unsigned long long rank_of(int cpu) {
  static const char *const names[] = {"cpu_capacity", "cpufreq/cpuinfo_max_freq"};
  unsigned long long rank = 0;
  for (size_t i = 0; i < sizeof names / sizeof *names && rank == 0; ++i) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", cpu, names[i]);
    FILE *file = fopen(path, "r");
    if (file == NULL) continue;
    if (fscanf(file, "%llu", &rank) != 1) rank = 0;
    fclose(file);
  }
  return rank;
}

/* CPUs of this process, the fastest first, those alike in order. Returns how many, at most ACORN_SHARES_MAX. */
static uint32_t list_cpus(struct cpu *cpus) {
  cpu_set_t set;
  uint32_t count = 0;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 0;
  for (int number = 0; number < CPU_SETSIZE && count < ACORN_SHARES_MAX; ++number) {
    if (!CPU_ISSET(number, &set)) continue;
    const struct cpu cpu = {number, rank_of(number)};
    uint32_t place = count++;
    for (; place > 0 && cpus[place - 1].rank < cpu.rank; --place) cpus[place] = cpus[place - 1];
    cpus[place] = cpu;
  }
  return count;
}

struct pinning {
  struct cpu cpus[ACORN_SHARES_MAX];
  uint64_t speeds[ACORN_SHARES_MAX];
  uint32_t threads;
  _Atomic uint32_t arrived, pinned;
  _Atomic int error;
};

/* All threads are here, each with one task of the loop: none has two. */
static void wait_for_all(_Atomic uint32_t *arrived, uint32_t threads) {
  atomic_fetch_add(arrived, 1);
  while (atomic_load(arrived) < threads) sched_yield();
}

/* Sums of products of bytes, as the kernels' work: the best of some tries, in products a millisecond. */
static uint64_t measure_speed(void) {
  enum { BYTES = 4096, TRIES = 8, PASSES = 16 };
  signed char a[BYTES], b[BYTES];
  volatile int32_t sink = 0;
  uint64_t best = UINT64_MAX;
  for (int i = 0; i < BYTES; ++i) {
    a[i] = (signed char)(i * 7);
    b[i] = (signed char)(i * 5);
  }
  for (int i = 0; i < TRIES; ++i) {
    const uint64_t begin = acorn_posix_ticks();
    for (int pass = 0; pass < PASSES; ++pass) {
      int32_t sum = sink;
      for (int k = 0; k < BYTES; ++k) sum += a[k] * b[k];
      sink = sum;
    }
    const uint64_t taken = acorn_posix_ticks() - begin;
    if (taken < best) best = taken;
  }
  return (uint64_t)BYTES * PASSES * 1000000u / (best != 0 ? best : 1) + 1;
}

static void pin_one(void *arg, uint32_t index, uint32_t thread) {
  struct pinning *pinning = arg;
  cpu_set_t set;
  (void)index;
  wait_for_all(&pinning->arrived, pinning->threads);
  CPU_ZERO(&set);
  CPU_SET(pinning->cpus[thread].number, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) atomic_store(&pinning->error, errno);
  wait_for_all(&pinning->pinned, pinning->threads);
  pinning->speeds[thread] = measure_speed();
}

int acorn_shares_pin(acorn_shares *shares, acorn_pool *pool, uint32_t threads) {
  struct pinning pinning;
  memset(&pinning, 0, sizeof pinning);
  pinning.threads = threads;
  acorn_shares_unpin(shares);
  if (threads > ACORN_SHARES_MAX || list_cpus(pinning.cpus) < threads) return EINVAL;
  if (sched_getaffinity(0, sizeof shares->before, &shares->before) != 0) return errno;
  shares->pinned = 1;
  if (pool != NULL) {
    acorn_pool_run(pool, pin_one, &pinning, threads);
  } else {
    pin_one(&pinning, 0, 0);
  }
  if (pinning.error != 0) return pinning.error;
  acorn_shares_set(shares, pinning.speeds, threads);
  return 0;
}

void acorn_shares_unpin(acorn_shares *shares) {
  if (shares->pinned) sched_setaffinity(0, sizeof shares->before, &shares->before);
  shares->pinned = 0;
}

#else

int acorn_shares_pin(acorn_shares *shares, acorn_pool *pool, uint32_t threads) {
  (void)shares;
  (void)pool;
  (void)threads;
  return ENOTSUP;
}

void acorn_shares_unpin(acorn_shares *shares) { (void)shares; }

#endif
