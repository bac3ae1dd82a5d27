// Paths of test data: the project's own under tests/data, and the large shared folder that stands beside a developer's
// checkout. A test that needs the shared folder starts with ACORN_NEED_SHARED("models/dense").
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <string>

namespace acorn::test {

/// A file or folder of tests/data.
inline std::string DataPath(const std::string &name) { return std::string(ACORN_SOURCE_DIR) + "/tests/data/" + name; }

/// A file or folder of the shared data: $ACORN_SHARED, or ../shared beside the repository. It need not exist.
inline std::string SharedPath(const std::string &name) {
  const char *folder = std::getenv("ACORN_SHARED");
  const std::string root = folder != nullptr ? folder : std::string(ACORN_SOURCE_DIR) + "/../shared";
  return root + "/" + name;
}

/// SmolLM2-135M-Instruct's GGUF file: $ACORN_SMOLLM2, or what toolchains/fetch_smollm2.sh has fetched. It need not exist.
inline std::string SmolLm2Path() {
  const char *path = std::getenv("ACORN_SMOLLM2");
  return path != nullptr ? path : std::string(ACORN_SOURCE_DIR) + "/build/models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

inline bool PathExists(const std::string &path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

}  // namespace acorn::test

/// Skips the running test when a part of the shared data is not there.
#define ACORN_NEED_SHARED(name)                                                                     \
  do {                                                                                              \
    if (!::acorn::test::PathExists(::acorn::test::SharedPath(name))) {                              \
      GTEST_SKIP() << "needs the shared data: " << ::acorn::test::SharedPath(name) << " is absent"; \
    }                                                                                               \
  } while (0)
