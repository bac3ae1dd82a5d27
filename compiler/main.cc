// acornc: the offline compiler. Subcommands stand in commands/; this file maps failures to messages and exit codes.
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <string>

#include "base/error.h"
#include "base/matrix.h"
#include "commands/commands.h"

namespace {

constexpr int kInternalError = 1;

int Fail(int code, const char *message) {
  std::fprintf(stderr, "acornc: %s\n", message);
  return code;
}

// CLI11 only says that a subcommand is required when the name is unknown.
void CheckCommandName(const CLI::App &app, const std::string &name) {
  std::string known;
  for (const CLI::App *command : app.get_subcommands([](const CLI::App *) { return true; })) {
    if (command->get_name() == name) return;
    known += (known.empty() ? "" : ", ") + command->get_name();
  }
  throw acorn::compiler::Error(acorn::compiler::ExitCode::kUsage, "unknown command '" + name + "'; known are: " + known);
}

}  // namespace

int main(int argc, char **argv) {
  using acorn::compiler::ExitCode;
  CLI::App app("Compiles language models for integer-only inference", "acornc");
  app.require_subcommand(1);
  // Eigen cuts its products by the caches that it finds, and so rounds differently on each machine: one cut for all, that of a
  // common core (32 KiB, 1 MiB, 32 MiB), gives the same bytes wherever the instruction set is the same.
  Eigen::setCpuCacheSizes(32 << 10, 1 << 20, 32 << 20);
  acorn::compiler::AddConvertCommand(&app);
  acorn::compiler::AddEvalCommand(&app);
  acorn::compiler::AddInspectCommand(&app);
  acorn::compiler::AddPerplexityCommand(&app);
  acorn::compiler::AddRecordCommand(&app);
  acorn::compiler::AddSynthCommand(&app);
  acorn::compiler::AddSignCommands(&app);
  try {
    if (argc > 1 && argv[1][0] != '-') CheckCommandName(app, argv[1]);
    app.parse(argc, argv);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
      throw acorn::compiler::Error(ExitCode::kIo, "cannot write to the standard output");
    }
    return 0;
  } catch (const CLI::ParseError &fault) {
    if (app.exit(fault) != 0) return static_cast<int>(ExitCode::kUsage);
    if (std::cout.flush()) return 0;  // --help
    return Fail(static_cast<int>(ExitCode::kIo), "cannot write to the standard output");
  } catch (const acorn::compiler::Error &fault) {
    return Fail(static_cast<int>(fault.code()), fault.what());
  } catch (const std::bad_alloc &) {
    return Fail(static_cast<int>(ExitCode::kMemory), "out of memory");
  } catch (const std::exception &fault) {
    return Fail(kInternalError, fault.what());
  }
}
