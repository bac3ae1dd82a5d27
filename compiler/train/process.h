// What the numeric libraries under training want to be told before they start.
#pragma once

namespace acorn::compiler {

/// Sets, where the user has not, how OpenBLAS and the OpenMP runtime behave, and starts the program anew if anything changed,
/// since both read their variables when they are loaded. Returns in the process that is ready. argv: of main().
void PrepareTraining(char **argv);

}  // namespace acorn::compiler
