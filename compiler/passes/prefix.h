// The constant prefix: one or two tokens whose keys and values, and what they leave in states, start every session and take the
// massive activations away from the first real token.
#pragma once

#include <cstdint>
#include <vector>

#include "import/source_model.h"

namespace acorn::compiler {

struct PrefixSearch {
  std::vector<int32_t> ids;  // calibration tokens
  int64_t window = 0;
  std::vector<int32_t> candidates;  // tokens to try, e.g. BOS, end of text, a line break
  int least = 0;                    // tokens: so many even if ranges gain nothing, so that a window has something to look back to
};

/// The prefix of 0, 1 or 2 tokens under which the activations of calibration windows have the narrowest ranges, among
/// those that do not worsen the loss. Zero tokens is a legal answer, and wins unless another is clearly better, or some are wanted.
std::vector<int32_t> ChoosePrefix(const SourceModel &source, const PrefixSearch &search);

}  // namespace acorn::compiler
