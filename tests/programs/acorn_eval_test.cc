// acorn eval by likelihood: its figures against the reference, which computes every choice from its first token on.
#include <gtest/gtest.h>

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/programs/program_test.h"
#include "tests/reference/reference_model.h"
#include "tests/support/formula.h"

namespace acorn::test {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;
using Words = std::vector<std::string>;

// The builder's logit factor: 2.5 natural units are 2^20.
constexpr double kUnit = 2.5 / (1 << 20);

enum class Start { kNone, kFed, kPrefix };  // what the tokenizer and the model do with a start token

ModelSpec SpecOf(Start start) {
  ModelSpec spec = TalkingSpec();
  if (start == Start::kNone) return spec;
  const TempFolder folder;
  const std::string config =
      folder.Write("tokenizer_config.json", R"({"bos_token": "<|user|>", "eos_token": "<|endoftext|>", "add_bos_token": true})");
  spec.tokenizer = compiler::BuildTokenizerSegment(compiler::ReadTokenizerJson(DataPath("text/tokenizer.json"), config, "", {}));
  spec.prefix_rows = start == Start::kPrefix ? 1 : 0;  // the builder's first prefix token is 1, <|user|>
  return spec;
}

class Eval : public ProgramTest {
 protected:
  void Open(Start start) {
    start_ = start;
    file_ = BuildModel(SpecOf(start));
    ASSERT_TRUE(WriteModel(file_, model_));
    reference_ = std::make_unique<reference::ReferenceModel>(std::vector<uint8_t>(file_.data(), file_.data() + file_.size()));
  }
  std::string WriteLines(const std::vector<json> &questions) const {
    std::string lines;
    for (const json &question : questions) lines += question.dump() + "\n";
    return folder_.Write("data.jsonl", lines);
  }
  json Report(const std::string &task, const std::string &data, const Words &options = {}) const {
    Words words = {"eval", "MODEL", "--task", task, "--data", data, "--threads", "1", "--json"};
    words.insert(words.end(), options.begin(), options.end());
    const Outcome outcome = Acorn(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return json::parse(outcome.out, nullptr, false);
  }
  Ids Tokenize(const std::string &text) const {
    return json::parse(Acorn({"tokenize", "MODEL", "--bos", "--json"}, text).out)["ids"].get<Ids>();
  }

  struct Scored {
    Ids ids;
    size_t first = 0;
    bool truncated = false, likeliest = true;
    double log_likelihood = 0;
    std::vector<int32_t> logits;  // [ids.size() - first, vocab]
  };
  Scored Score(std::string context, const std::string &continuation, size_t capacity = 160) const {
    Scored scored;
    scored.ids = Tokenize(context + continuation);
    context.erase(context.find_last_not_of(" \n") + 1);
    scored.first = Tokenize(context).size();
    if (start_ == Start::kPrefix) scored.ids.erase(scored.ids.begin()), --scored.first;
    if (scored.first == 0) {
      // Without a start token of its own, the tokenizer of the talking model has <|endoftext|> for one.
      scored.ids.insert(scored.ids.begin(), start_ == Start::kNone ? 0 : 1);
      scored.first = 1;
    }
    if (scored.ids.size() > capacity + 1) {
      const size_t cut = scored.ids.size() - capacity - 1;
      scored.ids.erase(scored.ids.begin(), scored.ids.begin() + static_cast<int64_t>(cut));
      scored.first -= cut;
      scored.truncated = true;
    }
    const size_t vocab = reference_->vocab_size();
    const std::vector<int32_t> all = reference_->Logits(Ids(scored.ids.begin(), scored.ids.end() - 1));
    scored.logits.assign(all.begin() + static_cast<int64_t>((scored.first - 1) * vocab), all.end());
    for (size_t i = scored.first; i < scored.ids.size(); ++i) {
      const int32_t *row = all.data() + (i - 1) * vocab;
      double sum = 0;
      for (size_t n = 0; n < vocab; ++n) sum += std::exp((row[n] - row[scored.ids[i]]) * kUnit);
      scored.log_likelihood -= std::log(sum);
      scored.likeliest = scored.likeliest && std::max_element(row, row + vocab) - row == scored.ids[i];
    }
    return scored;
  }
  // Appends the rows of `scored` but for those of positions that it has in common with the one before it.
  void Append(const Scored &scored, const Scored &before, std::vector<int32_t> *rows) const {
    const size_t least = std::min(scored.ids.size(), before.ids.size());
    const size_t common = static_cast<size_t>(
        std::mismatch(scored.ids.begin(), scored.ids.begin() + static_cast<int64_t>(least), before.ids.begin()).first -
        scored.ids.begin());
    const size_t skip = common > scored.first ? common - scored.first : 0;
    const auto begin = scored.logits.begin() + static_cast<int64_t>(skip * reference_->vocab_size());
    rows->insert(rows->end(), begin, scored.logits.end());
  }

  Start start_ = Start::kNone;
  std::unique_ptr<reference::ReferenceModel> reference_;
};

std::string Hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016" PRIx64, value);
  return text;
}

std::string Phrase(Random *random, size_t most) {
  static const char *const kWords[] = {"the", "lamp", "in", "kitchen", "turn", "on", "42", "a", "Zürich", "please"};
  std::string phrase;
  for (size_t i = 0, count = 1 + random->Next() % most; i < count; ++i) {
    phrase += (phrase.empty() ? "" : " ") + std::string(kWords[random->Next() % std::size(kWords)]);
  }
  return phrase;
}

size_t CodePoints(const std::string &text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

// Choices that have much, all or nothing in common, after queries that repeat.
std::vector<json> Choices(uint64_t seed) {
  Random random(seed);
  std::vector<json> questions;
  std::string query = "the";
  for (int i = 0; i < 12; ++i) {
    if (i % 3 != 0) query = Phrase(&random, 8) + (i % 4 == 1 ? "\n" : "");
    const std::string stem = Phrase(&random, 6);
    Words choices = {stem + " " + Phrase(&random, 3), stem + " " + Phrase(&random, 3), Phrase(&random, 3)};
    if (i % 4 == 0) choices.push_back(stem);        // the beginning of another one
    if (i % 4 == 2) choices.push_back(choices[2]);  // the same again
    questions.push_back({{"query", query}, {"choices", choices}, {"gold", random.Next() % choices.size()}});
  }
  return questions;
}

TEST_F(Eval, ChoicesAreTheReferences) {
  for (const Start start : {Start::kNone, Start::kFed, Start::kPrefix}) {
    Open(start);
    const std::vector<json> questions = Choices(7);
    uint64_t plain = 0, normalised = 0, tokens = 0, plain_computed = 0;
    std::vector<int32_t> rows;
    Scored before;
    for (const json &question : questions) {
      std::vector<double> sums, means;
      for (const std::string choice : question["choices"]) {
        const Scored scored = Score(question["query"], " " + choice);
        sums.push_back(scored.log_likelihood);
        means.push_back(scored.log_likelihood / static_cast<double>(CodePoints(choice)));
        tokens += scored.ids.size() - scored.first;
        plain_computed += scored.ids.size() - 1;
        Append(scored, before, &rows);
        before = scored;
      }
      const auto best = [](const std::vector<double> &v) { return std::max_element(v.begin(), v.end()) - v.begin(); };
      plain += best(sums) == question["gold"] ? 1 : 0;
      normalised += best(means) == question["gold"] ? 1 : 0;
    }
    const std::string data = WriteLines(questions);
    for (const char *task : {"piqa", "arc-easy"}) {
      const json report = Report(task, data);
      EXPECT_EQ(report["task"], task);
      EXPECT_EQ(report["total"], questions.size());
      EXPECT_EQ(report["correct"], normalised);
      const double total = static_cast<double>(questions.size());
      EXPECT_NEAR(report["accuracy"].get<double>(), static_cast<double>(normalised) / total, 1e-6);
      EXPECT_EQ(report["accuracy_norm"], report["accuracy"]);
      EXPECT_NEAR(report["accuracy_plain"].get<double>(), static_cast<double>(plain) / total, 1e-6);
      EXPECT_EQ(report["truncated"], 0);
      EXPECT_EQ(report["tokens"], tokens);
      EXPECT_LT(report["computed_tokens"].get<uint64_t>(), plain_computed * 2 / 3);
      EXPECT_EQ(report["digest"], Hex(reference::Digest(rows.data(), rows.size())));
      EXPECT_FALSE(report.contains("perplexity"));
      EXPECT_TRUE(report.contains("isa"));
    }
  }
}

TEST_F(Eval, LastWordsAreTheReferences) {
  Open(Start::kNone);
  Random random(3);
  std::vector<json> questions;
  for (int i = 0; i < 8; ++i) {
    const std::string context = Phrase(&random, 9);
    questions.push_back({{"context", context}, {"continuation", Phrase(&random, 1)}});
  }
  questions.push_back({{"context", ""}, {"continuation", "lamp"}});
  uint64_t correct = 0, tokens = 0;
  double log_likelihood = 0;
  std::vector<int32_t> rows;
  Scored before;
  for (const json &question : questions) {
    const Scored scored = Score(question["context"], " " + question["continuation"].get<std::string>());
    correct += scored.likeliest ? 1 : 0;
    tokens += scored.ids.size() - scored.first;
    log_likelihood += scored.log_likelihood;
    Append(scored, before, &rows);
    before = scored;
  }
  const json report = Report("lambada", WriteLines(questions));
  EXPECT_EQ(report["correct"], correct);
  EXPECT_EQ(report["total"], questions.size());
  EXPECT_EQ(report["tokens"], tokens);
  const double perplexity = std::exp(-log_likelihood / static_cast<double>(questions.size()));
  EXPECT_NEAR(report["perplexity"].get<double>(), perplexity, 1e-4 * perplexity);
  EXPECT_EQ(report["digest"], Hex(reference::Digest(rows.data(), rows.size())));
  EXPECT_FALSE(report.contains("accuracy_norm"));
}

// What the model says itself is right, and nothing else is.
TEST_F(Eval, TheModelsOwnWordIsRight) {
  Open(Start::kNone);
  std::vector<json> questions;
  Random random(11);
  for (int i = 0; i < 200 && questions.size() < 3; ++i) {
    const std::string context = Phrase(&random, 6);
    const std::string said = Acorn({"run", "MODEL", "-p", context, "-n", "1", "--threads", "1"}).out;
    const std::string word = said.substr(1, said.size() - 2);  // without the line break behind it
    if (said[0] != ' ' || word.find_first_not_of("abcdefghijklmnopqrstuvwxyz") != std::string::npos || word.empty()) continue;
    questions.push_back({{"context", context}, {"continuation", word}});
  }
  ASSERT_FALSE(questions.empty());
  EXPECT_EQ(Report("lambada", WriteLines(questions))["correct"], questions.size());
  for (json &question : questions) question["continuation"] = "Zürich";
  const std::string data = WriteLines(questions);
  EXPECT_EQ(Report("lambada", data)["correct"], 0);
  const Outcome human = Acorn({"eval", "MODEL", "--task", "lambada", "--data", data, "--limit", "1", "--verbose"});
  EXPECT_EQ(human.out.find("0 of 1 right (0.0 %); perplexity of the words "), 0u) << human.out;
  EXPECT_EQ(human.err, "wrong: " + data + ", line 1\n");
}

TEST_F(Eval, ContextsAreTheReferencesAndMayBeCut) {
  constexpr size_t kCapacity = 12;
  Open(Start::kFed);
  Random random(5);
  std::vector<json> questions;
  for (int i = 0; i < 10; ++i) {
    const std::string sentence = Phrase(&random, 8);
    questions.push_back({{"context_options", {sentence + " lamp", sentence + " kitchen"}},
                         {"continuation", Phrase(&random, 3)},
                         {"gold", random.Next() % 2}});
  }
  uint64_t correct = 0, truncated = 0;
  for (const json &question : questions) {
    const std::string continuation = " " + question["continuation"].get<std::string>();
    const Scored one = Score(question["context_options"][0], continuation, kCapacity);
    const Scored two = Score(question["context_options"][1], continuation, kCapacity);
    correct += (two.log_likelihood > one.log_likelihood ? 1 : 0) == question["gold"] ? 1 : 0;
    truncated += one.truncated || two.truncated ? 1 : 0;
  }
  ASSERT_GT(truncated, 0u);
  ASSERT_LT(truncated, questions.size());
  const std::string data = WriteLines(questions);
  const json report = Report("winogrande", data, {"--context", std::to_string(kCapacity)});
  EXPECT_EQ(report["correct"], correct);
  EXPECT_EQ(report["truncated"], truncated);
  EXPECT_EQ(report["accuracy_plain"], report["accuracy"]);
  const Outcome human =
      Acorn({"eval", "MODEL", "--task", "winogrande", "--data", data, "--context", std::to_string(kCapacity)});
  EXPECT_NE(human.out.find(std::to_string(truncated) + " cut at the left"), std::string::npos) << human.out;
}

TEST_F(Eval, NothingButTheMachineChangesWithTheMachinesOptions) {
  Open(Start::kPrefix);
  const std::string data = WriteLines(Choices(9));
  const json expected = Report("piqa", data);
  const std::vector<Words> variants = {{"--threads", "2"}, {"--threads", "3"},    {"--chunk", "1"},
                                       {"--chunk", "3"},   {"--isa", "scalar"}, {"--context", "100"}};
  for (const Words &options : variants) {
    const json report = Report("piqa", data, options);
    for (const char *key : {"correct", "accuracy_plain", "accuracy_norm", "tokens", "computed_tokens", "digest"}) {
      EXPECT_EQ(report[key], expected[key]) << options[0] << " " << options[1] << " " << key;
    }
  }
}

TEST_F(Eval, EscapedTextIsTheSameText) {
  Open(Start::kNone);
  const json question = {{"other", {1, {{"query", "no"}}}}, {"query", "a\t\"Zürich\" 😀 \\ lamp"},
                         {"choices", {"on \xf0\x9f\x98\x80", "ü", "on/off"}}, {"gold", 1}};
  const json plain = Report("piqa", folder_.Write("plain", question.dump()));
  const json escaped = Report("piqa", folder_.Write("escaped", "\r\n\n " + question.dump(-1, ' ', true) + "\r\n"));
  EXPECT_EQ(plain["digest"], escaped["digest"]);
  EXPECT_EQ(plain["total"], 1);
  // A surrogate without its other half is no character: U+FFFD stands for it.
  const json half = Report("lambada", folder_.Write("half", R"({"context": "a \ud83d b", "continuation": "c"})"));
  const json replaced =
      Report("lambada", folder_.Write("replaced", "{\"context\": \"a \xef\xbf\xbd b\", \"continuation\": \"c\"}"));
  EXPECT_EQ(half["digest"], replaced["digest"]);
}

TEST_F(Eval, BadQuestionsAreTwoWithTheLine) {
  const auto expect = [&](const char *task, const std::string &line, const Words &texts, const Words &options = {}) {
    const std::string good = std::string(task) == "lambada" ? R"({"context": "a", "continuation": "b"})"
                             : std::string(task) == "winogrande"
                                 ? R"({"context_options": ["a", "b"], "continuation": "b", "gold": 0})"
                                 : R"({"query": "a", "choices": ["b", "c"], "gold": 1})";
    Words words = {"eval", "MODEL", "--task", task, "--data", folder_.Write("bad.jsonl", good + "\n\n" + line + "\n")};
    words.insert(words.end(), options.begin(), options.end());
    const Outcome outcome = Acorn(words);
    EXPECT_EQ(outcome.code, 2) << line;
    EXPECT_EQ(outcome.out, "") << line;
    EXPECT_NE(outcome.err.find("bad.jsonl, line 3: "), std::string::npos) << line << outcome.err;
    for (const std::string &text : texts) EXPECT_NE(outcome.err.find(text), std::string::npos) << line << outcome.err;
  };
  expect("lambada", "context", {"no JSON object", "context and continuation"});
  expect("lambada", R"({"context": "a", "continuation": "b")", {"no JSON object"});
  expect("lambada", R"({"context": "a", "continuation": "b"} x)", {"no JSON object"});
  expect("lambada", R"({"context": "a", "continuation": "\ud83d\u0041"})", {"no JSON object"});
  expect("lambada", R"({"query": "a", "choices": ["b", "c"], "gold": 1})", {"no context (text)", "--task lambada"});
  expect("lambada", R"({"context": "a", "continuation": 5})", {"no continuation (text)"});
  expect("lambada", R"({"context": "a", "continuation": " "})", {"continuation is empty"});
  expect("lambada", R"({"context": "a", "continuation": "one two three four five six"})",
         {"the continuation has ", "the context holds 3"}, {"--context", "3"});
  expect("piqa", R"({"context": "a", "continuation": "b"})", {"no query (text)", "query, choices and gold"});
  expect("piqa", R"({"query": "a", "choices": "b", "gold": 0})", {"no choices (array of texts)"});
  expect("piqa", R"({"query": "a", "choices": ["b", 3], "gold": 0})", {"no choices (array of texts)"});
  expect("piqa", R"({"query": "a", "choices": [], "gold": 0})", {"choices has 0 texts"});
  expect("piqa", R"({"query": "a", "choices": ["b"], "gold": 0})", {"choices has 1 texts"});
  expect("arc-easy", R"({"query": "a", "choices": ["b", ""], "gold": 0})", {"a choice is empty"});
  expect("arc-easy", R"({"query": "a", "choices": ["b", "c"], "gold": 2})", {"gold is 2", "2 to choose from"});
  expect("arc-easy", R"({"query": "a", "choices": ["b", "c"], "gold": -1})", {"gold is -1"});
  for (const char *gold : {"1.5", "1e0", "\"1\"", "true", "99999999999999999999", "null"}) {
    expect("arc-easy", std::string(R"({"query": "a", "choices": ["b", "c"], "gold": )") + gold + "}", {"no gold (whole number)"});
  }
  expect("winogrande", R"({"query": "a", "choices": ["b", "c"], "gold": 1})", {"no continuation", "context_options"});
  const std::string empty = folder_.Write("empty.jsonl", "\n \n");
  EXPECT_NE(Acorn({"eval", "MODEL", "--task", "piqa", "--data", empty}).err.find("holds no questions"), std::string::npos);
}

}  // namespace
}  // namespace acorn::test
