// Conversations without an end on the command line: figures against the reference, which keeps every row.
#include <gtest/gtest.h>

#include <cinttypes>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/programs/program_test.h"
#include "tests/reference/reference_model.h"

namespace acorn::test {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

std::string Hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016" PRIx64, value);
  return text;
}

ModelSpec EndlessSpec() {
  ModelSpec spec = TalkingSpec();
  spec.windows = {24, 50};
  spec.prefix_rows = 1;
  return spec;
}

class EndlessProgram : public ProgramTest {
 protected:
  EndlessProgram() : file_without_end_(BuildModel(EndlessSpec())), path_(folder_.File("endless.acorn")),
        reference_(std::vector<uint8_t>(file_without_end_.data(), file_without_end_.data() + file_without_end_.size())) {
    EXPECT_TRUE(WriteModel(file_without_end_, path_));
  }
  json Report(const std::vector<std::string> &words) const {
    const Outcome outcome = Acorn(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return json::parse(outcome.out, nullptr, false);
  }
  std::string Text() const {
    std::string text;
    for (int i = 0; i < 90; ++i) text += "turn on lamp " + std::to_string(i * 37 % 101) + " in the kitchen, please. ";
    return text;
  }
  Ids Encode(const std::string &text) const {
    return json::parse(Acorn({"tokenize", path_, "--json", "--bos"}, text).out)["ids"].get<Ids>();
  }

  const AlignedBytes file_without_end_;
  const std::string path_;
  const reference::ReferenceModel reference_;
};

TEST_F(EndlessProgram, ThePlanSaysSo) {
  const json plan = Report({"plan", path_, "--json"});
  EXPECT_EQ(plan["endless"], 1);
  EXPECT_EQ(plan["context_tokens"], 160);
  EXPECT_NE(Acorn({"plan", path_}).out.find("without an end"), std::string::npos);
  const json bounded = Report({"plan", path_, "--json", "--context", "100"});
  EXPECT_EQ(bounded["endless"], 0);
  EXPECT_EQ(bounded["context_tokens"], 100);
}

TEST_F(EndlessProgram, BenchGoesOnBehindTheContext) {
  const std::vector<std::string> words = {"bench", path_, "--prompt-tokens", "330", "--gen-tokens", "70", "--repetitions", "1", "--json"};
  const json report = Report(words);
  Random random(0);
  Ids ids(400);
  for (int32_t &id : ids) id = static_cast<int32_t>(random.Next() % reference_.vocab_size());
  const std::vector<int32_t> logits = reference_.Logits(ids);
  const size_t skip = size_t{329} * reference_.vocab_size();
  EXPECT_EQ(report["digest"], Hex(reference::Digest(logits.data() + skip, logits.size() - skip)));
  const json bounded_plan = Report({"plan", path_, "--json", "--context", "160"});
  EXPECT_LE(report["scratch_bytes"].get<uint64_t>(), bounded_plan["scratch_bytes"].get<uint64_t>());
}

TEST_F(EndlessProgram, StreamsAndStridesAreTheReferences) {
  const std::string text = folder_.Write("text", Text());
  const Ids ids = Encode(Text());
  const size_t vocab = reference_.vocab_size();
  constexpr size_t kStream = 400, kFrom = 40, kWindow = 50, kStride = 10;
  ASSERT_GE(ids.size(), kStream);
  const Ids stream(ids.begin(), ids.begin() + kStream);
  const std::vector<int32_t> all = reference_.Logits(stream);
  const json streamed = Report({"perplexity", path_, "--text", text, "--stream", "400", "--score-from", "40", "--json"});
  EXPECT_EQ(streamed["tokens"], kStream - kFrom);
  EXPECT_EQ(streamed["windows"], 1);
  const size_t first = (kFrom - 1) * vocab, last = (kStream - 1) * vocab;
  EXPECT_EQ(streamed["digest"], Hex(reference::Digest(all.data() + first, last - first)));

  std::vector<int32_t> scored;
  for (size_t begin = 0; begin + kWindow <= kStream; begin += kStride) {
    const auto from = ids.begin() + static_cast<std::ptrdiff_t>(begin);
    const std::vector<int32_t> logits = reference_.Logits(Ids(from, from + kWindow));
    scored.insert(scored.end(), logits.begin() + static_cast<std::ptrdiff_t>((kFrom - 1) * vocab),
                  logits.begin() + static_cast<std::ptrdiff_t>((kWindow - 1) * vocab));
  }
  const json afresh = Report({"perplexity", path_, "--text", text, "--window", "50", "--stride", "10", "--windows", "36", "--json"});
  EXPECT_EQ(afresh["tokens"], kStream - kFrom);  // the same ones
  EXPECT_EQ(afresh["digest"], Hex(reference::Digest(scored.data(), scored.size())));
}

TEST_F(EndlessProgram, OptionsThatContradictAreRefused) {
  const std::string text = folder_.Write("text", Text());
  const auto refused = [&](std::vector<std::string> words, const char *what) {
    words.insert(words.begin(), {"perplexity", path_, "--text", text});
    const Outcome outcome = Acorn(words);
    EXPECT_EQ(outcome.code, 2);
    EXPECT_NE(outcome.err.find(what), std::string::npos) << outcome.err;
  };
  refused({"--stream", "100", "--window", "50"}, "--stream");
  refused({"--stream", "100", "--stride", "50"}, "--stream");
  refused({"--window", "50", "--stride", "51"}, "--stride 51");
  refused({"--stream", "100", "--context", "99"}, "--context 99");
  EXPECT_EQ(Acorn({"perplexity", "MODEL", "--text", text, "--stream", "161"}).code, 2);  // a model whose context ends
}

TEST_F(EndlessProgram, ChatGoesOn) {
  std::string lines;
  for (int i = 0; i < 30; ++i) lines += "turn on lamp " + std::to_string(i) + " in the kitchen\n";
  const Outcome outcome = Acorn({"chat", path_, "-n", "10"}, lines + "/quit\n");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err.find("full"), std::string::npos) << outcome.err;
  EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), 30);
}

}  // namespace
}  // namespace acorn::test
