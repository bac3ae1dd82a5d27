// How likely the float reference finds continuations of contexts, many at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "import/source_model.h"

namespace acorn::compiler {

/// A context and what is to follow it, as ids of the vocabulary.
struct Continuation {
  std::vector<int32_t> ids;  // both
  int64_t first = 1;         // the continuation's first id, in [1, ids.size())
};

struct ContinuationScore {
  double log_likelihood = 0;  // ln p(continuation | context)
  bool likeliest = true;      // every token is the greedy choice: the lowest id of the largest logits
};

/// Scores each continuation in a window of its own. `on_layer(done, total)` counts the layers and the head of every batch of
/// windows; it may be empty.
std::vector<ContinuationScore> ScoreContinuations(const SourceModel &source, const std::vector<Continuation> &continuations,
                                                  const std::function<void(int64_t, int64_t)> &on_layer = {});

}  // namespace acorn::compiler
