// The subcommands of acornc. Each function adds one to the program; its callback does the work and throws Error.
#pragma once

#include <CLI/CLI.hpp>

namespace acorn::compiler {

void AddConvertCommand(CLI::App *app);
void AddEvalCommand(CLI::App *app);
void AddInspectCommand(CLI::App *app);
void AddPerplexityCommand(CLI::App *app);
void AddRecordCommand(CLI::App *app);
void AddSynthCommand(CLI::App *app);
/// keygen and sign; in a build without libsodium known, and refused with a message.
void AddSignCommands(CLI::App *app);

}  // namespace acorn::compiler
