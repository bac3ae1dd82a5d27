// Code points: UTF-8, the character classes that pre-tokenizers ask for, and canonical composition (NFC).
// For runtime/text only. Tables are made from utf8proc (compiler/text/generate_unicode_tables.cc).
#pragma once

#include <cstddef>
#include <cstdint>

namespace acorn {

enum class CodePointClass : uint8_t {
  kOther = 0,
  kLetter = 1,  // \p{L}
  kNumber = 2,  // \p{N}
  kSpace = 3,   // \s: the property White_Space
};

CodePointClass ClassOf(uint32_t code_point);

constexpr uint32_t kInvalidCodePoint = 0xFFFFFFFFu;
constexpr int kMaxUtf8Bytes = 4;

/// Decodes the character at text[0..bytes), bytes >= 1. Ill-formed or cut short: kInvalidCodePoint, *length = 1.
uint32_t DecodeUtf8(const uint8_t *text, size_t bytes, size_t *length);
/// Writes 1 to 4 bytes, returns how many.  code_point <= 0x10FFFF
size_t EncodeUtf8(uint8_t *out, uint32_t code_point);
inline bool IsUtf8Continuation(uint8_t byte) { return (byte & 0xC0) == 0x80; }

/// State of one UTF-8 character that arrives byte by byte, by table 3-7 of the Unicode standard.
/// Returns for `prefix` (0 to 3 good bytes so far) and the next byte: -1 ill-formed here, 0 more bytes needed, 1 complete.
int ContinueUtf8(const uint8_t *prefix, size_t prefix_bytes, uint8_t byte);

/// Canonical combining class; 0 for starters.
uint8_t CombiningClass(uint32_t code_point);
constexpr int kMaxDecomposition = 4;
/// Full canonical decomposition, Hangul included; returns the number of code points, 1 for one without a mapping.
int Decompose(uint32_t out[kMaxDecomposition], uint32_t code_point);
/// The primary composite of two code points, or kInvalidCodePoint.
uint32_t Compose(uint32_t first, uint32_t second);
/// Below this code point every text is in NFC as it stands.
constexpr uint32_t kFirstNfcRelevant = 0x300;

}  // namespace acorn
