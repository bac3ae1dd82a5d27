// Error: how acornc gives up. For every part of the compiler; main() prints the message and returns the exit code.
#pragma once

#include <stdexcept>
#include <string>

namespace acorn::compiler {

/// Exit codes of both programs; 0 is success.
enum class ExitCode : int {
  kUsage = 2,
  kBadModel = 3,
  kMemory = 4,
  kIo = 5,
};

/// A message for the user: one line that names the file, the tensor or key and the offset where they apply.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string &message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

}  // namespace acorn::compiler
