// The committed home model: it answers, its memory keeps to the plan, and its recorded command makes it again.
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

const std::string kHomeModel = std::string(ACORN_SOURCE_DIR) + "/examples/models/home.acorn";

json Inspect(const std::string &file) {
  const Outcome outcome = RunProgram({ACORN_COMPILER, "inspect", file, "--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  return json::parse(outcome.out, nullptr, false);
}

std::string CompilerOf(const json &report) {
  const json provenance = report.value("provenance", json::object());
  return provenance.value("compiler", "");
}

double Perplexity(const std::string &file) {
  const Outcome outcome = RunProgram({ACORN_PROGRAM, "perplexity", file, "--text", SharedPath("data/text/mixed/valid.txt"), "--windows", "20", "--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  return json::parse(outcome.out)["perplexity"];
}

TEST(HomeModel, AnswersCommandsWithJson) {
  const std::vector<std::pair<std::string, std::string>> turns = {
      {"turn off the lights in the kitchen", R"([{"action":"power","device":"light","room":"kitchen","state":"off"}])"},
      {"turn on the lamp in the bedroom", R"({"action":"power","device":"lamp","room":"bedroom","state":"on"})"},
  };
  for (const auto &[prompt, answer] : turns) {
    const Outcome outcome = RunProgram({ACORN_PROGRAM, "run", kHomeModel, "--chat", "-p", prompt, "-n", "80"});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const json said = json::parse(outcome.out, nullptr, false);
    ASSERT_FALSE(said.is_discarded()) << outcome.out;
    json expected = json::parse(answer);
    if (said.is_object() && expected.is_array()) expected = expected[0];
    EXPECT_EQ(said, expected);
  }
}

TEST(HomeModel, PeakMemoryKeepsToThePlan) {
  const Outcome outcome = RunProgram({ACORN_PROGRAM, "bench", kHomeModel, "--prompt-tokens", "300", "--gen-tokens", "50", "--threads", "2", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json report = json::parse(outcome.out);
  const uint64_t planned = report["image_bytes"].get<uint64_t>() + report["block_bytes"].get<uint64_t>();
  EXPECT_LE(report["peak_rss_bytes"].get<uint64_t>(), planned + (4u << 20));
}

TEST(HomeModel, IsSmallEnoughToEmbed) { EXPECT_LE(std::filesystem::file_size(kHomeModel), 12u << 20); }

// examples/models/README.md has the command.
TEST(HomeModel, ItsCommandMakesItAgain) {
  ACORN_NEED_SHARED("models/dense/config.json");
  const TempFolder folder;
  const std::string again = folder.File("home.acorn");
  const Outcome outcome = RunProgram({ACORN_COMPILER, "convert", SharedPath("models/dense"), "-o", again, "--calibration",
                                      SharedPath("data/commands/calibration.txt"), "--calibration",
                                      SharedPath("data/text/mixed/calibration.txt")});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json before = Inspect(kHomeModel), after = Inspect(again);
  if (CompilerOf(before) == CompilerOf(after) && CompilerOf(before) != "") {
    EXPECT_EQ(ReadFile(kHomeModel) == ReadFile(again), true) << "the same compiler and instruction set gave other bytes";
    return;
  }
  EXPECT_EQ(std::filesystem::file_size(kHomeModel), std::filesystem::file_size(again));
  const double recorded = Perplexity(kHomeModel);
  EXPECT_NEAR(Perplexity(again), recorded, 0.005 * recorded);
}

}  // namespace
}  // namespace acorn::test
