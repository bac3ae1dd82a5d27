#include "mapped_fault.h"

#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>

#include "error.h"

namespace acorn::program {
namespace {

// Written before the handler is there; a handler may neither allocate nor print.
struct Watched {
  uintptr_t begin, end;
  char message[512];
  size_t bytes;
};
Watched watched;

void OnBusError(int, siginfo_t *info, void *) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
  if (address >= watched.begin && address < watched.end) {
    const ssize_t written = write(STDERR_FILENO, watched.message, watched.bytes);
    (void)written;  // nobody is left to tell
    _exit(static_cast<int>(ExitCode::kIo));
  }
  signal(SIGBUS, SIG_DFL);  // the same access faults once more
}

}  // namespace

void WatchMapping(const acorn_posix_file &file, const std::string &path) {
  watched.begin = reinterpret_cast<uintptr_t>(file.data);
  watched.end = watched.begin + file.bytes;
  const int bytes = std::snprintf(watched.message, sizeof watched.message,
                                  "acorn: %.400s: cannot be read any more: it was cut short, or its storage failed\n", path.c_str());
  watched.bytes = bytes < 0 ? 0 : static_cast<size_t>(bytes);
  struct sigaction action = {};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace acorn::program
