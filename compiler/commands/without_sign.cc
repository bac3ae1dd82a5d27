#include "base/error.h"
#include "commands/commands.h"

namespace acorn::compiler {

void AddReservedCommands(CLI::App *app) {
  for (const char *name : {"sign"}) {
    CLI::App *command = app->add_subcommand(name, "(not in this version)");
    command->allow_extras();
    command->callback([name] {
      throw Error(ExitCode::kUsage,
                  std::string("acornc ") + name + ": the name is reserved, the command is not in this version");
    });
  }
}

}  // namespace acorn::compiler
