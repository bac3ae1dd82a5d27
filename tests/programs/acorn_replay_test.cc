// acorn replay: its table, JSON and picture, and what it says when it is asked wrongly.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/subprocess.h"
#include "tests/support/temp_folder.h"

namespace acorn::test {
namespace {

using nlohmann::json;
using Words = std::vector<std::string>;

class ReplayCommand : public testing::Test {
 protected:
  static Outcome Replay(Words words) {
    words.insert(words.begin(), {ACORN_PROGRAM, "replay"});
    return RunProgram(words);
  }
  static Outcome Synthetic(Words words) {
    words.insert(words.begin(), {"--synthetic", "4x8x2", "--tokens", "60"});
    return Replay(words);
  }
  static json Report(Words words) {
    words.push_back("--json");
    const Outcome outcome = Synthetic(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return json::parse(outcome.out, nullptr, false);
  }
  static void ExpectFailure(const Outcome &outcome, int code, const Words &texts) {
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    for (const std::string &text : texts) EXPECT_NE(outcome.err.find(text), std::string::npos) << outcome.err;
  }

  TempFolder folder_;
};

TEST_F(ReplayCommand, TableHasARowForEachSizeAndPolicy) {
  const Outcome outcome = Synthetic({"--cache", "25%,50%,100%"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), 4 + 3 * 4) << outcome.out;
  for (const char *text : {"4 layers of 8 experts, 2 a token", "ufs31: 100 us, 2000 MB/s", "working set: 8 slots, 25.0 %", "edgemoe"}) {
    EXPECT_NE(outcome.out.find(text), std::string::npos) << outcome.out;
  }
}

TEST_F(ReplayCommand, JsonHoldsWhatWasMeasured) {
  const json report = Report({"--cache", "5%..100%", "--prompt-tokens", "16", "--expert-bytes", "1M", "--device", "50:1000:4"});
  EXPECT_EQ(report["tokens"], 76);
  EXPECT_EQ(report["slot_bytes"], 1 << 20);
  EXPECT_EQ(report["smallest_useful_slots"], 8);
  EXPECT_EQ(report["device"]["depth"], 4);
  const json &sizes = report["sizes"];
  ASSERT_EQ(sizes.size(), 20u);
  uint64_t misses = ~uint64_t{0};
  for (const json &size : sizes) {
    const json &policies = size["policies"];
    EXPECT_EQ(policies.size(), 4u);
    const json &best = policies["belady"];
    EXPECT_LE(best["misses"].get<uint64_t>(), misses) << "more slots, more misses";
    misses = best["misses"];
    EXPECT_EQ(size["bytes"], size["slots"].get<uint64_t>() << 20);
    for (const json &policy : policies) {
      EXPECT_GE(policy["misses"].get<uint64_t>(), misses);
      EXPECT_EQ(policy["bytes_read"].get<uint64_t>(), policy["misses"].get<uint64_t>() << 20);
      EXPECT_EQ(policy["hits"].get<uint64_t>() + policy["misses"].get<uint64_t>(), best["hits"].get<uint64_t>() + misses);
      EXPECT_GT(policy["decode_tokens_per_s"].get<double>(), 0);
      EXPECT_GT(policy["prefill_tokens_per_s"].get<double>(), 0);
    }
  }
  EXPECT_EQ(sizes[0]["slots"], 2);
  EXPECT_EQ(sizes[19]["slots"], 32);
}

TEST_F(ReplayCommand, SizesAreSlotsOnceEach) {
  const json sizes = Report({"--cache", "50%,1G,25%,16M,33M,50%", "--expert-bytes", "2M", "--policy", "lru"})["sizes"];
  std::vector<uint64_t> slots;
  for (const json &size : sizes) slots.push_back(size["slots"]);
  EXPECT_EQ(slots, (std::vector<uint64_t>{8, 16, 32}));
  EXPECT_EQ(sizes[0]["policies"].size(), 2u);  // and Belady's
}

TEST_F(ReplayCommand, ATraceGivesWhatItsMakerGave) {
  const std::string trace = folder_.File("trace");
  const Outcome made = Synthetic({"-o", trace, "--json", "--prefetch", "gate"});
  EXPECT_EQ(made.code, 0) << made.err;
  const Outcome read = Replay({trace, "--json", "--prefetch", "gate"});
  EXPECT_EQ(read.code, 0) << read.err;
  EXPECT_EQ(json::parse(made.out)["sizes"], json::parse(read.out)["sizes"]);
}

TEST_F(ReplayCommand, DrawsAPicture) {
  const std::string path = folder_.File("replay.svg");
  EXPECT_EQ(Synthetic({"--svg", path, "--cache", "10%..60%"}).code, 0);
  const std::string svg = ReadFile(path);
  EXPECT_EQ(svg.compare(0, 4, "<svg"), 0);
  EXPECT_EQ(svg.substr(svg.size() - 7), "</svg>\n");
  for (const char *text : {"hit rate", "tokens/s", "lfru", "stroke-dasharray", "synthetic 4x8x2 on ufs31"}) {
    EXPECT_NE(svg.find(text), std::string::npos) << text;
  }
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST_F(ReplayCommand, BadUsageIsTwo) {
  ExpectFailure(Replay({}), 2, {"TRACE or --synthetic"});
  ExpectFailure(Replay({"x", "--synthetic", "4x8x2"}), 2, {"not both"});
  ExpectFailure(Replay({"x", "y"}), 2, {"unexpected argument y"});
  ExpectFailure(Replay({"x", "-o", "y"}), 2, {"-o is for --synthetic"});
  for (const char *shape : {"4", "4x8", "0x8x2", "4x8x9", "4x8x2x", "4x8x-2", "99999x8x2", "4x9999x2"}) {
    ExpectFailure(Replay({"--synthetic", shape}), 2, {std::string("--synthetic ") + shape, "LAYERSxEXPERTSxTOPK"});
  }
  for (const char *cache : {"0%", "101%", "5%..", "50%..5%", "5..10%", "abc", "25%,", "-5%", "%"}) {
    ExpectFailure(Synthetic({"--cache", cache}), 2, {std::string("--cache ") + cache, "5%..100%"});
  }
  ExpectFailure(Synthetic({"--cache", "1M"}), 2, {"--cache 1M", "an expert needs 2097152 bytes"});
  for (const char *policy : {"fifo", "lru,fifo", "lru,lru"}) {
    ExpectFailure(Synthetic({"--policy", policy}), 2, {std::string("--policy ") + policy, "lfru, lru, edgemoe, belady"});
  }
  ExpectFailure(Synthetic({"--device", "floppy"}), 2, {"--device floppy", "emmc51", "LATENCY_US:MB_PER_S:DEPTH"});
  ExpectFailure(Synthetic({"--prefetch", "routes"}), 2, {"--prefetch routes: off, gate or path is wanted"});
  ExpectFailure(Synthetic({"--expert-bytes", "0"}), 2, {"--expert-bytes 0"});
  ExpectFailure(Synthetic({"--expert-bytes", "4G"}), 2, {"--expert-bytes 4294967296"});
}

TEST_F(ReplayCommand, BadTracesAreThreeAndMissingOnesFive) {
  ExpectFailure(Replay({folder_.Write("text", "no trace at all")}), 3, {"text", "acorntrc", "offset 0"});
  ExpectFailure(Replay({folder_.File("none")}), 5, {"none", "No such file"});
  ExpectFailure(Replay({folder_.path()}), 5, {"directory"});
  ExpectFailure(Synthetic({"--svg", folder_.File("none/x.svg")}), 5, {"x.svg"});
  ExpectFailure(Synthetic({"-o", folder_.File("none/x")}), 5, {"none/x"});
}

}  // namespace
}  // namespace acorn::test
