/* What sharing loops out by speed is worth where one core is slower than the other: two threads, of which the second takes RATIO
   times as long for a task (it counts that much longer), and loops of as many tasks as a decode step's, or a prefill's, have. The
   pool as it is, with stealing, and shares take turns in each round; beside them the least that a loop could take, whole tasks on the
   faster thread as long as that is sooner. Medians: acorn_bench_shares [TASK_US [ROUNDS]] */
#include <acorn_posix.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/median.h"
#include "ports/posix/shares.h"

enum { kMostRounds = 9999 };

struct work {
  uint64_t ticks[2]; /* of a task on each thread */
};

static void Spin(void *arg, uint32_t task, uint32_t thread) {
  const struct work *work = arg;
  const uint64_t end = acorn_posix_ticks() + work->ticks[thread];
  (void)task;
  while (acorn_posix_ticks() < end) {
  }
}

/* Tasks on both threads so that the last ends as soon as can be. */
static double Least(double task, double ratio, int tasks) {
  double least = task * tasks;
  for (int slow = 1; slow <= tasks; ++slow) {
    const double end = task * ratio * slow, other = task * (tasks - slow), longer = end > other ? end : other;
    if (longer < least) least = longer;
  }
  return least;
}

int main(int argc, char **argv) {
  static double plain[kMostRounds], shared[kMostRounds];
  const double ratios[] = {1, 1.5, 2, 3, 4};
  const int counts[] = {3, 8, 16, 64};
  const double task = argc > 1 ? atof(argv[1]) : 5;
  const int rounds = argc > 2 ? atoi(argv[2]) : 999;
  acorn_pool *pool = acorn_pool_create(2);
  if (task <= 0 || rounds < 1 || rounds > kMostRounds || pool == NULL) {
    fprintf(stderr, "usage: acorn_bench_shares [TASK_US [ROUNDS]]\n");
    return 2;
  }
  printf("| slower by | tasks | stealing us | shares us | least us | stealing / shares |\n|--:|--:|--:|--:|--:|--:|\n");
  for (size_t r = 0; r < sizeof ratios / sizeof *ratios; ++r) {
    acorn_shares shares;
    const uint64_t speeds[2] = {(uint64_t)(1000 * ratios[r]), 1000};
    acorn_shares_set(&shares, speeds, 2);
    struct work work = {{(uint64_t)(task * 1e3), (uint64_t)(task * ratios[r] * 1e3)}};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; ++c) {
      const uint32_t count = (uint32_t)counts[c];
      for (int round = 0; round < rounds; ++round) {
        uint64_t begin = acorn_posix_ticks();
        acorn_pool_run(pool, Spin, &work, count);
        plain[round] = (double)(acorn_posix_ticks() - begin) / 1e3;
        begin = acorn_posix_ticks();
        acorn_shares_run(&shares, pool, Spin, &work, count);
        shared[round] = (double)(acorn_posix_ticks() - begin) / 1e3;
      }
      const double before = Median(plain, rounds), after = Median(shared, rounds);
      printf("| %.1f | %u | %.1f | %.1f | %.1f | %.2f |\n", ratios[r], count, before, after, Least(task, ratios[r], counts[c]),
             before / after);
    }
  }
  acorn_pool_destroy(pool);
  return 0;
}
