// Loops shared out by the speed of threads, and threads on CPUs of their own (ports/posix/shares.h).
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <set>
#include <thread>
#include <vector>

#include "acorn_posix.h"
extern "C" {
#include "ports/posix/shares.h"
}

namespace acorn {
namespace {

struct Loop {
  explicit Loop(uint32_t tasks) : runs(tasks), of_thread(4) {}
  std::vector<std::atomic<uint32_t>> runs, of_thread;
};

void Count(void *arg, uint32_t task, uint32_t thread) {
  auto *loop = static_cast<Loop *>(arg);
  ++loop->runs[task];
  ++loop->of_thread[thread];
}

TEST(Shares, ReservesAreWhatTheFasterOnesDo) {
  acorn_shares shares;
  const uint64_t alike[] = {1000, 1010, 810, 1000};  // within a quarter
  acorn_shares_set(&shares, alike, 4);
  EXPECT_EQ(shares.differ, 0u);
  const uint64_t big_little[] = {1000, 1000, 400, 400};
  acorn_shares_set(&shares, big_little, 4);
  EXPECT_EQ(shares.differ, 1u);
  EXPECT_EQ(shares.reserve[0], 0u);
  EXPECT_EQ(shares.reserve[1], 0u);
  EXPECT_EQ(shares.reserve[2], 5u);
  EXPECT_EQ(shares.reserve[3], 5u);
  const uint64_t three_kinds[] = {300, 900, 2000};
  acorn_shares_set(&shares, three_kinds, 3);
  EXPECT_EQ(shares.reserve[0], 9u);
  EXPECT_EQ(shares.reserve[1], 2u);
  EXPECT_EQ(shares.reserve[2], 0u);
}

TEST(Shares, EveryTaskRunsOnceAndTheLastOnesOnTheFastest) {
  const uint64_t speeds[][3] = {{1, 1, 1}, {3, 1, 1}, {1, 3, 1}, {1, 2, 40}};
  for (const auto &speed : speeds) {
    acorn_shares shares;
    acorn_shares_set(&shares, speed, 3);
    acorn_pool *pool = acorn_pool_create(3);
    ASSERT_NE(pool, nullptr);
    for (const uint32_t tasks : {1u, 2u, 3u, 41u, 500u}) {
      Loop loop(tasks);
      acorn_shares_run(&shares, pool, Count, &loop, tasks);
      for (const auto &runs : loop.runs) ASSERT_EQ(runs, 1u);
      // Thread 0 also does what is left over where another one stood in for it.
      for (uint32_t thread = 1; thread < 3; ++thread) {
        if (shares.differ != 0 && tasks < shares.reserve[thread]) {
          EXPECT_EQ(loop.of_thread[thread], 0u) << tasks;
        }
      }
    }
    acorn_pool_destroy(pool);
  }
}

constexpr int kMany = -1, kIdle = -2;

// The CPU that the thread is tied to; kMany: more than one.
int OnlyCpu() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) != 1) return kMany;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) return cpu;
  }
  return kMany;
}

TEST(Pin, EachThreadHasACpuOfItsOwn) {
  std::thread([] {  // whose affinity ends with it
    const uint32_t all = acorn_posix_cpus(), threads = std::min(all, 4u);
    acorn_posix *posix = acorn_posix_create(threads);
    ASSERT_NE(posix, nullptr);
    ASSERT_EQ(acorn_posix_pin(posix), 0);
    acorn_port port;
    acorn_posix_port(posix, &port, 0);
    std::vector<std::atomic<int>> cpus(threads);
    for (auto &cpu : cpus) cpu = kIdle;
    const auto note = [](void *arg, uint32_t, uint32_t thread) { (*static_cast<std::vector<std::atomic<int>> *>(arg))[thread] = OnlyCpu(); };
    note(&cpus, 0, 0);
    for (int i = 0; i < 1000 && port.parallel_for != nullptr; ++i) port.parallel_for(port.ctx, note, &cpus, 4 * threads);
    std::set<int> seen;
    for (const auto &cpu : cpus) {
      if (cpu == kIdle) continue;
      EXPECT_NE(cpu, kMany);
      EXPECT_TRUE(seen.insert(cpu).second) << "two threads on CPU " << cpu;
    }
    acorn_posix_destroy(posix);
    EXPECT_EQ(acorn_posix_cpus(), all);  // and the next one can have as many
  }).join();
}

TEST(Pin, MoreThreadsThanCpusAreRefused) {
  acorn_posix *posix = acorn_posix_create(acorn_posix_cpus() + 1);
  ASSERT_NE(posix, nullptr);
  EXPECT_EQ(acorn_posix_pin(posix), EINVAL);
  acorn_posix_destroy(posix);
}

}  // namespace
}  // namespace acorn
