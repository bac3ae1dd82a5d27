// A port for tests: a parallel_for on plain threads, any number of them wherever it runs, which all see every loop.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
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
    if (threads <= 1) return;
    port_.parallel_for = &ParallelFor;
    for (uint32_t thread = 0; thread < threads; ++thread) threads_.emplace_back([this, thread] { Work(thread); });
  }
  ~ThreadPort() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    begin_.notify_all();
    for (std::thread &thread : threads_) thread.join();
  }
  ThreadPort(const ThreadPort &) = delete;
  ThreadPort &operator=(const ThreadPort &) = delete;
  const acorn_port *get() const { return &port_; }

 private:
  static void ParallelFor(void *ctx, acorn_task task, void *arg, uint32_t count) {
    auto *self = static_cast<ThreadPort *>(ctx);
    std::unique_lock lock(self->mutex_);
    self->task_ = task, self->arg_ = arg, self->count_ = count, self->next_ = 0;
    self->working_ = self->threads_.size();
    ++self->loop_;
    self->begin_.notify_all();
    self->end_.wait(lock, [&] { return self->working_ == 0; });
  }

  void Work(uint32_t thread) {
    std::unique_lock lock(mutex_);
    for (uint64_t seen = 0;;) {
      begin_.wait(lock, [&] { return stop_ || loop_ != seen; });
      if (stop_) return;
      seen = loop_;
      lock.unlock();
      for (uint32_t i; (i = next_.fetch_add(1)) < count_;) task_(arg_, i, thread);
      lock.lock();
      if (--working_ == 0) end_.notify_one();
    }
  }

  acorn_port port_ = {};
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable begin_, end_;
  bool stop_ = false;
  uint64_t loop_ = 0;    // how many began
  size_t working_ = 0;   // threads that are not done with it
  acorn_task task_ = nullptr;
  void *arg_ = nullptr;
  uint32_t count_ = 0;
  std::atomic<uint32_t> next_{0};
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
