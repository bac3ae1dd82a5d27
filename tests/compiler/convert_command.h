// acornc convert in a folder of its own.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/compiler/acornc_command.h"
#include "tests/support/shared_data.h"

namespace acorn::compiler {

class Convert : public testing::Test {
 protected:
  /// Converts the small model with more options; the file is `name` in the test's folder.
  Outcome Run(const std::string &options, const std::string &name = "m.acorn") {
    return RunAcornc("convert " + test::DataPath("small_llama") + " -o " + folder_.File(name) + " " + options);
  }
  void ExpectRefused(const std::string &options, int exit_code, const std::string &message) {
    const Outcome outcome = Run(options);
    EXPECT_EQ(outcome.exit_code, exit_code) << options << ": " << outcome.err;
    EXPECT_NE(outcome.err.find(message), std::string::npos) << options << ": " << outcome.err;
    EXPECT_TRUE(std::filesystem::is_empty(folder_.path())) << options;
  }
  nlohmann::json Inspect(const std::string &name = "m.acorn") {
    const Outcome outcome = RunAcornc("inspect --json " + folder_.File(name));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out);
  }

  test::TempFolder folder_;
};

}  // namespace acorn::compiler
