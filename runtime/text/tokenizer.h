// Text to token ids, from the tokenizer segment of a model file (schema/FORMAT_TOKENIZER.md), read in place.
// For the session, the programs and the compiler. Allocates nothing: the caller gives the work buffer. Special tokens are
// recognised only in parts that the caller marks as markup: plain text can never become one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "acorn_schema/tokenizer_layout.h"
#include "base/span.h"
#include "base/status.h"

namespace acorn {

/// Views on a verified segment; copyable, valid as long as the segment.
struct Tokenizer {
  const tokenizer_layout::Header *header = nullptr;
  const uint32_t *token_starts = nullptr;  // [vocab_size + 1]
  const uint8_t *token_text = nullptr;     // [token_text.count]
  const int32_t *byte_ids = nullptr;       // [256]
  Span<const uint64_t> merges;             // in order of rank
  Span<const uint32_t> merge_slots;
  const uint32_t *ranks = nullptr;  // [vocab_size], only with MergeRule::kRanks
  Span<const uint32_t> text_slots;
  Span<const tokenizer_layout::Special> specials;          // ascending ids
  const tokenizer_layout::Table *chat_sections = nullptr;  // [kChatSections], null without a chat template
  const uint8_t *chat_text = nullptr;
  uint8_t markup_first[32] = {};  // bit b: some markup token starts with byte b
};

/// Verifies every table of `segment` and makes views on it; nothing of the segment is used before it was checked.
///   time O(segment size)
/// Returns: kOk | kArgument (misaligned) | kTruncated | kForeign | kVersion | kInvalid
Status OpenTokenizer(Tokenizer *out, Span<const uint8_t> segment);

/// What and where a refused segment breaks a rule: `table` is the index of the header's table (0 = token_starts), or
/// kHeader; `index` its element.
struct TokenizerFault {
  static constexpr uint32_t kHeader = 0xFFFFFFFFu;
  uint32_t table = kHeader;
  uint32_t index = 0;
};
Status OpenTokenizer(Tokenizer *out, Span<const uint8_t> segment, TokenizerFault *fault);

inline uint32_t VocabSize(const Tokenizer &tokenizer) { return tokenizer.header->vocab_size; }
/// -1 where the source has none.
inline int32_t BosId(const Tokenizer &tokenizer) { return tokenizer.header->bos_id; }
inline int32_t EosId(const Tokenizer &tokenizer) { return tokenizer.header->eos_id; }
/// True if a plain prompt starts with BosId.
inline bool AddsBos(const Tokenizer &tokenizer) {
  return (tokenizer.header->flags & tokenizer_layout::kFlagAddBos) != 0 && tokenizer.header->bos_id >= 0;
}
/// The text of a token as it is decoded, special or not.  id in [0, vocab_size)
Span<const uint8_t> TokenText(const Tokenizer &tokenizer, int32_t id);
/// The flags (tokenizer_layout::kSpecial*) of a token, 0 for an ordinary one.
uint32_t TokenFlags(const Tokenizer &tokenizer, int32_t id);
/// True if the token ends a reply.
inline bool IsStopToken(const Tokenizer &tokenizer, int32_t id) {
  return (TokenFlags(tokenizer, id) & tokenizer_layout::kSpecialStop) != 0;
}

struct EncodeOptions {
  bool markup = false;     // recognise special tokens
  bool bos = false;        // start with BosId where AddsBos
  bool continues = false;  // the text continues a sequence: no dummy prefix at its start
};

/// One stretch of a text that consists of several. Parts without a token between them are encoded as one text, so a
/// merge may cross from one into the next, as it would in the joined string.
struct TextPart {
  enum class Kind : uint32_t { kPlain, kMarkup, kToken };
  Kind kind = Kind::kPlain;
  Span<const char> text;  // kPlain, kMarkup
  int32_t token = 0;      // kToken
};

/// Work buffer for texts of up to `text_bytes` bytes altogether: grows up to pre-tokens of kMaxPieceBytes, then stays.
/// The buffer must be 8-byte aligned.
size_t EncodeWorkBytes(const Tokenizer &tokenizer, size_t text_bytes);
/// The most that EncodeWorkBytes ever returns, for any tokenizer and text.
constexpr size_t kMaxEncodeWorkBytes = 112 * 1024;

/// Upper bound for the number of ids of a text of `text_bytes` bytes in one part, with bos and dummy prefix.
size_t MaxTokens(const Tokenizer &tokenizer, size_t text_bytes);

/// Encodes `text`. Invalid UTF-8 is kept byte for byte where the tokenizer is byte-level or has byte tokens.
/// Returns: kOk | kBuffer (out too small: *count is the need, out's content undefined) | kMemory (work too small)
Status Encode(const Tokenizer &tokenizer, Span<const char> text, EncodeOptions options, Span<int32_t> out, size_t *count,
              Span<uint8_t> work);
/// The same for parts in order; options.markup is not used.
/// Returns: also kToken (a kToken part outside the vocabulary)
Status EncodeParts(const Tokenizer &tokenizer, Span<const TextPart> parts, EncodeOptions options, Span<int32_t> out,
                   size_t *count, Span<uint8_t> work);

}  // namespace acorn
