// acorn's figures against the reference: digests, greedy answers, perplexity.
#include <gtest/gtest.h>

#include <algorithm>
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

class Answers : public ProgramTest {
 protected:
  Answers() : reference_(std::vector<uint8_t>(file_.data(), file_.data() + file_.size())) {}

  Ids Tokenize(const std::vector<std::string> &options, const std::string &text) const {
    std::vector<std::string> words = {"tokenize", "MODEL", "--json"};
    words.insert(words.end(), options.begin(), options.end());
    return json::parse(Acorn(words, text).out)["ids"].get<Ids>();
  }
  // The likeliest token after each of the rows.
  Ids Best(const std::vector<int32_t> &logits) const {
    Ids best;
    for (size_t row = 0; row < logits.size(); row += reference_.vocab_size()) {
      const auto begin = logits.begin() + static_cast<int64_t>(row);
      best.push_back(static_cast<int32_t>(std::max_element(begin, begin + reference_.vocab_size()) - begin));
    }
    return best;
  }

  reference::ReferenceModel reference_;
};

// Digest of a run: the row after the prompt, and the row after each accepted token.
TEST_F(Answers, GreedyRunsAreTheReferences) {
  for (const bool chat : {false, true}) {
    std::vector<std::string> options;
    if (chat) options.push_back("--chat");
    const Ids prompt = Tokenize(options, "the lamp in the kitchen");
    std::vector<std::string> words = {"run", "MODEL", "-p", "the lamp in the kitchen", "-n", "10", "--json"};
    words.insert(words.end(), options.begin(), options.end());
    const Outcome outcome = Acorn(words);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const json report = json::parse(outcome.err);
    EXPECT_EQ(report["prompt_tokens"], prompt.size());

    Ids all = prompt;
    const size_t tokens = report["tokens"];
    for (size_t i = 0; i < tokens; ++i) all.push_back(Best(reference_.Logits(all)).back());
    EXPECT_TRUE(tokens == 10 || all.back() == 0) << "ended early, but not by the end token";
    const std::vector<int32_t> logits = reference_.Logits(all);
    const size_t skip = (prompt.size() - 1) * reference_.vocab_size();
    EXPECT_EQ(report["digest"], Hex(reference::Digest(logits.data() + skip, logits.size() - skip)));
    EXPECT_EQ(report["ids_digest"], Hex(reference::Digest(all.data() + prompt.size(), tokens)));
  }
}

TEST_F(Answers, PerplexityIsTheReferences) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += "turn on lamp " + std::to_string(i * 37 % 101) + " in the kitchen, please. ";
  const Ids ids = Tokenize({"--bos"}, text);
  constexpr size_t kWindow = 24, kFrom = 5, kWindows = 3;
  ASSERT_GE(ids.size(), kWindow * (kWindows + 1));
  const Outcome outcome = Acorn({"perplexity", "MODEL", "--text", folder_.Write("text", text), "--window", "24", "--score-from",
                                 "5", "--windows", "3", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json report = json::parse(outcome.out);

  // The builder's logit factor: 2.5 natural units are 2^20.
  const double unit = 2.5 / (1 << 20);
  const size_t vocab = reference_.vocab_size();
  double loss = 0;
  std::vector<int32_t> scored;
  for (size_t w = 0; w < kWindows; ++w) {
    const Ids window(ids.begin() + static_cast<int64_t>(w * kWindow), ids.begin() + static_cast<int64_t>((w + 1) * kWindow));
    const std::vector<int32_t> logits = reference_.Logits(window);
    for (size_t position = kFrom; position < kWindow; ++position) {
      const int32_t *row = logits.data() + (position - 1) * vocab;
      double sum = 0;
      for (size_t i = 0; i < vocab; ++i) sum += std::exp((row[i] - row[window[position]]) * unit);
      loss += std::log(sum);
      scored.insert(scored.end(), row, row + vocab);
    }
  }
  const size_t count = kWindows * (kWindow - kFrom);
  EXPECT_EQ(report["tokens"], count);
  EXPECT_NEAR(report["perplexity"].get<double>(), std::exp(loss / static_cast<double>(count)),
              1e-4 * report["perplexity"].get<double>());
  EXPECT_EQ(report["digest"], Hex(reference::Digest(scored.data(), scored.size())));
}

TEST_F(Answers, BenchIsTheReferences) {
  const Outcome outcome =
      Acorn({"bench", "MODEL", "--prompt-tokens", "11", "--gen-tokens", "4", "--repetitions", "1", "--seed", "5", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  Random random(5);
  Ids ids(15);
  for (int32_t &id : ids) id = static_cast<int32_t>(random.Next() % reference_.vocab_size());
  const std::vector<int32_t> logits = reference_.Logits(ids);
  const size_t skip = 10 * reference_.vocab_size();
  EXPECT_EQ(json::parse(outcome.out)["digest"], Hex(reference::Digest(logits.data() + skip, logits.size() - skip)));
}

}  // namespace
}  // namespace acorn::test
