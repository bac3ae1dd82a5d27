// Reads of the model file, as the port gives them: beside the caller where the port can, else one after the other, so that whoever
// streams need not know. For experts and session. Hides nothing else of acorn_port.h: ids, alignment, deadlines and what a short
// read means are as there.
#pragma once

#include <cstdint>

#include "acorn_port.h"
#include "base/span.h"
#include "base/status.h"

namespace acorn {

/// One thread at a time, the one that runs the model.
class Storage {
 public:
  Storage() = default;
  /// file_bytes: of the model file, as its header says.
  Storage(const acorn_port &port, uint64_t file_bytes) : port_(port), file_bytes_(file_bytes) {}

  bool CanRead() const { return IsAsynchronous() || port_.read != nullptr; }
  bool IsAsynchronous() const { return port_.read_submit != nullptr; }
  /// Reads that may be under way at once.
  uint32_t depth() const { return IsAsynchronous() ? port_.read_depth : 1; }
  /// Of memory, offset and length of each read.
  uint32_t alignment() const { return port_.read_alignment == 0 ? 1 : port_.read_alignment; }

  /// Starts the first *accepted reads, fewer than all where depth() are under way.
  /// Returns: kOk | kPort, with *accepted of them under way all the same
  Status Submit(Span<const acorn_read_request> requests, size_t *accepted) {
    *accepted = 0;
    if (IsAsynchronous()) {
      return port_.read_submit(port_.ctx, requests.data(), requests.size(), accepted) == 0 ? Status::kOk : Status::kPort;
    }
    if (!requests.empty() && !waits_) {
      request_ = requests[0];
      waits_ = true;
      cancelled_ = false;
      *accepted = 1;
    }
    return Status::kOk;
  }

  /// Waits until a read has ended, or for timeout_ticks: 0 only looks, UINT64_MAX is no deadline. Without asynchronous reads the
  /// one that waits is made here, unless this is only a look; nothing bounds its time then.
  /// Returns: kOk, and in results[*count] what has ended | kPort, *count is valid then too
  Status Wait(Span<acorn_read_result> results, uint64_t timeout_ticks, size_t *count) {
    *count = 0;
    if (IsAsynchronous()) {
      const int failed = port_.read_wait(port_.ctx, results.data(), results.size(), timeout_ticks, count);
      return failed == 0 ? Status::kOk : Status::kPort;
    }
    if (results.empty() || !waits_ || (timeout_ticks == 0 && !cancelled_)) return Status::kOk;
    results[0] = ReadNow();
    waits_ = false;
    *count = 1;
    return Status::kOk;
  }

  /// Asks for the end of a read; its result comes all the same. A read that is not under way is none to cancel.
  void Cancel(uint64_t id) {
    if (IsAsynchronous()) {
      if (port_.read_cancel != nullptr) (void)port_.read_cancel(port_.ctx, id);
    } else if (waits_ && request_.id == id) {
      cancelled_ = true;
    }
  }

 private:
  acorn_read_result ReadNow() const {
    if (cancelled_) return {request_.id, 0, ACORN_READ_CANCELLED};
    if (request_.offset >= file_bytes_) return {request_.id, 0, 0};
    const uint64_t there = file_bytes_ - request_.offset;
    const size_t bytes = there < request_.bytes ? static_cast<size_t>(there) : request_.bytes;
    const int32_t error = port_.read(port_.ctx, request_.to, request_.offset, bytes);
    return {request_.id, error == 0 ? bytes : 0, error};
  }

  acorn_port port_ = {};
  uint64_t file_bytes_ = 0;
  acorn_read_request request_ = {};  // that waits to be made with read
  bool waits_ = false, cancelled_ = false;
};

}  // namespace acorn
