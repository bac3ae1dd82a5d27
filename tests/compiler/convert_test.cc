// acornc convert and inspect as commands: options, exit codes, what is written and what is not.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/shared_data.h"
#include "tests/support/temp_folder.h"

namespace acorn::compiler {
namespace {

struct Outcome {
  int exit_code = -1;
  std::string out;
  std::string err;
};

Outcome RunAcornc(const std::string &arguments) {
  const test::TempFolder folder;
  const std::string command =
      std::string(ACORN_ACORNC) + " " + arguments + " >" + folder.File("out") + " 2>" + folder.File("err") + " </dev/null";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, test::ReadFile(folder.File("out")), test::ReadFile(folder.File("err"))};
}

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

TEST_F(Convert, RefusesWhatIsNotInThisVersionByName) {
  ExpectRefused("--recipe mobilequant", 2, "--recipe mobilequant is not in this version");
  for (const char *option :
       {"--profiles 0,15", "--expert-bits 4", "--mixed auto", "--heal 10", "--steps 5", "--time-limit 3"}) {
    const std::string name = std::string(option).substr(0, std::string(option).find(' '));
    ExpectRefused(option, 2, name + " is not in this version");
  }
}

TEST_F(Convert, RefusesBadOptions) {
  ExpectRefused("--recipe best", 2, "--recipe");
  ExpectRefused("--weights w3", 2, "--weights");
  ExpectRefused("--group 48", 2, "--group");
  ExpectRefused("--kv 5", 2, "--kv");
  ExpectRefused("--weights w8 --group 32", 2, "--group 32 needs --weights w4");
  ExpectRefused("--head w2", 2, "--head");
  ExpectRefused("--context 100000", 2, "--context 100000: the model reaches 256 tokens");
  ExpectRefused("--calibration " + folder_.File("absent"), 2, "no tokenizer");
  ExpectRefused("--unknown", 2, "--unknown");
  EXPECT_EQ(RunAcornc("convert").exit_code, 2);
  EXPECT_EQ(RunAcornc("convert " + test::DataPath("small_llama")).exit_code, 2);
}

TEST_F(Convert, BadFilesHaveTheirExitCodes) {
  EXPECT_EQ(RunAcornc("convert " + folder_.File("absent") + " -o " + folder_.File("m")).exit_code, 5);
  EXPECT_EQ(RunAcornc("convert " + test::DataPath("small_llama") + " --recipe rtn -o " + folder_.File("absent/m")).exit_code,
            5);
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(Convert, WritesWhatTheOptionsSay) {
  const Outcome outcome = Run("--weights w4 --group 64 --head w4 --context 100 --seed 3 --report " + folder_.File("report"));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::json file = Inspect();
  EXPECT_EQ(file["family"], "llama");
  EXPECT_EQ(file["max_context"], 100);
  EXPECT_EQ(file["vocab_size"], 128);
  EXPECT_EQ(file["layers"], 2);
  EXPECT_EQ(file["provenance"]["recipe"], "fast");
  EXPECT_EQ(file["provenance"]["seed"], "3");
  EXPECT_EQ(file["weights"].size(), 2u * 4 + 2);
  EXPECT_EQ(file["weights"][1]["format"], "w4g64");
  EXPECT_EQ(file["weights"].back()["format"], "w4g32");
  EXPECT_EQ(file["file_bytes"], std::filesystem::file_size(folder_.File("m.acorn")));
  EXPECT_EQ(file["reference_run"]["prompt"].size(), 32u);
  EXPECT_EQ(file["reference_run"]["generated"].size(), 16u);
  EXPECT_EQ(file["reference_run"]["steps"], 1 + 2 * 14 + 2);
  EXPECT_TRUE(test::PathExists(folder_.File("report/layers.csv")));
  // People get the same without --json.
  EXPECT_NE(RunAcornc("inspect " + folder_.File("m.acorn")).out.find("w4g64"), std::string::npos);
}

TEST_F(Convert, KeysAndValuesOf4Bits) {
  for (const char *recipe : {"fast", "rtn"}) {
    const Outcome outcome = Run(std::string("--kv 4 --recipe ") + recipe);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_NE(outcome.out.find("keys and values of 4 bits: with 8 bits"), std::string::npos) << outcome.out;
    const nlohmann::json file = Inspect();
    EXPECT_EQ(file["kv_bits"], 4);
    EXPECT_EQ(file["provenance"]["kv"], "4");
    EXPECT_EQ(file["reference_run"]["steps"], 1 + 2 * 16 + 2);  // a transform of queries and one of keys in each layer
  }
  ASSERT_EQ(Run("").exit_code, 0);
  EXPECT_EQ(Inspect()["kv_bits"], 8);
}

TEST_F(Convert, SameInputAndSeedGiveTheSameBytes) {
  ASSERT_EQ(Run("--threads 1", "a").exit_code, 0);
  ASSERT_EQ(Run("--threads 2", "b").exit_code, 0);
  EXPECT_EQ(test::ReadFile(folder_.File("a")), test::ReadFile(folder_.File("b")));
  ASSERT_EQ(Run("--seed 9", "c").exit_code, 0);
  EXPECT_NE(test::ReadFile(folder_.File("a")), test::ReadFile(folder_.File("c")));
}

TEST_F(Convert, TargetChoosesTheLayout) {
  struct Target {
    std::string name, w8, w4;
  };
  for (const Target &target : {Target{"universal", "x16c8", "x16c8"}, Target{"x86-256", "x8c8", "x8c8"},
                               Target{"arm-dotprod", "x16c4", "x16c4"}, Target{"arm-neon", "x8c2s4", "x16c1"}}) {
    ASSERT_EQ(Run("--recipe rtn --weights w4 --group channel --target " + target.name).exit_code, 0);
    const nlohmann::json file = Inspect();
    for (const auto &weight : file["weights"]) {
      EXPECT_EQ(weight["layout"], weight["format"] == "w8" ? target.w8 : target.w4) << target.name;
    }
  }
}

TEST_F(Convert, InspectRefusesDamage) {
  ASSERT_EQ(Run("--recipe rtn").exit_code, 0);
  const std::string good = test::ReadFile(folder_.File("m.acorn"));
  const auto expect = [&](const std::string &bytes, const std::string &message) {
    const Outcome outcome = RunAcornc("inspect --json " + folder_.Write("bad", bytes));
    EXPECT_EQ(outcome.exit_code, 3) << message;
    EXPECT_NE(outcome.err.find(message), std::string::npos) << outcome.err;
  };
  expect("", "no Acorn file");
  expect(std::string(1000, 'x'), "no Acorn file");
  expect(good.substr(0, good.size() - 1), "truncated");
  for (const size_t at : {size_t{9}, size_t{50}, size_t{200}, good.size() - 1}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    expect(bad, at == 9 ? "version" : at < 64 ? "header" : at == 200 ? "graph" : "checksum");
  }
  EXPECT_EQ(RunAcornc("inspect " + folder_.File("absent")).exit_code, 5);
}

}  // namespace
}  // namespace acorn::compiler
