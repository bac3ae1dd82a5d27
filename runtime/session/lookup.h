// Speculation without a second model: what the conversation said the last time that it stood where it stands now
// (prompt lookup; A. Saxena, "Prompt Lookup Decoding", 2023). A guess costs rows of one pass, never a token of the answer.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"

namespace acorn {

/// What followed the longest earlier occurrence of the last tokens, the latest one of equals. At least kShortestMatch tokens must be
/// equal; more than kLongestMatch count as that many.
///   tokens  the conversation
///   draft   gets at most draft.size() tokens
/// Returns: how many
size_t LookUp(Span<const int32_t> tokens, Span<int32_t> draft);

constexpr size_t kShortestMatch = 2;
constexpr size_t kLongestMatch = 8;

}  // namespace acorn
