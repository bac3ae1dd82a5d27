#include "text/pre_tokenizer.h"

#include "text/unicode.h"

namespace acorn {
namespace {

using tokenizer_layout::PreTokenizer;

// A character of the text, or the end of it.
struct Character {
  uint32_t code_point;
  CodePointClass kind;
  size_t bytes;  // 0: the end
  bool Is(CodePointClass other) const { return bytes != 0 && kind == other; }
  bool IsNewline() const { return bytes != 0 && (code_point == '\n' || code_point == '\r'); }
};

class Reader {
 public:
  Reader(const uint8_t *text, size_t bytes, bool numbers_end) : text_(text), bytes_(bytes), numbers_end_(numbers_end) {}

  Character At(size_t position) const {
    if (position >= bytes_) return {0, CodePointClass::kOther, 0};
    Character result;
    result.code_point = DecodeUtf8(text_ + position, bytes_ - position, &result.bytes);
    result.kind = ClassOf(result.code_point);
    if (numbers_end_ && result.kind == CodePointClass::kNumber) result.bytes = 0;
    return result;
  }
  // Skips characters of one class, at most `limit` of them.
  size_t Skip(size_t position, CodePointClass kind, size_t limit = SIZE_MAX) const {
    for (Character c = At(position); limit > 0 && c.Is(kind); c = At(position)) {
      position += c.bytes;
      --limit;
    }
    return position;
  }
  size_t SkipNewlines(size_t position) const {
    while (At(position).IsNewline()) ++position;
    return position;
  }
  // Bytes of 's 't 're 've 'm 'll 'd at `position`, 0 if there is none. `fold` accepts what (?i:...) does: besides the
  // capitals U+017F, the long s, whose simple case folding is s.
  size_t Contraction(size_t position, bool fold) const {
    if (At(position).code_point != '\'' || At(position).bytes == 0) return 0;
    const Character first = At(position + 1);
    const uint32_t a = Letter(first, fold);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 1 + first.bytes;
    const uint32_t b = Letter(At(position + 2), fold);
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
  }

 private:
  static uint32_t Letter(const Character &c, bool fold) {
    if (c.bytes == 0) return 0;
    if (fold && c.code_point >= 'A' && c.code_point <= 'Z') return c.code_point + ('a' - 'A');
    if (fold && c.code_point == 0x17F) return 's';
    return c.code_point;
  }

  const uint8_t *text_;
  size_t bytes_;
  bool numbers_end_;
};

// \s+(?!\S)|\s+ : a run of white space without its last character, unless that is all there is or the text ends.
size_t SpaceRun(const Reader &reader) {
  size_t end = 0, last = 0;
  for (Character c = reader.At(0); c.Is(CodePointClass::kSpace); c = reader.At(end)) {
    last = end;
    end += c.bytes;
  }
  return reader.At(end).bytes == 0 || last == 0 ? end : last;
}

size_t Gpt2(const Reader &reader) {
  const size_t contraction = reader.Contraction(0, false);
  if (contraction != 0) return contraction;
  const Character first = reader.At(0);
  const size_t start = first.code_point == ' ' ? 1 : 0;
  const Character c = start == 0 ? first : reader.At(start);
  if (c.bytes == 0 || c.kind == CodePointClass::kSpace) return SpaceRun(reader);
  return reader.Skip(start, c.kind);
}

// Llama-3's expression with \p{N}{1,max_digits}.
size_t Llama3(const Reader &reader, size_t max_digits) {
  const size_t contraction = reader.Contraction(0, true);
  if (contraction != 0) return contraction;
  const Character first = reader.At(0);
  // [^\r\n\p{L}\p{N}]?\p{L}+
  if (first.kind == CodePointClass::kLetter) return reader.Skip(0, CodePointClass::kLetter);
  if (first.kind == CodePointClass::kNumber) return reader.Skip(0, CodePointClass::kNumber, max_digits);
  if (!first.IsNewline() && reader.At(first.bytes).Is(CodePointClass::kLetter)) {
    return reader.Skip(first.bytes, CodePointClass::kLetter);
  }
  // ` ?[^\s\p{L}\p{N}]+[\r\n]*`
  const size_t start = first.code_point == ' ' ? 1 : 0;
  if (reader.At(start).Is(CodePointClass::kOther)) {
    return reader.SkipNewlines(reader.Skip(start, CodePointClass::kOther));
  }
  // \s*[\r\n]+ : white space up to the last newline of the run
  const size_t end = reader.Skip(0, CodePointClass::kSpace);
  size_t after_newline = 0;
  for (size_t i = 0; i < end; ++i) {
    if (reader.At(i).IsNewline()) after_newline = i + 1;
  }
  return after_newline != 0 ? after_newline : SpaceRun(reader);
}

size_t SpaceRunThenText(const uint8_t *text, size_t bytes) {
  size_t end = 0;
  while (end < bytes && text[end] == ' ') ++end;
  while (end < bytes && text[end] != ' ') ++end;
  return end;
}

}  // namespace

size_t NextPiece(PreTokenizer kind, const uint8_t *text, size_t bytes) {
  switch (kind) {
    case PreTokenizer::kNone:
      return bytes;
    case PreTokenizer::kGpt2:
      return Gpt2(Reader(text, bytes, false));
    case PreTokenizer::kDigitGpt2: {
      const Character first = Reader(text, bytes, false).At(0);
      return first.Is(CodePointClass::kNumber) ? first.bytes : Gpt2(Reader(text, bytes, true));
    }
    case PreTokenizer::kLlama3:
      return Llama3(Reader(text, bytes, false), 3);
    case PreTokenizer::kQwen2:
      return Llama3(Reader(text, bytes, false), 1);
    case PreTokenizer::kSpaceRuns:
      return SpaceRunThenText(text, bytes);
  }
  return bytes;
}

}  // namespace acorn
