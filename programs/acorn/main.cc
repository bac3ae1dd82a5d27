// acorn: runs model files on this machine. Answers go to the standard output, everything else to the standard error.
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>

#include "commands.h"
#include "error.h"

namespace {

using acorn::program::ExitCode;
using acorn::program::Failure;

struct Command {
  const char *name;
  void (*run)(int argc, char **argv);
  const char *summary;
};

constexpr Command kCommands[] = {
    {"run", acorn::program::Run, "answers one prompt"},
    {"chat", acorn::program::Chat, "a conversation, line by line"},
    {"plan", acorn::program::Plan, "the memory that a model needs, before anything is opened"},
    {"bench", acorn::program::Bench, "tokens per second"},
    {"perplexity", acorn::program::Perplexity, "how well a text is predicted"},
    {"tokenize", acorn::program::Tokenize, "token ids of the standard input"},
    {"eval", acorn::program::Eval, "right answers out of a file of questions"},
    {"selftest", acorn::program::SelfTest, "proves that this machine computes what the file says"},
    {"replay", acorn::program::Replay, "what a cache of experts would do with recorded routing"},
    {"trace", acorn::program::Trace, "records which experts a model chooses"},
    {"verify", acorn::program::Verify, "checks every checksum of a file"},
};

void PrintHelp(std::FILE *to) {
  std::fprintf(to, "usage: acorn COMMAND FILE [OPTIONS]   (acorn COMMAND --help tells the options)\n");
  for (const Command &command : kCommands) {
    std::fprintf(to, "  %-11s %s\n", command.name, command.summary);
  }
  std::fprintf(to, "exit codes: 0 done, 1 the self-test failed, 2 bad usage, 3 bad model file, 4 too little memory, 5 I/O\n");
}

int Dispatch(int argc, char **argv) {
  if (argc < 2) {
    PrintHelp(stderr);
    return static_cast<int>(ExitCode::kUsage);
  }
  const char *name = argv[1];
  if (std::strcmp(name, "--help") == 0 || std::strcmp(name, "-h") == 0) {
    PrintHelp(stdout);
    return 0;
  }
  if (std::strcmp(name, "--version") == 0) {
    std::printf("acorn %s\n", ACORN_VERSION);
    return 0;
  }
  for (const Command &command : kCommands) {
    if (std::strcmp(name, command.name) != 0) continue;
    command.run(argc - 2, argv + 2);
    return 0;
  }
  acorn::program::Fail(ExitCode::kUsage, "unknown command %s (acorn --help tells all)", name);
}

int Report(ExitCode code, const char *message) {
  std::fflush(stdout);
  std::fprintf(stderr, "acorn: %s\n", message);
  return static_cast<int>(code);
}

}  // namespace

int main(int argc, char **argv) {
  try {
    const int code = Dispatch(argc, argv);
    // What a flush before this one could not write is gone, and so is its return value.
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
      acorn::program::Fail(ExitCode::kIo, "cannot write to the standard output");
    }
    return code;
  } catch (const Failure &failure) {
    return Report(failure.code, failure.message.c_str());
  } catch (const std::bad_alloc &) {
    return Report(ExitCode::kMemory, "out of memory");
  } catch (const std::length_error &) {  // more than any memory
    return Report(ExitCode::kMemory, "out of memory");
  }
}
