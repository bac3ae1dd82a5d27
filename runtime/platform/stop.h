// What ends a running call early: a request, from another thread or a signal handler, or the time. For ops, experts and session.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "platform/parallel.h"

namespace acorn {

struct Stop {
  static constexpr uint32_t kCancel = 1, kDeadline = 2;
  static constexpr uint64_t kNever = UINT64_MAX;

  uint32_t asked = 0;              // of these; read and written with atomics
  uint64_t deadline = kNever;      // in ticks of the clock, which is looked at if there is one
  Clock clock;

  /// From any thread and from a signal handler.
  void Ask(uint32_t reason) { __atomic_fetch_or(&asked, reason, __ATOMIC_RELEASE); }
  void Forget(uint32_t reasons) { __atomic_fetch_and(&asked, ~reasons, __ATOMIC_RELEASE); }

  /// Once true it stays so until Take or Forget, on the thread that joins whoever saw it too.
  bool IsAsked() const { return __atomic_load_n(&asked, __ATOMIC_RELAXED) != 0; }

  /// The same after a look at the clock. One thread at a time.
  bool IsDue() {
    if (deadline != kNever && clock.Now() >= deadline) Ask(kDeadline);
    return IsAsked();
  }

  /// For the thread that runs the call. A request ends one call; a deadline all that come after it.
  /// Returns: kOk | kCancelled | kDeadline
  Status Take() {
    if (!IsDue()) return Status::kOk;
    const uint32_t reasons = __atomic_exchange_n(&asked, 0u, __ATOMIC_ACQ_REL);
    return (reasons & kCancel) != 0 ? Status::kCancelled : Status::kDeadline;
  }
};

}  // namespace acorn
