// acornc: the offline compiler. Subcommands stand in commands/; this file maps failures to messages and exit codes.
#include <cstdio>
#include <exception>
#include <new>

#include "base/error.h"
#include "commands/commands.h"

namespace {

constexpr int kInternalError = 1;

int Fail(int code, const char *message) {
  std::fprintf(stderr, "acornc: %s\n", message);
  return code;
}

}  // namespace

int main(int argc, char **argv) {
  using acorn::compiler::ExitCode;
  CLI::App app("Compiles language models for integer-only inference", "acornc");
  app.require_subcommand(1);
  acorn::compiler::AddPerplexityCommand(&app);
  acorn::compiler::AddReservedCommands(&app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError &fault) {
    return app.exit(fault) == 0 ? 0 : static_cast<int>(ExitCode::kUsage);  // --help ends here too
  } catch (const acorn::compiler::Error &fault) {
    return Fail(static_cast<int>(fault.code()), fault.what());
  } catch (const std::bad_alloc &) {
    return Fail(static_cast<int>(ExitCode::kMemory), "out of memory");
  } catch (const std::exception &fault) {
    return Fail(kInternalError, fault.what());
  }
}
