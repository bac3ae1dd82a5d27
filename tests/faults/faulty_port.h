// FaultyPort: a port around a simulated device whose callback number i fails, in each way that it can. Time is virtual.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

#include "acorn.h"
#include "tests/experts/simulated_storage.h"

namespace acorn::test {

enum class Fault : uint8_t {
  kNone,
  // A read: counted as they are submitted.
  kReadError,
  kReadShort,
  kReadDamaged,
  kReadLost,  // no result until Mend()
  // A call of read_submit.
  kSubmitFails,
  kSubmitFailsHalfway,  // with the first request under way
  kSubmitTakesNone,
  // A call of read_wait.
  kWaitFails,
  kWaitFailsWithResults,
  kWaitReturnsEarly,
  kCancelRefused,  // a call of read_cancel that does nothing
  // A look at the clock.
  kClockJumps,   // an hour ahead, for good: the machine slept
  kClockStands,  // until Mend()
  // Any callback: somebody asks the session to stop while it runs.
  kCancelled,
};

enum class Lasting : uint8_t { kOnce, kUntilMended };
enum class Reads : uint8_t { kBeside, kOneByOne };  // read_submit and its kin, or read alone

class FaultyPort {
 public:
  /// The `number`th chance of the fault, from 1 on, is taken; with kUntilMended all after it too.
  FaultyPort(const AlignedBytes &file, Reads reads, Fault fault, uint64_t number, Lasting lasting)
      : file_(file), storage_(file), inner_(*storage_.port()), fault_(fault), number_(number), lasting_(lasting) {
    port_.struct_size = sizeof port_;
    port_.ctx = this;
    port_.cpu_features = HostFeatures();
    port_.threads = 2;
    port_.parallel_for = ParallelFor;
    port_.ticks = Ticks;
    port_.ticks_per_second = inner_.ticks_per_second;
    port_.read = Read;
    if (reads == Reads::kOneByOne) return;
    port_.read_depth = inner_.read_depth;
    port_.read_alignment = inner_.read_alignment;
    port_.read_submit = Submit;
    port_.read_wait = Wait;
    port_.read_cancel = Cancel;
  }

  acorn_port *get() { return &port_; }
  /// kCancelled: what is asked to stop.
  void set_session(acorn_session *session) { session_ = session; }
  bool reached() const { return chances_ >= number_; }
  uint64_t callbacks() const { return callbacks_; }
  /// From here on nothing fails, and what was lost is found.
  void Mend() {
    mended_ = reached();
    stands_ = false;
  }
  /// The same, whether the fault was reached or not.
  void Retire() {
    mended_ = true;
    stands_ = false;
  }

 private:
  static FaultyPort *Of(void *ctx) { return static_cast<FaultyPort *>(ctx); }

  bool Strikes(Fault fault) {
    if (fault != fault_ || mended_) return false;
    ++chances_;
    return lasting_ == Lasting::kOnce ? chances_ == number_ : chances_ >= number_;
  }
  void Called() {
    ++callbacks_;
    if (Strikes(Fault::kCancelled)) acorn_session_cancel(session_);
  }

  // The last task first, on two threads' scratch in turn.
  static void ParallelFor(void *ctx, acorn_task task, void *arg, uint32_t count) {
    Of(ctx)->Called();
    for (uint32_t i = count; i-- > 0;) task(arg, i, i % 2);
  }

  static uint64_t Ticks(void *ctx) {
    FaultyPort *self = Of(ctx);
    self->Called();
    if (self->Strikes(Fault::kClockJumps)) self->ahead_ += 3600 * self->port_.ticks_per_second;
    const uint64_t now = self->inner_.ticks(self->inner_.ctx) + self->ahead_;
    if (self->Strikes(Fault::kClockStands) && !self->stands_) {
      self->stands_ = true;
      self->stood_at_ = now;
    }
    return self->stands_ ? self->stood_at_ : now;
  }

  static int Read(void *ctx, void *to, uint64_t offset, size_t bytes) {
    FaultyPort *self = Of(ctx);
    self->Called();
    if (offset + bytes > self->file_.size() || self->Strikes(Fault::kReadError)) return ACORN_SIMULATED_EIO;
    std::memcpy(to, self->file_.data() + offset, bytes);
    if (self->Strikes(Fault::kReadDamaged)) *static_cast<uint8_t *>(to) ^= 1;
    return 0;
  }

  static int Submit(void *ctx, const acorn_read_request *requests, size_t count, size_t *accepted) {
    FaultyPort *self = Of(ctx);
    self->Called();
    *accepted = 0;
    if (self->Strikes(Fault::kSubmitFails)) return 1;
    if (self->Strikes(Fault::kSubmitTakesNone)) return 0;
    const bool halfway = self->Strikes(Fault::kSubmitFailsHalfway);
    const int status = self->inner_.read_submit(self->inner_.ctx, requests, halfway ? 1 : count, accepted);
    for (size_t i = 0; i < *accepted; ++i) {
      UnderWay read = {requests[i].to, Fault::kNone};
      for (const Fault fault : {Fault::kReadError, Fault::kReadShort, Fault::kReadDamaged, Fault::kReadLost}) {
        if (self->Strikes(fault)) read.fault = fault;
      }
      self->under_way_[requests[i].id] = read;
    }
    return halfway ? 1 : status;
  }

  static int Wait(void *ctx, acorn_read_result *results, size_t capacity, uint64_t timeout_ticks, size_t *count) {
    FaultyPort *self = Of(ctx);
    self->Called();
    *count = 0;
    if (self->Strikes(Fault::kWaitFails)) return 1;
    if (self->Strikes(Fault::kWaitReturnsEarly)) return 0;
    const bool fails = self->Strikes(Fault::kWaitFailsWithResults);
    while (self->mended_ && !self->lost_.empty() && *count < capacity) {
      results[(*count)++] = self->lost_.back();
      self->lost_.pop_back();
    }
    if (*count != 0) return 0;
    size_t ended = 0;
    const int status = self->inner_.read_wait(self->inner_.ctx, results, capacity, timeout_ticks, &ended);
    for (size_t i = 0; i < ended; ++i) {
      acorn_read_result result = results[i];
      const UnderWay read = self->under_way_[result.id];
      self->under_way_.erase(result.id);
      if (result.error == 0 && read.fault == Fault::kReadError) result = {result.id, 0, ACORN_SIMULATED_EIO};
      if (result.error == 0 && read.fault == Fault::kReadShort) result.bytes /= 2;
      if (result.error == 0 && read.fault == Fault::kReadDamaged) *static_cast<uint8_t *>(read.to) ^= 1;
      if (read.fault == Fault::kReadLost && !self->mended_) {
        self->lost_.push_back(result);
      } else {
        results[(*count)++] = result;
      }
    }
    if (*count == 0 && !self->lost_.empty() && timeout_ticks != 0) {
      // The device is silent. Nobody but the caller's timeout ends that; without one it never would, which a port may report.
      if (timeout_ticks == UINT64_MAX) return 1;
      acorn_simulated_advance(self->storage_.device(), timeout_ticks);
    }
    return fails ? 1 : status;
  }

  static int Cancel(void *ctx, uint64_t id) {
    FaultyPort *self = Of(ctx);
    self->Called();
    if (self->Strikes(Fault::kCancelRefused)) return 1;
    return self->inner_.read_cancel(self->inner_.ctx, id);
  }

  struct UnderWay {
    void *to;
    Fault fault;
  };

  const AlignedBytes &file_;
  Storage storage_;
  acorn_port inner_, port_ = {};
  Fault fault_;
  uint64_t number_, chances_ = 0, callbacks_ = 0;
  Lasting lasting_;
  bool mended_ = false, stands_ = false;
  uint64_t ahead_ = 0, stood_at_ = 0;
  acorn_session *session_ = nullptr;
  std::map<uint64_t, UnderWay> under_way_;
  std::vector<acorn_read_result> lost_;
};

}  // namespace acorn::test
