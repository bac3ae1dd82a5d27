/* What it costs that threads wait for the next loop by spinning for a while and then sleep: loops of one task for each thread, and
   between them the program waits as it does for a storage or a user. How long a loop takes from there (median), and how much CPU time
   the other threads use up in a pause (mean; the kernel counts it in ticks): acorn_bench_pauses [THREADS [TASK_US]] */
#include <acorn_posix.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "bench/median.h"
#include "ports/posix/threads.h"

enum { kMostRounds = 999 };

static uint64_t Clock(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Of this process's other threads, in microseconds. */
static double OthersTime(void) { return ((double)Clock(CLOCK_PROCESS_CPUTIME_ID) - (double)Clock(CLOCK_THREAD_CPUTIME_ID)) / 1e3; }

static void Spin(void *arg, uint32_t task, uint32_t thread) {
  const uint64_t end = acorn_posix_ticks() + *(const uint64_t *)arg;
  (void)task;
  (void)thread;
  while (acorn_posix_ticks() < end) {
  }
}

static void Wait(uint64_t ns) {
  if (ns == 0) return;
  const struct timespec time = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
  nanosleep(&time, NULL);
}

int main(int argc, char **argv) {
  static double loop[kMostRounds];
  static const double pauses[] = {0, 50, 500, 5e3, 50e3, 500e3}; /* microseconds */
  const int threads = argc > 1 ? atoi(argv[1]) : 2;
  const double task = argc > 2 ? atof(argv[2]) : 20;
  acorn_pool *pool = threads > 1 ? acorn_pool_create((uint32_t)threads) : NULL;
  if (task <= 0 || pool == NULL) {
    fprintf(stderr, "usage: acorn_bench_pauses [THREADS, from 2 on [TASK_US]]\n");
    return 2;
  }
  uint64_t ticks = (uint64_t)(task * 1e3);
  printf("| pause us | loop us | CPU us of the others in a pause |\n|--:|--:|--:|\n");
  for (size_t p = 0; p < sizeof pauses / sizeof *pauses; ++p) {
    const int fitting = (int)(4e6 / (pauses[p] + task)), rounds = fitting < kMostRounds ? fitting : kMostRounds; /* 4 s */
    const double before = OthersTime();
    for (int round = 0; round < rounds; ++round) {
      Wait((uint64_t)(pauses[p] * 1e3));
      const uint64_t begin = acorn_posix_ticks();
      acorn_pool_run(pool, Spin, &ticks, (uint32_t)threads);
      loop[round] = (double)(acorn_posix_ticks() - begin) / 1e3;
    }
    const double each = (OthersTime() - before) / rounds - task * (threads - 1); /* at most: a sleeper's task is another's */
    printf("| %.0f | %.1f | %.1f |\n", pauses[p], Median(loop, rounds), each > 0 ? each : 0);
  }
  acorn_pool_destroy(pool);
  return 0;
}
