// The command line of acornc: exit codes, messages, and the float perplexities of the shared models.
#include <gtest/gtest.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/compiler/acornc_command.h"
#include "tests/support/shared_data.h"
#include "tests/support/temp_folder.h"

namespace acorn::compiler {
namespace {

void ExpectFailure(const std::string &arguments, int exit_code, const std::string &message) {
  const Outcome outcome = RunAcornc(arguments);
  EXPECT_EQ(outcome.exit_code, exit_code) << arguments;
  EXPECT_NE(outcome.err.find(message), std::string::npos) << arguments << ": " << outcome.err;
  EXPECT_EQ(outcome.out, "") << arguments;
}

TEST(Acornc, Usage) {
  EXPECT_EQ(RunAcornc("--help").exit_code, 0);
  EXPECT_EQ(RunAcornc("perplexity --help").exit_code, 0);
  EXPECT_EQ(RunAcornc("eval --help").exit_code, 0);
  ExpectFailure("", 2, "subcommand");
  ExpectFailure("nonsense", 2, "nonsense");
  ExpectFailure("perplexity", 2, "SRC");
  ExpectFailure("perplexity x --text y --unknown", 2, "--unknown");
  ExpectFailure("perplexity x --text y --windows 0", 2, "--windows");
  ExpectFailure("perplexity x --text y --threads -1", 2, "--threads");
  ExpectFailure("perplexity x --text y --rate 15,61", 2, "--rate");
  ExpectFailure("perplexity x --text y --elastic-without svd", 2, "need --rate");
  ExpectFailure("perplexity x --text y --rate 15 --elastic-without sorting", 2, "--elastic-without");
  ExpectFailure("perplexity x --text y --heal 5", 2, "need --rate");
  ExpectFailure("perplexity x --text y --rate 15 --elastic-without segments", 2, "--elastic-without");
  ExpectFailure("convert x -o y --elastic-without svd", 2, "needs --profiles");
  ExpectFailure("perplexity x --text y --rate 0,15 --heal-steps 5", 2, "--heal");
}

TEST(Acornc, OutputThatNobodyTakesIsFive) {
  for (const char *arguments : {"--help", "convert --help"}) {
    const int status = std::system((std::string(ACORN_ACORNC) + " " + arguments + " >/dev/full 2>/dev/null").c_str());
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 5) << arguments << ": " << status;
  }
}

TEST(Acornc, SynthRefusesByName) {
  const test::TempFolder folder;
  const std::string output = " -o " + folder.File("m");
  ExpectFailure("synth --like olmo" + output, 2, "olmoe-1b-7b, qwen3-30b-a3b, mixtral-8x7b");
  ExpectFailure("synth --like mixtral-8x7b --experts 1" + output, 2, "visits 2");
  ExpectFailure("synth --like mixtral-8x7b --weights w3" + output, 2, "--weights");
  ExpectFailure("synth --like olmoe-1b-7b --layers 1 --experts 8 -o " + folder.File("absent/m"), 5, "absent/m");
}

TEST(Acornc, BadSources) {
  const test::TempFolder folder;
  const std::string text = folder.Write("text", "once upon a time");
  ExpectFailure("perplexity " + folder.File("absent") + " --text " + text, 5, "there is no such file");
  ExpectFailure("perplexity " + folder.path() + " --text " + text, 5, "config.json");
  ExpectFailure("perplexity " + folder.Write("m.bin", "not a model") + " --text " + text, 3, "neither a GGUF file");
  ExpectFailure("perplexity " + folder.Write("m.gguf", "GGUF\x03") + " --text " + text, 3, "version");
  folder.Write("config.json", R"({"model_type":"falcon"})");
  ExpectFailure("perplexity " + folder.path() + " --text " + text, 3, "known are: llama (");
}

void ExpectPerplexity(const std::string &arguments, double want) {
  const Outcome outcome = RunAcornc("perplexity " + arguments + " --json");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::json result = nlohmann::json::parse(outcome.out);
  EXPECT_NEAR(result["perplexity"].get<double>(), want, 1e-3 * want);
  EXPECT_EQ(result["windows"], 40);
  EXPECT_EQ(result["tokens"], 40 * 511);
  EXPECT_NE(outcome.err.find("tokenize"), std::string::npos);
}

TEST(Acornc, DensePerplexity) {
  ACORN_NEED_SHARED("models/dense");
  ExpectPerplexity(test::SharedPath("models/dense") + " --windows 40 --text " + test::SharedPath("data/text/mixed/valid.txt"),
                   12.3621);
}

TEST(Acornc, MixturePerplexity) {
  ACORN_NEED_SHARED("models/moe");
  ExpectPerplexity(test::SharedPath("models/moe") + " --windows 40 --text " + test::SharedPath("data/text/mixed/valid.txt"),
                   12.8311);
}

TEST(Acornc, ConvertsMixturesButNotByEveryWay) {
  const test::TempFolder folder;
  for (const char *name : {"small_mixtral", "small_olmoe.gguf"}) {
    for (const char *option : {"--recipe mobilequant", "--mixed auto --budget 100%"}) {
      ExpectFailure("convert " + test::DataPath(name) + " -o " + folder.File("m.acorn") + " " + option, 2,
                    "does not know layers with experts");
    }
    EXPECT_FALSE(test::PathExists(folder.File("m.acorn")));
  }
}

}  // namespace
}  // namespace acorn::compiler
