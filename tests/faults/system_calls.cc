#include "tests/faults/system_calls.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

#include "tests/support/temp_folder.h"

namespace acorn::test {
namespace {

constexpr int kSystemCallStop = SIGTRAP | 0x80;

/// What a thread is in the middle of.
struct Pending {
  bool inside = false;
  uint64_t number = 0, arguments[6] = {};
  int injected = 0;  // error to give when the call ends; 0: none
};

class Tracer {
 public:
  Tracer(pid_t program, const CallFault &fault, TracedOutcome *outcome) : program_(program), fault_(fault), outcome_(outcome) {}

  void Run() {
    Go(program_, 0);
    int status = 0;
    for (pid_t thread; (thread = waitpid(-1, &status, __WALL)) > 0;) {
      if (WIFEXITED(status) || WIFSIGNALED(status)) {
        if (thread != program_) continue;
        if (WIFEXITED(status)) outcome_->code = WEXITSTATUS(status);
        return;
      }
      if (!WIFSTOPPED(status)) continue;
      const int signal = WSTOPSIG(status);
      if (signal == kSystemCallStop) {
        Stop(thread);
        Go(thread, 0);
      } else {
        const bool of_tracing = signal == SIGTRAP || signal == SIGSTOP;  // a new thread, a new program
        Go(thread, of_tracing ? 0 : signal);
      }
    }
  }

 private:
  static void Go(pid_t thread, int signal) { ptrace(PTRACE_SYSCALL, thread, nullptr, signal); }

  void Stop(pid_t thread) {
    __ptrace_syscall_info info = {};
    if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) <= 0) return;
    Pending *pending = &threads_[thread];
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
      *pending = {};
      pending->inside = true;
      pending->number = info.entry.nr;
      for (int i = 0; i < 6; ++i) pending->arguments[i] = info.entry.args[i];
      Enter(thread, pending);
    } else if (info.op == PTRACE_SYSCALL_INFO_EXIT && pending->inside) {
      Leave(thread, *pending, info.exit.rval);
      pending->inside = false;
    }
  }

  void Enter(pid_t thread, Pending *pending) {
    const bool refused = !fault_.reads_of.empty() && pending->number == SYS_io_uring_setup;
    const char *name = fault_.reads_of.empty() ? NameOf(*pending) : NameOfRead(*pending);
    if (name != nullptr) outcome_->calls.push_back(name);
    if (!refused && (name == nullptr || outcome_->calls.size() != fault_.number)) return;
    user_regs_struct registers = {};
    ptrace(PTRACE_GETREGS, thread, nullptr, &registers);
    if (refused) {
      pending->injected = ENOSYS;
      registers.orig_rax = ~0ull;  // no call
      ptrace(PTRACE_SETREGS, thread, nullptr, &registers);
      return;
    }
    switch (fault_.kind) {
      case CallFault::Kind::kNone:
        break;
      case CallFault::Kind::kPowerCut:
        kill(program_, SIGKILL);
        break;
      case CallFault::Kind::kError:
        pending->injected = fault_.error;
        registers.orig_rax = ~0ull;  // no call
        break;
      case CallFault::Kind::kShort:
        if (pending->number == SYS_write || !fault_.reads_of.empty()) registers.rdx = Half(registers.rdx);
        break;
    }
    ptrace(PTRACE_SETREGS, thread, nullptr, &registers);
  }

  void Leave(pid_t thread, const Pending &pending, int64_t result) {
    if (pending.injected != 0) {
      user_regs_struct registers = {};
      ptrace(PTRACE_GETREGS, thread, nullptr, &registers);
      registers.rax = static_cast<unsigned long long>(-static_cast<long long>(pending.injected));
      ptrace(PTRACE_SETREGS, thread, nullptr, &registers);
      return;
    }
    const auto file = static_cast<uint64_t>(result);
    if (OpensForWriting(pending) && result >= 0) written_.insert(file);
    if ((pending.number == SYS_open || pending.number == SYS_openat) && result >= 0 && !fault_.reads_of.empty()) {
      std::error_code ignored;
      const std::string link = "/proc/" + std::to_string(program_) + "/fd/" + std::to_string(file);
      const std::string path = std::filesystem::read_symlink(link, ignored).string();
      if (path.find(fault_.reads_of) != std::string::npos) read_.insert(file);
    }
    if (pending.number == SYS_close) {
      written_.erase(pending.arguments[0]);
      read_.erase(pending.arguments[0]);
    }
  }

  /// Of direct reads the system gives whole blocks only, or nothing but the file's end.
  static uint64_t Half(uint64_t bytes) {
    constexpr uint64_t kPage = 4096;
    const uint64_t half = bytes % kPage == 0 ? bytes / 2 / kPage * kPage : bytes / 2;
    return half == 0 ? bytes : half;
  }

  static bool OpensForWriting(const Pending &call) {
    const bool at = call.number == SYS_openat;
    if (!at && call.number != SYS_open) return false;
    return (call.arguments[at ? 2 : 1] & (O_WRONLY | O_RDWR)) != 0;
  }

  /// Null: it changes no file.
  const char *NameOf(const Pending &call) const {
    const bool to_file = written_.count(call.arguments[0]) != 0;
    switch (call.number) {
      case SYS_open:
      case SYS_openat:
        return OpensForWriting(call) ? "open" : nullptr;
      case SYS_write:
      case SYS_writev:
      case SYS_pwrite64:
        return to_file ? "write" : nullptr;
      case SYS_close:
        return to_file ? "close" : nullptr;
      case SYS_fsync:
      case SYS_fdatasync:
        return "fsync";
      case SYS_rename:
      case SYS_renameat:
      case SYS_renameat2:
        return "rename";
      case SYS_unlink:
      case SYS_unlinkat:
        return "unlink";
      case SYS_ftruncate:
        return "ftruncate";
      case SYS_fchmod:
        return "fchmod";
      default:
        return nullptr;
    }
  }

  /// Null: it reads none of the files.
  const char *NameOfRead(const Pending &call) const {
    if (read_.count(call.arguments[0]) == 0) return nullptr;
    return call.number == SYS_read ? "read" : call.number == SYS_pread64 ? "pread" : nullptr;
  }

  pid_t program_;
  CallFault fault_;
  TracedOutcome *outcome_;
  std::map<pid_t, Pending> threads_;
  std::set<uint64_t> written_, read_;  // file descriptors that are open for writing; of the files whose reads count
};

}  // namespace

bool RunTraced(const std::vector<std::string> &words, const CallFault &fault, TracedOutcome *outcome) {
  const TempFolder folder;
  const std::string out = folder.Write("out", ""), err = folder.Write("err", "");
  std::vector<char *> arguments;
  for (const std::string &word : words) arguments.push_back(const_cast<char *>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t program = fork();
  if (program == 0) {
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);  // which traces too
    const int to = open(out.c_str(), O_WRONLY), errors = open(err.c_str(), O_WRONLY), nothing = open("/dev/null", O_RDONLY);
    dup2(nothing, STDIN_FILENO);
    dup2(to, STDOUT_FILENO);
    dup2(errors, STDERR_FILENO);
    close(nothing), close(to), close(errors);
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(127);
    execv(arguments[0], arguments.data());
    _exit(126);
  }
  int status = 0;
  if (program < 0 || waitpid(program, &status, 0) != program || !WIFSTOPPED(status)) return false;
  if (ptrace(PTRACE_SETOPTIONS, program, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL) != 0) {
    kill(program, SIGKILL);
    waitpid(program, &status, 0);
    return false;
  }
  *outcome = {};
  Tracer(program, fault, outcome).Run();
  outcome->out = ReadFile(out);
  outcome->err = ReadFile(err);
  return true;
}

}  // namespace acorn::test
