// Parallel loops and the clock, as the port gives them. For ops and session.
#pragma once

#include <cstdint>

namespace acorn {

constexpr uint32_t kMaxThreads = 256;  // of a session

/// Runs loop bodies on the port's threads, or on the caller's where there are none.
struct Parallel {
  using Task = void (*)(void *arg, uint32_t task, uint32_t thread);
  void *ctx = nullptr;
  void (*parallel_for)(void *ctx, Task task, void *arg, uint32_t count) = nullptr;
  uint32_t threads = 1;

  /// body(task, thread) for task in [0, count); returns when all are done. thread in [0, threads)
  template <typename Body>
  void For(uint32_t count, const Body &body) const {
    if (parallel_for == nullptr || threads <= 1 || count <= 1) {
      for (uint32_t i = 0; i < count; ++i) body(i, 0u);
      return;
    }
    parallel_for(
        ctx, [](void *arg, uint32_t task, uint32_t thread) { (*static_cast<const Body *>(arg))(task, thread); },
        const_cast<Body *>(&body), count);
  }
};

/// A monotonic clock; counts nothing without a port.
struct Clock {
  void *ctx = nullptr;
  uint64_t (*ticks)(void *ctx) = nullptr;
  uint64_t Now() const { return ticks == nullptr ? 0 : ticks(ctx); }
};

}  // namespace acorn
