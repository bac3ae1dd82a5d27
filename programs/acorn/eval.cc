// acorn eval: how many questions of a file are answered right. Task `exact`: JSON lines of prompt and answer; the prompt is
// one user turn in the chat template, decoding is greedy, and the whole answer must be the same, space at its end aside.
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "commands.h"
#include "error.h"
#include "sampling.h"
#include "statistics.h"

namespace acorn::program {
namespace {

struct Question {
  std::string prompt, answer;
};

std::vector<Question> ReadQuestions(const std::string &path, uint64_t limit) {
  const std::string text = ReadWholeFile(path);
  std::vector<Question> questions;
  uint64_t line_number = 0;
  for (size_t begin = 0; begin < text.size() && questions.size() < limit;) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    Question question;
    if (!FindJsonText(line, "prompt", &question.prompt) || !FindJsonText(line, "answer", &question.answer)) {
      Fail(ExitCode::kUsage, "%s, line %llu: a JSON object with prompt and answer is wanted", path.c_str(),
           static_cast<unsigned long long>(line_number));
    }
    questions.push_back(question);
  }
  if (questions.empty()) Fail(ExitCode::kUsage, "%s holds no questions", path.c_str());
  return questions;
}

std::string WithoutTrailingSpace(std::string text) {
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  return text;
}

}  // namespace

void Eval(int argc, char **argv) {
  DeviceOptions options;
  SamplingOptions sampling;
  sampling.max_tokens = 256;
  std::string task, data;
  uint64_t limit = UINT64_MAX;
  bool json = false, verbose = false;
  Arguments arguments("eval FILE --task exact --data JSONL [OPTIONS]", "Right answers out of a file of questions.");
  arguments.Text("--task", &task, "exact: the whole answer must be the same");
  arguments.Text("--data", &data, "file of JSON lines with prompt and answer");
  arguments.Number("--limit", 1, UINT64_MAX, &limit, "most questions (default: all)");
  arguments.Number("-n", 1, 65536, &sampling.max_tokens, "most tokens of an answer (default 256)");
  arguments.Flag("--verbose", &verbose, "show wrong answers, on the standard error");
  arguments.Flag("--json", &json, "as one line of JSON");
  AddDeviceOptions(&arguments, &options);
  if (!arguments.Parse(argc, argv)) return;
  if (task.empty()) Fail(ExitCode::kUsage, "--task NAME is missing");
  if (task != "exact") Fail(ExitCode::kUsage, "--task %s: this version has the task exact alone", task.c_str());
  if (data.empty()) Fail(ExitCode::kUsage, "--data FILE is missing");
  const std::vector<Question> questions = ReadQuestions(data, limit);
  Device device(options);
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
      Check(status, "reading a question");
      tokens +=
          Generate(&device, sampling, &digests, [&](const char *text, size_t bytes) { answer.append(text, bytes); }).tokens;
    }
    const bool right = WithoutTrailingSpace(answer) == WithoutTrailingSpace(question.answer);
    correct += right ? 1 : 0;
    if (verbose && !right) {
      std::fprintf(stderr, "%s\n  wanted %s\n  got    %s\n", question.prompt.c_str(), question.answer.c_str(), answer.c_str());
    } else if (isatty(STDERR_FILENO) != 0) {
      std::fprintf(stderr, "\r%llu right of %zu ", static_cast<unsigned long long>(correct), i + 1);
    }
  }
  if (isatty(STDERR_FILENO) != 0) std::fputc('\n', stderr);
  const double accuracy = static_cast<double>(correct) / static_cast<double>(questions.size());
  if (!json) {
    std::printf("%llu of %zu right (%.1f %%)\n", static_cast<unsigned long long>(correct), questions.size(), accuracy * 100);
    return;
  }
  JsonWriter out;
  out.Text("task", task);
  out.Number("correct", correct);
  out.Number("total", questions.size());
  out.Decimal("accuracy", accuracy);
  out.Number("tokens", tokens);
  out.Hex("digest", digests.logits());
  out.Hex("ids_digest", digests.ids());
  WriteMachine(&out, device);
  std::printf("%s\n", out.Finish().c_str());
}

}  // namespace acorn::program
