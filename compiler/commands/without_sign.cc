// A build without libsodium.
#include "base/error.h"
#include "commands/commands.h"

namespace acorn::compiler {

void AddSignCommands(CLI::App *app) {
  for (const char *name : {"keygen", "sign"}) {
    CLI::App *command = app->add_subcommand(name, "(not in this build)");
    command->allow_extras();
    command->callback([name] {
      throw Error(ExitCode::kUsage, std::string("acornc ") + name + ": this acornc was built without libsodium, which makes signatures");
    });
  }
}

}  // namespace acorn::compiler
