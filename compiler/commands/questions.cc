#include "commands/questions.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "base/mapped_file.h"

namespace acorn::compiler {
namespace {

using nlohmann::json;

// The headline figures are those that these tasks are reported with.
constexpr Task kTasks[] = {
    {"lambada", Task::Shape::kLastWord, false},
    {"piqa", Task::Shape::kChoices, true},
    {"arc-easy", Task::Shape::kChoices, true},
    {"winogrande", Task::Shape::kContexts, false},
};

size_t CodePoints(const std::string &text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

bool IsBlank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

// One line on its way to a question; failures name file and line.
class LineReader {
 public:
  LineReader(const std::string &place, std::string_view line, const Task &task)
      : place_(place), task_(task), object_(json::parse(line.begin(), line.end(), nullptr, false)) {}

  Question Read() const {
    if (!object_.is_object()) Bad("this is no JSON object; " + Wanted());
    Question question;
    question.place = place_;
    switch (task_.shape) {
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
  const json &Member(const char *key, const char *what) const {
    static const json nothing;
    const json &value = object_.contains(key) ? object_[key] : nothing;
    const std::string kind = what;
    const bool texts = value.is_array() && std::all_of(value.begin(), value.end(), [](const json &v) { return v.is_string(); });
    if (kind == "text" ? value.is_string() : kind == "whole number" ? value.is_number_integer() : texts) return value;
    Bad("no " + std::string(key) + " (" + kind + ") here; " + Wanted());
  }
  std::string Wanted() const {
    static constexpr const char *kShapes[] = {"context and continuation", "query, choices and gold",
                                              "context_options, continuation and gold"};
    return std::string("--task ") + task_.name + " wants a JSON object with " + kShapes[static_cast<int>(task_.shape)];
  }
  std::string Text(const char *key) const { return Member(key, "text").get<std::string>(); }
  std::vector<std::string> Texts(const char *key) const {
    std::vector<std::string> values = Member(key, "array of texts").get<std::vector<std::string>>();
    if (values.size() < 2) {
      Bad(std::string(key) + " has " + std::to_string(values.size()) + " texts, two at least are wanted");
    }
    return values;
  }
  size_t Gold(size_t count) const {
    const json &gold = Member("gold", "whole number");
    if (gold < 0 || gold >= count) {
      Bad("gold is " + gold.dump() + ", there are " + std::to_string(count) + " to choose from, counted from 0");
    }
    return gold.get<size_t>();
  }
  const std::string &Filled(const char *what, const std::string &text) const {
    if (IsBlank(text)) Bad(std::string(what) + " is empty");
    return text;
  }
  [[noreturn]] void Bad(const std::string &message) const { throw Error(ExitCode::kUsage, place_ + ": " + message); }

  const std::string &place_;
  const Task &task_;
  const json object_;
};

}  // namespace

const Task &FindTask(const std::string &name) {
  std::string known;
  for (const Task &task : kTasks) {
    if (name == task.name) return task;
    known += (known.empty() ? "" : ", ") + std::string(task.name);
  }
  if (name == "exact") {
    throw Error(ExitCode::kUsage, "--task exact is a task of acorn alone: the float reference scores text, it does not generate; "
                                  "here are " + known);
  }
  throw Error(ExitCode::kUsage, "--task " + name + " is not known; known are " + known);
}

std::vector<Question> ReadQuestions(const std::string &path, const Task &task, int64_t limit) {
  const MappedFile file(path);
  const std::string_view text = file.text();
  std::vector<Question> questions;
  uint64_t line_number = 0;
  for (size_t begin = 0; begin < text.size() && (limit < 0 || static_cast<int64_t>(questions.size()) < limit);) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (IsBlank(line)) continue;
    const std::string place = path + ", line " + std::to_string(line_number);
    questions.push_back(LineReader(place, line, task).Read());
  }
  if (questions.empty()) throw Error(ExitCode::kUsage, path + " holds no questions");
  return questions;
}

}  // namespace acorn::compiler
