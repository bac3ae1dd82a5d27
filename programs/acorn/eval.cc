// acorn eval: how many questions of a file are answered right. Task `exact`: the prompt is one user turn in the chat template,
// decoding is greedy, and the whole answer must be the same, space at its end aside. The other tasks compare log-likelihoods
// as lm-evaluation-harness does, without a template and without examples; `acornc eval` does the same in float.
#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "commands.h"
#include "error.h"
#include "likelihood.h"
#include "questions.h"
#include "sampling.h"
#include "statistics.h"

namespace acorn::program {
namespace {

constexpr uint64_t kAnswerTokens = 256;

struct Options {
  DeviceOptions device;
  SamplingOptions sampling;
  std::string task, data;
  uint64_t limit = UINT64_MAX;
  bool json = false, verbose = false;
};

std::string WithoutTrailingSpace(std::string text) {
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  return text;
}

// Not while wrong answers are shown: those say how far it is.
void ShowProgress(const Options &options, uint64_t correct, size_t done, size_t all) {
  if (options.verbose || isatty(STDERR_FILENO) == 0) return;
  std::fprintf(stderr, "\r%llu right of %zu ", static_cast<unsigned long long>(correct), done);
  if (done == all) std::fputc('\n', stderr);
}

double Share(uint64_t count, size_t total) { return static_cast<double>(count) / static_cast<double>(total); }

// The figures that every task has.
JsonWriter BeginReport(const Options &options, uint64_t correct, size_t total) {
  JsonWriter out;
  out.Text("task", options.task);
  out.Number("correct", correct);
  out.Number("total", total);
  out.Decimal("accuracy", Share(correct, total));
  return out;
}

void PrintRight(uint64_t correct, size_t total) {
  std::printf("%llu of %zu right (%.1f %%)", static_cast<unsigned long long>(correct), total, Share(correct, total) * 100);
}

void EvalExact(const Options &options, const std::vector<Question> &questions) {
  Device device(options.device);
  device.Open();
  device.RequireText(ACORN_TEXT_CHAT);
  uint64_t correct = 0, tokens = 0;
  Digests digests;
  for (size_t i = 0; i < questions.size(); ++i) {
    const Question &question = questions[i];
    acorn_session_reset(device.session());
    const acorn_status status =
        acorn_session_append_text(device.session(), question.prompt.data(), question.prompt.size(), ACORN_TEXT_CHAT);
    std::string answer;
    if (status != ACORN_ERR_CONTEXT_FULL) {  // a question that does not fit is a wrong answer
      device.Check(status, "reading a question");
      tokens += Generate(&device, options.sampling, &digests, [&](const char *text, size_t bytes) { answer.append(text, bytes); })
                    .tokens;
    }
    const bool right = WithoutTrailingSpace(answer) == WithoutTrailingSpace(question.answer);
    correct += right ? 1 : 0;
    if (options.verbose && !right) {
      std::fprintf(stderr, "%s\n  wanted %s\n  got    %s\n", question.prompt.c_str(), question.answer.c_str(), answer.c_str());
    }
    ShowProgress(options, correct, i + 1, questions.size());
  }
  if (!options.json) {
    PrintRight(correct, questions.size());
    std::printf("\n");
    return;
  }
  JsonWriter out = BeginReport(options, correct, questions.size());
  out.Number("tokens", tokens);
  out.Hex("digest", digests.logits());
  out.Hex("ids_digest", digests.ids());
  WriteMachine(&out, device);
  std::printf("%s\n", out.Finish().c_str());
}

// What the likelihoods say of one question.
struct Verdict {
  bool plain = false, normalised = false;  // right by log-likelihood; by log-likelihood over length
  bool truncated = false;                  // some context was
  double log_likelihood = 0;               // of the right candidate
};

// continuations: of the question's candidates
Verdict Judge(ContinuationScorer *scorer, const Task &task, const Question &question, const Continuation *continuations) {
  Verdict verdict;
  size_t best = 0, best_normalised = 0;
  double largest = -HUGE_VAL, largest_normalised = -HUGE_VAL;
  bool likeliest = false;
  for (size_t i = 0; i < question.candidates.size(); ++i) {
    const ContinuationScore score = scorer->Score(continuations[i]);
    const double normalised = score.log_likelihood / static_cast<double>(question.candidates[i].length);
    if (score.log_likelihood > largest) best = i, largest = score.log_likelihood;
    if (normalised > largest_normalised) best_normalised = i, largest_normalised = normalised;
    if (i == question.gold) verdict.log_likelihood = score.log_likelihood;
    verdict.truncated = verdict.truncated || continuations[i].truncated;
    likeliest = score.likeliest;
  }
  const bool last_word = task.shape == Task::Shape::kLastWord;  // one candidate, against all other words
  verdict.plain = last_word ? likeliest : best == question.gold;
  verdict.normalised = last_word ? likeliest : best_normalised == question.gold;
  return verdict;
}

void EvalLikelihood(const Options &options, const Task &task, const std::vector<Question> &questions) {
  DeviceNeeds needs;
  needs.logit_rows = kLogitRows;
  Device device(options.device, needs);
  device.Open();
  ContinuationScorer scorer(&device);
  std::vector<Continuation> continuations;  // all of them now: a bad line is told before the work, not after
  for (const Question &question : questions) {
    for (const Candidate &candidate : question.candidates) {
      continuations.push_back(
          scorer.Encode(candidate.context, candidate.continuation, PlaceOf(options.data, question.line)));
    }
  }
  const Continuation *next = continuations.data();
  const size_t total = questions.size();
  uint64_t correct = 0, plain = 0, normalised = 0, truncated = 0;
  double log_likelihood = 0;
  for (size_t i = 0; i < total; ++i) {
    const Verdict verdict = Judge(&scorer, task, questions[i], next);
    next += questions[i].candidates.size();
    const bool right = task.length_normalised ? verdict.normalised : verdict.plain;
    correct += right ? 1 : 0;
    plain += verdict.plain ? 1 : 0;
    normalised += verdict.normalised ? 1 : 0;
    truncated += verdict.truncated ? 1 : 0;
    log_likelihood += verdict.log_likelihood;
    if (options.verbose && !right) std::fprintf(stderr, "wrong: %s\n", PlaceOf(options.data, questions[i].line).c_str());
    ShowProgress(options, correct, i + 1, total);
  }
  const bool last_word = task.shape == Task::Shape::kLastWord;
  const double perplexity = std::exp(-log_likelihood / static_cast<double>(total));
  if (!options.json) {
    PrintRight(correct, total);
    if (last_word) {
      std::printf("; perplexity of the words %.4f", perplexity);
    } else if (task.length_normalised) {
      std::printf("; without normalising by length %.1f %%", Share(plain, total) * 100);
    }
    if (truncated != 0) std::printf("; %llu cut at the left", static_cast<unsigned long long>(truncated));
    std::printf("\n");
    return;
  }
  const Speeds speeds = ReadSpeeds(device);
  JsonWriter out = BeginReport(options, correct, total);
  if (last_word) {
    out.Decimal("perplexity", perplexity);
  } else {
    out.Decimal("accuracy_plain", Share(plain, total));
    out.Decimal("accuracy_norm", Share(normalised, total));
  }
  out.Number("truncated", truncated);
  out.Number("tokens", scorer.tokens());
  out.Number("computed_tokens", speeds.prefill_tokens);
  out.Hex("digest", scorer.digest());
  out.Decimal("prefill_tokens_per_s", speeds.prefill_tokens_per_s);
  out.Decimal("open_ms", device.open_ms());
  WriteMachine(&out, device);
  std::printf("%s\n", out.Finish().c_str());
}

}  // namespace

void Eval(int argc, char **argv) {
  Options options;
  Arguments arguments("eval FILE --task NAME --data JSONL [OPTIONS]", "Right answers out of a file of questions.");
  arguments.Text("--task", &options.task, "exact, lambada, piqa, arc-easy, winogrande");
  arguments.Text("--data", &options.data, "file of JSON lines, one a question");
  arguments.Number("--limit", 1, UINT64_MAX, &options.limit, "most questions (default: all)");
  arguments.Number("-n", 1, 65536, &options.sampling.max_tokens, "exact: most tokens of an answer (default 256)");
  arguments.Flag("--verbose", &options.verbose, "show what is answered wrong, on the standard error");
  arguments.Flag("--json", &options.json, "as one line of JSON");
  AddDeviceOptions(&arguments, &options.device);
  if (!arguments.Parse(argc, argv)) return;
  const Task &task = FindTask(options.task);
  if (options.data.empty()) Fail(ExitCode::kUsage, "--data FILE is missing");
  const bool answers = task.shape == Task::Shape::kAnswer;
  if (!answers && options.sampling.max_tokens != 0) Fail(ExitCode::kUsage, "-n is for --task exact: no other generates text");
  if (options.sampling.max_tokens == 0) options.sampling.max_tokens = kAnswerTokens;
  const std::vector<Question> questions = ReadQuestions(options.data, task, options.limit);
  if (answers) {
    EvalExact(options, questions);
  } else {
    EvalLikelihood(options, task, questions);
  }
}

}  // namespace acorn::program
