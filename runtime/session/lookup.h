// Speculation without a second model: what the conversation said when it stood before where it stands now (prompt lookup; A. Saxena,
// "Prompt Lookup Decoding", 2023). There one earlier place is followed; here all of them vote, those the more that are like the
// present for longer, as contexts are mixed in compression by partial matching (J. Cleary and I. Witten, 1984). A guess costs rows of
// one pass, never a token of the answer.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"
#include "platform/stop.h"

namespace acorn {

/// Guesses what follows: token by token the one with most votes, the latest of equals, as long as the whole is more likely to be right
/// than kLeastLikely. Places vote with 2^(tokens that are equal before them, kLongestMatch at most), their number plus 2 being certain.
///   tokens  the conversation, and room behind it
///   count   tokens of the conversation
///   stop    once asked, no more is guessed; null: nobody asks
/// Returns: how many guesses there are; they are behind the conversation
size_t LookUp(Span<int32_t> tokens, size_t count, Stop *stop);

constexpr size_t kLongestMatch = 8;
/// The newest tokens are looked at, so many of them: a guess takes a millisecond at the most. (Contexts with caches have no more.)
constexpr size_t kLookUpTokens = 65536;
/// Of 65536. A guess that is less likely is not worth its row. 0.4 and the votes' weights: best of those tried on spoken commands and
/// on code with rows of 0.03 to 0.3 times a token's cost (bench/results/README.md).
constexpr uint64_t kLeastLikely = 26214;

}  // namespace acorn
