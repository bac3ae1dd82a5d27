// What ends the program early: an exit code and one line for the user.
#pragma once

#include <string>

#include "acorn.h"

namespace acorn::program {

enum class ExitCode : int { kDone = 0, kDifferent = 1, kUsage = 2, kModel = 3, kMemory = 4, kIo = 5 };

struct Failure {
  ExitCode code;
  std::string message;
};

/// Throws a Failure made like printf.
[[noreturn]] void Fail(ExitCode code, const char *format, ...) __attribute__((format(printf, 2, 3)));

ExitCode CodeOf(acorn_status status);

/// Throws the Failure for a status of the library; `what` names what was being done. ACORN_OK returns. Calls that may read the model
/// file have Device::Check.
void Check(acorn_status status, const char *what);

/// Throws the Failure for a model file that was refused, with the section and the offset where they are known.
[[noreturn]] void FailModel(const char *path, const acorn_fault &fault);

}  // namespace acorn::program
