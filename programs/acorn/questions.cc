#include "questions.h"

#include <algorithm>

#include "error.h"
#include "json.h"
#include "statistics.h"

namespace acorn::program {
namespace {

// The headline figures are those that these tasks are reported with.
constexpr Task kTasks[] = {
    {"exact", Task::Shape::kAnswer, false},     {"lambada", Task::Shape::kLastWord, false},
    {"piqa", Task::Shape::kChoices, true},      {"arc-easy", Task::Shape::kChoices, true},
    {"winogrande", Task::Shape::kContexts, false},
};

size_t CodePoints(const std::string &text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

// One line on its way to a question; failures name file and line.
class LineReader {
 public:
  LineReader(const std::string &place, const std::string &line, const Task &task) : place_(place), line_(line), task_(task) {}

  Question Read() const {
    if (!IsJsonObject(line_)) Fail(ExitCode::kUsage, "%s: this is no JSON object; %s", place_.c_str(), Wanted().c_str());
    Question question;
    switch (task_.shape) {
      case Task::Shape::kAnswer:
        question.prompt = Text("prompt");
        question.answer = Text("answer");
        break;
      case Task::Shape::kLastWord: {
        const std::string context = Text("context");
        Add(&question, context, Filled("continuation", Text("continuation")));
        break;
      }
      case Task::Shape::kChoices: {
        const std::string query = Text("query");
        for (const std::string &choice : Texts("choices")) Add(&question, query, Filled("a choice", choice));
        question.gold = Gold(question.candidates.size());
        break;
      }
      case Task::Shape::kContexts: {
        const std::string continuation = Filled("continuation", Text("continuation"));
        for (const std::string &context : Texts("context_options")) Add(&question, context, continuation);
        question.gold = Gold(question.candidates.size());
        break;
      }
    }
    return question;
  }

 private:
  static void Add(Question *question, const std::string &context, const std::string &continuation) {
    question->candidates.push_back({context, " " + continuation, CodePoints(continuation)});
  }
  std::string Text(const char *key) const {
    std::string value;
    if (!FindJsonText(line_, key, &value)) Missing(key, "text");
    return value;
  }
  std::vector<std::string> Texts(const char *key) const {
    std::vector<std::string> values;
    if (!FindJsonTexts(line_, key, &values)) Missing(key, "array of texts");
    if (values.size() < 2) {
      Fail(ExitCode::kUsage, "%s: %s has %zu texts, two at least are wanted", place_.c_str(), key, values.size());
    }
    return values;
  }
  size_t Gold(size_t count) const {
    int64_t gold = 0;
    if (!FindJsonInteger(line_, "gold", &gold)) Missing("gold", "whole number");
    if (gold < 0 || static_cast<uint64_t>(gold) >= count) {
      Fail(ExitCode::kUsage, "%s: gold is %lld, there are %zu to choose from, counted from 0", place_.c_str(),
           static_cast<long long>(gold), count);
    }
    return static_cast<size_t>(gold);
  }
  const std::string &Filled(const char *what, const std::string &text) const {
    if (text.find_first_not_of(" \t\r\n") == std::string::npos) Fail(ExitCode::kUsage, "%s: %s is empty", place_.c_str(), what);
    return text;
  }
  [[noreturn]] void Missing(const char *key, const char *what) const {
    Fail(ExitCode::kUsage, "%s: no %s (%s) here; %s", place_.c_str(), key, what, Wanted().c_str());
  }
  std::string Wanted() const {
    static constexpr const char *kShapes[] = {"prompt and answer", "context and continuation", "query, choices and gold",
                                              "context_options, continuation and gold"};
    return std::string("--task ") + task_.name + " wants a JSON object with " + kShapes[static_cast<int>(task_.shape)];
  }

  const std::string &place_;
  const std::string &line_;
  const Task &task_;
};

}  // namespace

const Task &FindTask(const std::string &name) {
  std::string known;
  for (const Task &task : kTasks) {
    if (name == task.name) return task;
    known += (known.empty() ? "" : ", ") + std::string(task.name);
  }
  if (name.empty()) Fail(ExitCode::kUsage, "--task NAME is missing: %s", known.c_str());
  Fail(ExitCode::kUsage, "--task %s is not known; known are %s", name.c_str(), known.c_str());
}

std::string PlaceOf(const std::string &path, uint64_t line) { return path + ", line " + std::to_string(line); }

std::vector<Question> ReadQuestions(const std::string &path, const Task &task, uint64_t limit) {
  const std::string text = ReadWholeFile(path);
  std::vector<Question> questions;
  uint64_t line_number = 0;
  for (size_t begin = 0; begin < text.size() && questions.size() < limit;) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string place = PlaceOf(path, line_number);
    questions.push_back(LineReader(place, line, task).Read());
    questions.back().line = line_number;
  }
  if (questions.empty()) Fail(ExitCode::kUsage, "%s holds no questions", path.c_str());
  return questions;
}

}  // namespace acorn::program
