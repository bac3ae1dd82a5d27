// Where the next pre-token of a text ends: the regular expressions of tokenizer_layout::PreTokenizer as plain loops.
// For runtime/text only. Merges never cross the end of a pre-token.
#pragma once

#include <cstddef>
#include <cstdint>

#include "acorn_schema/tokenizer_layout.h"

namespace acorn {

/// Bytes of the first pre-token of text[0..bytes), at least 1.  bytes in [1, kMaxPieceBytes]; the expression sees the text as
/// if it ended there.
size_t NextPiece(tokenizer_layout::PreTokenizer kind, const uint8_t *text, size_t bytes);

}  // namespace acorn
