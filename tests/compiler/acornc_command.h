// acornc as a command: its exit code and what it prints.
#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <string>

#include "tests/support/temp_folder.h"

namespace acorn::compiler {

struct Outcome {
  int exit_code = -1;
  std::string out;
  std::string err;
};

/// What acornc (ACORN_ACORNC, a path) does with these arguments, of which a shell makes words.
inline Outcome RunAcornc(const std::string &arguments) {
  const test::TempFolder folder;
  const std::string command =
      std::string(ACORN_ACORNC) + " " + arguments + " >" + folder.File("out") + " 2>" + folder.File("err") + " </dev/null";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, test::ReadFile(folder.File("out")), test::ReadFile(folder.File("err"))};
}

}  // namespace acorn::compiler
