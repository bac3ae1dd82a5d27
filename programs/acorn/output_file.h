// Files that a command writes where the user says.
#pragma once

#include <sys/stat.h>

#include <cstdio>
#include <string>

namespace acorn::program {

/// Removes what could not be written whole, if it is a file: a device or a pipe stays.
inline void RemoveFile(const std::string &path) {
  struct stat facts = {};
  if (stat(path.c_str(), &facts) == 0 && S_ISREG(facts.st_mode)) std::remove(path.c_str());
}

}  // namespace acorn::program
