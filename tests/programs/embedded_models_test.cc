// The committed models: they answer, their memory keeps to the plan, and they are what their recorded commands make.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/shared_data.h"
#include "tests/support/subprocess.h"

namespace acorn::test {
namespace {

using nlohmann::json;

const std::string kModels = std::string(ACORN_SOURCE_DIR) + "/examples/models/";
const std::string kHomeModel = kModels + "home.acorn", kMoeModel = kModels + "moe.acorn";

json Inspect(const std::string &file) {
  const Outcome outcome = RunProgram({ACORN_COMPILER, "inspect", file, "--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  return json::parse(outcome.out, nullptr, false);
}

double Perplexity(const std::string &file) {
  const Outcome outcome = RunProgram({ACORN_PROGRAM, "perplexity", file, "--text", SharedPath("data/text/mixed/valid.txt"), "--windows", "20", "--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  return json::parse(outcome.out)["perplexity"];
}

/// The closed form of one of our sources, on the text of the recorded commands.
void Convert(const std::string &source, const std::string &file) {
  const Outcome outcome = RunProgram({ACORN_COMPILER, "convert", SharedPath(source), "-o", file, "--calibration",
                                      SharedPath("data/commands/calibration.txt"), "--calibration",
                                      SharedPath("data/text/mixed/calibration.txt")});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
}

struct Embedded {
  std::string name, file;
  std::vector<std::string> options;  // as the demo runs it
  uint64_t most_bytes;
};

class EmbeddedModel : public testing::TestWithParam<Embedded> {
 protected:
  Outcome Run(const std::string &command, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {ACORN_PROGRAM, command, GetParam().file});
    arguments.insert(arguments.end(), GetParam().options.begin(), GetParam().options.end());
    return RunProgram(arguments);
  }
};

TEST_P(EmbeddedModel, AnswersCommandsWithJson) {
  const std::vector<std::pair<std::string, std::string>> turns = {
      {"turn off the lights in the kitchen", R"([{"action":"power","device":"light","room":"kitchen","state":"off"}])"},
      {"turn on the lamp in the bedroom", R"({"action":"power","device":"lamp","room":"bedroom","state":"on"})"},
  };
  for (const auto &[prompt, answer] : turns) {
    const Outcome outcome = Run("run", {"--chat", "-p", prompt, "-n", "80"});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const json said = json::parse(outcome.out, nullptr, false);
    ASSERT_FALSE(said.is_discarded()) << outcome.out;
    json expected = json::parse(answer);
    if (said.is_object() && expected.is_array()) expected = expected[0];
    EXPECT_EQ(said, expected);
  }
}

TEST_P(EmbeddedModel, PeakMemoryKeepsToThePlan) {
  const Outcome outcome = Run("bench", {"--prompt-tokens", "300", "--gen-tokens", "50", "--threads", "2", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json report = json::parse(outcome.out);
  const uint64_t planned = report["image_bytes"].get<uint64_t>() + report["block_bytes"].get<uint64_t>();
  EXPECT_LE(report["peak_rss_bytes"].get<uint64_t>(), planned + (4u << 20));
}

TEST_P(EmbeddedModel, IsSmallEnoughToEmbed) { EXPECT_LE(std::filesystem::file_size(GetParam().file), GetParam().most_bytes); }

INSTANTIATE_TEST_SUITE_P(Models, EmbeddedModel,
                         testing::Values(Embedded{"home", kHomeModel, {}, 12000000},
                                         Embedded{"moe", kMoeModel, {"--expert-cache", "2752512"}, 14000000}),  // 24 of 96 experts
                         [](const testing::TestParamInfo<Embedded> &model) { return model.param.name; });

// examples/models/README.md has the command that trained it. Training takes minutes and its result depends on the machine; where it
// starts from does not.
TEST(HomeModel, IsBetterThanWhatItsTrainingStartedFrom) {
  ACORN_NEED_SHARED("models/dense/config.json");
  const TempFolder folder;
  const std::string start = folder.File("home.acorn");
  ASSERT_NO_FATAL_FAILURE(Convert("models/dense", start));
  const json before = Inspect(start)["provenance"], after = Inspect(kHomeModel)["provenance"];
  EXPECT_EQ(after["recipe"], "mobilequant");
  for (const char *same : {"source", "weights", "head", "calibration", "seed"}) EXPECT_EQ(before[same], after[same]) << same;
  // Biases that the model did not have are all that the file gains.
  EXPECT_NEAR(static_cast<double>(std::filesystem::file_size(kHomeModel)), static_cast<double>(std::filesystem::file_size(start)),
              0.02 * static_cast<double>(std::filesystem::file_size(start)));
  EXPECT_LT(Perplexity(kHomeModel), Perplexity(start));
}

// The same compiler and instruction set make the same bytes, others the same sizes and a perplexity within 0.5 %.
TEST(MoeModel, ItsCommandMakesItAgain) {
  ACORN_NEED_SHARED("models/moe/config.json");
  const TempFolder folder;
  const std::string again = folder.File("moe.acorn");
  ASSERT_NO_FATAL_FAILURE(Convert("models/moe", again));
  const auto compiler_of = [](const json &report) { return report.value("provenance", json::object()).value("compiler", ""); };
  const std::string before = compiler_of(Inspect(kMoeModel)), after = compiler_of(Inspect(again));
  if (before == after && before != "") {
    EXPECT_EQ(ReadFile(kMoeModel) == ReadFile(again), true) << "the same compiler and instruction set gave other bytes";
    return;
  }
  EXPECT_EQ(std::filesystem::file_size(kMoeModel), std::filesystem::file_size(again));
  const double recorded = Perplexity(kMoeModel);
  EXPECT_NEAR(Perplexity(again), recorded, 0.005 * recorded);
}

}  // namespace
}  // namespace acorn::test
