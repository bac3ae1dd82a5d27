// The questions of an evaluation: JSON lines, each a question of the shape that the task has. Says which line is wrong and why.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace acorn::program {

struct Task {
  enum class Shape : uint8_t {
    kAnswer,    // prompt, answer: the model speaks, and must say just this
    kLastWord,  // context, continuation: must be what the model would say
    kChoices,   // query, choices, gold: the right choice must be the likeliest
    kContexts,  // context_options, continuation, gold: it must be likeliest after the right context
  };
  const char *name;
  Shape shape;
  bool length_normalised;  // the headline is by likelihood over length
};

/// Throws Failure for a name that is no task, an empty one included.
const Task &FindTask(const std::string &name);

/// What the likelihood of `continuation` after `context` is asked for.
struct Candidate {
  std::string context, continuation;  // the space between them stands at the start of the latter
  size_t length = 0;                  // code points of the continuation without that space, which likelihoods are normalised by
};

struct Question {
  uint64_t line = 0;
  std::string prompt, answer;         // kAnswer alone
  std::vector<Candidate> candidates;  // the other shapes: one for kLastWord, else two at least
  size_t gold = 0;                    // the right one
};

/// At most `limit` questions of a file, "-" for the standard input; empty lines do not count.  Throws Failure, also for none.
std::vector<Question> ReadQuestions(const std::string &path, const Task &task, uint64_t limit);

/// "FILE, line N"
std::string PlaceOf(const std::string &path, uint64_t line);

}  // namespace acorn::program
