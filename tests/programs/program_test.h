// The fixture of the tests of command lines: model files, and runs of the program.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/subprocess.h"
#include "tests/support/talking_model.h"

namespace acorn::test {

/// Model files of one test program: with text, without a tokenizer, and damaged ones on demand.
class ProgramTest : public testing::Test {
 protected:
  ProgramTest() : file_(BuildModel(TalkingSpec())), model_(folder_.File("model.acorn")) {
    EXPECT_TRUE(WriteModel(file_, model_));
  }

  /// Runs `acorn WORDS...`; the word MODEL stands for the model's path.
  Outcome Acorn(std::vector<std::string> words, const std::string &input = "") const {
    for (std::string &word : words) {
      if (word == "MODEL") word = model_;
    }
    words.insert(words.begin(), ACORN_PROGRAM);
    return RunProgram(words, input);
  }
  std::string Mute() const {
    ModelSpec spec = TalkingSpec();
    spec.tokenizer.clear();
    EXPECT_TRUE(WriteModel(BuildModel(spec), folder_.File("mute.acorn")));
    return folder_.File("mute.acorn");
  }

  TempFolder folder_;
  AlignedBytes file_;
  std::string model_;
};

}  // namespace acorn::test
