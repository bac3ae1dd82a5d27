// Token ids to text, one token at a time. Gives only whole UTF-8 characters: the bytes of an unfinished one wait in the
// state until the next token. For the session and the programs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"
#include "base/status.h"
#include "text/tokenizer.h"

namespace acorn {

/// A plain value: copy it to rewind. Value-initialised, it continues a sequence.
struct Detokenizer {
  uint8_t pending[4] = {};    // the bytes of an unfinished character
  uint8_t pending_bytes = 0;  // at most 3
  uint8_t at_start = 0;       // 1: the first text is the start of a sequence, its dummy prefix is taken away
  uint8_t show_specials = 0;  // 1: hidden special tokens are given as their text
};

/// An output of this many bytes is always enough for one Append: every byte may become U+FFFD.
size_t MaxAppendBytes(const Tokenizer &tokenizer);

/// Adds one token; gives the characters that are now complete. A byte that can belong to no character becomes U+FFFD,
/// one for each maximal ill-formed part (Unicode 15, table 3-8), as in WHATWG decoders.
/// Returns: kOk | kToken | kBuffer (state unchanged, nothing written, *count is the need)
Status Append(const Tokenizer &tokenizer, Detokenizer *state, int32_t id, Span<char> out, size_t *count);

/// Ends the text: an unfinished character becomes U+FFFD (3 bytes).
/// Returns: kOk | kBuffer
Status Flush(Detokenizer *state, Span<char> out, size_t *count);

}  // namespace acorn
