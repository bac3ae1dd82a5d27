// A port for tests: a parallel_for on plain threads, started for each loop. Slow, and with any number of threads wherever it runs.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "acorn_port.h"
#include "tests/support/host_features.h"

namespace acorn::test {

class ThreadPort {
 public:
  ThreadPort(uint32_t features, uint32_t threads) {
    port_.struct_size = sizeof port_;
    port_.cpu_features = features;
    port_.threads = threads;
    port_.ctx = this;
    port_.parallel_for = threads > 1 ? &ParallelFor : nullptr;
  }
  const acorn_port *get() const { return &port_; }

 private:
  static void ParallelFor(void *ctx, acorn_task task, void *arg, uint32_t count) {
    const auto *self = static_cast<ThreadPort *>(ctx);
    std::atomic<uint32_t> next{0};
    std::vector<std::thread> threads;
    for (uint32_t thread = 0; thread < self->port_.threads; ++thread) {
      threads.emplace_back([&, thread] {
        for (uint32_t i; (i = next.fetch_add(1)) < count;) task(arg, i, thread);
      });
    }
    for (std::thread &thread : threads) thread.join();
  }

  acorn_port port_ = {};
};

/// Every set of Feature bits that select.cc tells apart and this machine has: scalar first.
inline std::vector<uint32_t> FeatureLevels() {
  const uint32_t host = HostFeatures();
  std::vector<uint32_t> levels = {0};
  uint32_t level = 0;
  for (const uint32_t bit : {uint32_t{kFeatureAvx2}, uint32_t{kFeatureAvxVnni}, uint32_t{kFeatureNeon}, uint32_t{kFeatureNeonDot},
                             uint32_t{kFeatureI8mm}}) {
    if ((host & bit) != 0) levels.push_back(level |= bit);
  }
  if ((host & kFeatureAvx512Vnni) != 0) {
    levels.push_back(kFeatureAvx2 | kFeatureAvx512Vnni);
    if ((host & kFeatureGfni) != 0) levels.push_back(host);
  }
  return levels;
}

}  // namespace acorn::test
