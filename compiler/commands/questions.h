// The questions of an evaluation whose answers are compared by likelihood: JSON lines, as `acorn eval` reads them.
// Says which line is wrong and why.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace acorn::compiler {

struct Task {
  enum class Shape : uint8_t {
    kLastWord,  // context, continuation: must be what the model would say
    kChoices,   // query, choices, gold: the right choice must be the likeliest
    kContexts,  // context_options, continuation, gold: it must be likeliest after the right context
  };
  const char *name;
  Shape shape;
  bool length_normalised;  // the headline is by likelihood over length
};

/// Throws Error(kUsage) for a name that is no task here.
const Task &FindTask(const std::string &name);

/// What the likelihood of `continuation` after `context` is asked for.
struct Candidate {
  std::string context, continuation;  // the space between them stands at the start of the latter
  size_t length = 0;                  // code points of the continuation without that space, which likelihoods are normalised by
};

struct Question {
  std::string place;                  // "FILE, line N"
  std::vector<Candidate> candidates;  // one for kLastWord, else two at least
  size_t gold = 0;                    // the right one
};

/// At most `limit` questions of a file, all for a negative one; empty lines do not count.  Throws Error, also for none.
std::vector<Question> ReadQuestions(const std::string &path, const Task &task, int64_t limit);

}  // namespace acorn::compiler
