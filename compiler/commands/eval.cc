// acornc eval: right answers of a source model in float, by log-likelihood. The same protocol as `acorn eval`.
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "commands/commands.h"
#include "commands/questions.h"
#include "graph/continuations.h"
#include "import/source_model.h"
#include "text/source_tokenizer.h"

namespace acorn::compiler {
namespace {

struct Options {
  std::string source;
  std::string task;
  std::string data;
  SourceOptions source_options;
  int64_t limit = -1;
  int64_t context = 0;  // 0: the model's
  int threads = 0;
  bool json = false;
};

// As lm-evaluation-harness: both texts are encoded as one, behind the start token where the tokenizer adds one; what goes beyond
// the context's own ids is the continuation; white space at the context's end belongs to it too; where the context has no ids,
// the start token (or the end token) stands for it.
Continuation Encode(const SourceTokenizer &tokenizer, const Candidate &candidate, const std::string &place) {
  const std::string_view context(candidate.context.data(), candidate.context.find_last_not_of(" \t\n\v\f\r") + 1);
  Continuation encoded;
  encoded.ids = tokenizer.EncodePrompt(candidate.context + candidate.continuation);
  encoded.first = static_cast<int64_t>(tokenizer.EncodePrompt(context).size());
  if (encoded.first == 0) {
    const int32_t bos = BosId(tokenizer.get()), start = bos >= 0 ? bos : EosId(tokenizer.get());
    if (start < 0) throw Error(ExitCode::kUsage, place + ": the context is empty, and the model has no start token");
    encoded.ids.insert(encoded.ids.begin(), start);
    encoded.first = 1;
  }
  if (encoded.first >= static_cast<int64_t>(encoded.ids.size())) {
    throw Error(ExitCode::kUsage, place + ": the continuation has no tokens");
  }
  return encoded;
}

// Drops at the left what the context cannot hold (the last id is scored, but not fed); true if there was any.
bool Truncate(Continuation *continuation, int64_t context, const std::string &place) {
  const int64_t dropped = static_cast<int64_t>(continuation->ids.size()) - (context + 1);
  if (dropped <= 0) return false;
  if (dropped >= continuation->first) {
    throw Error(ExitCode::kUsage, place + ": the continuation has " +
                                      std::to_string(static_cast<int64_t>(continuation->ids.size()) - continuation->first) +
                                      " tokens, the context holds " + std::to_string(context));
  }
  continuation->ids.erase(continuation->ids.begin(), continuation->ids.begin() + dropped);
  continuation->first -= dropped;
  return true;
}

struct Result {
  int64_t total = 0, plain = 0, normalised = 0, truncated = 0, tokens = 0;
  double log_likelihood = 0;  // of the right candidates
};

// Whether the question is right by log-likelihood, and by log-likelihood over length.
void Judge(const Task &task, const Question &question, const ContinuationScore *scores, Result *result) {
  size_t best = 0, best_normalised = 0;
  double largest = -std::numeric_limits<double>::infinity(), largest_normalised = largest;
  for (size_t i = 0; i < question.candidates.size(); ++i) {
    const double plain = scores[i].log_likelihood;
    const double normalised = plain / static_cast<double>(question.candidates[i].length);
    if (plain > largest) best = i, largest = plain;
    if (normalised > largest_normalised) best_normalised = i, largest_normalised = normalised;
  }
  const bool last_word = task.shape == Task::Shape::kLastWord;  // one candidate, against all other words
  result->plain += (last_word ? scores[0].likeliest : best == question.gold) ? 1 : 0;
  result->normalised += (last_word ? scores[0].likeliest : best_normalised == question.gold) ? 1 : 0;
  result->log_likelihood += scores[question.gold].log_likelihood;
}

void Print(const Options &options, const Task &task, const Result &result) {
  const auto share = [&](int64_t count) { return static_cast<double>(count) / static_cast<double>(result.total); };
  const int64_t correct = task.length_normalised ? result.normalised : result.plain;
  const bool last_word = task.shape == Task::Shape::kLastWord;
  const double perplexity = std::exp(-result.log_likelihood / static_cast<double>(result.total));
  if (!options.json) {
    std::printf("%lld of %lld right (%.1f %%)", static_cast<long long>(correct), static_cast<long long>(result.total),
                share(correct) * 100);
    if (last_word) {
      std::printf("; perplexity of the words %.4f", perplexity);
    } else if (task.length_normalised) {
      std::printf("; without normalising by length %.1f %%", share(result.plain) * 100);
    }
    if (result.truncated != 0) std::printf("; %lld cut at the left", static_cast<long long>(result.truncated));
    std::printf("\n");
    return;
  }
  nlohmann::ordered_json out = {
      {"task", task.name}, {"correct", correct}, {"total", result.total}, {"accuracy", share(correct)}};
  if (last_word) {
    out["perplexity"] = perplexity;
  } else {
    out["accuracy_plain"] = share(result.plain);
    out["accuracy_norm"] = share(result.normalised);
  }
  out["truncated"] = result.truncated;
  out["tokens"] = result.tokens;
  out["threads"] = ThreadCount();
  std::printf("%s\n", out.dump().c_str());
}

void Run(const Options &options) {
  const Task &task = FindTask(options.task);
  const std::vector<Question> questions = ReadQuestions(options.data, task, options.limit);
  SetThreadCount(options.threads);
  const std::unique_ptr<SourceModel> source = OpenSourceModel(options.source, options.source_options);
  const int64_t longest = source->config().max_context;
  if (options.context > longest) {
    throw Error(ExitCode::kUsage, "--context " + std::to_string(options.context) + ": the model reaches " +
                                      std::to_string(longest) + " tokens");
  }
  const int64_t context = options.context == 0 ? longest : options.context;
  const std::unique_ptr<SourceTokenizer> tokenizer = OpenTokenizer(*source);
  Result result;
  result.total = static_cast<int64_t>(questions.size());
  std::vector<Continuation> continuations;
  for (const Question &question : questions) {
    bool truncated = false;
    for (const Candidate &candidate : question.candidates) {
      continuations.push_back(Encode(*tokenizer, candidate, question.place));
      truncated = Truncate(&continuations.back(), context, question.place) || truncated;
      result.tokens += static_cast<int64_t>(continuations.back().ids.size()) - continuations.back().first;
    }
    result.truncated += truncated ? 1 : 0;
  }
  std::unique_ptr<Progress> progress;
  const std::vector<ContinuationScore> scores = ScoreContinuations(*source, continuations, [&](int64_t done, int64_t total) {
    if (!progress) progress = std::make_unique<Progress>("eval, layers", total);
    progress->Update(done);
  });
  if (progress) progress->Finish();
  const ContinuationScore *next = scores.data();
  for (const Question &question : questions) {
    Judge(task, question, next, &result);
    next += question.candidates.size();
  }
  Print(options, task, result);
}

}  // namespace

void AddEvalCommand(CLI::App *app) {
  CLI::App *command = app->add_subcommand("eval", "Right answers of a source model, in float, out of a file of questions");
  const auto options = std::make_shared<Options>();
  command->add_option("SRC", options->source, "Hugging Face folder, GGUF file or llama2.c checkpoint")->required();
  command->add_option("--task", options->task, "lambada, piqa, arc-easy or winogrande")->required();
  command->add_option("--data", options->data, "file of JSON lines, one a question")->required();
  command->add_option("--limit", options->limit, "at most so many questions")->check(CLI::PositiveNumber);
  command->add_option("--tokenizer", options->source_options.tokenizer_path, "tokenizer of a llama2.c checkpoint");
  command->add_option("--context", options->context, "tokens of the longest question (default: the model's)")
      ->check(CLI::PositiveNumber);
  command->add_option("--threads", options->threads, "threads (default: all cores)")->check(CLI::Range(1, 1024));
  command->add_flag("--json", options->json, "print one JSON object");
  command->callback([options] { Run(*options); });
}

}  // namespace acorn::compiler
