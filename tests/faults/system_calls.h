// Runs a program whose system call number i that changes files fails, or at which the machine loses power, or whose read number i of
// a file is interrupted or comes short. Linux on x86-64: the program is traced, so that it needs no part in it and no call of it is
// missed, the C library's own neither.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace acorn::test {

struct CallFault {
  enum class Kind : uint8_t {
    kNone,
    kPowerCut,  // the process ends where the call begins
    kError,     // the call does nothing and gives `error`
    kShort,     // a write takes half of its bytes, a read gives half, whole pages of whole pages; other calls are as ever
  };
  Kind kind = Kind::kNone;
  uint64_t number = 0;  // from 1 on
  int error = 0;
  std::string reads_of = {};  // not empty: calls are reads of files whose path holds it, by threads: io_uring is refused
};

struct TracedOutcome {
  int code = -1;                   // −1: it did not exit by itself
  std::string out, err;            // what it said on the standard output and error
  std::vector<std::string> calls;  // that change files, or reads, in order
};

/// words[0] is the program's path. Calls that count: opening for writing, write, fsync, rename, unlink, ftruncate and fchmod, but for
/// what is written to the standard streams; closing a file counts where it was opened for writing.
/// Returns: false where this machine lets nothing be traced
bool RunTraced(const std::vector<std::string> &words, const CallFault &fault, TracedOutcome *outcome);

}  // namespace acorn::test
