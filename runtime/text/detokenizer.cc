#include "text/detokenizer.h"

#include "text/unicode.h"

namespace acorn {
namespace {

constexpr uint8_t kReplacement[3] = {0xEF, 0xBF, 0xBD};  // U+FFFD

struct CharSink {
  Span<char> out;
  size_t count = 0;
  void Put(const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; ++i, ++count) {
      if (count < out.size()) out[count] = static_cast<char>(bytes[i]);
    }
  }
};

void AppendByte(Detokenizer *state, uint8_t byte, CharSink *sink) {
  int progress = ContinueUtf8(state->pending, state->pending_bytes, byte);
  if (progress < 0 && state->pending_bytes > 0) {
    sink->Put(kReplacement, sizeof kReplacement);
    state->pending_bytes = 0;
    progress = ContinueUtf8(state->pending, 0, byte);
  }
  if (progress < 0) {
    sink->Put(kReplacement, sizeof kReplacement);
    return;
  }
  state->pending[state->pending_bytes++] = byte;
  if (progress > 0) {
    sink->Put(state->pending, state->pending_bytes);
    state->pending_bytes = 0;
  }
}

// One token; `state` and `sink` are changed.
void AppendToken(const Tokenizer &tokenizer, Detokenizer *state, int32_t id, CharSink *sink) {
  const bool hidden = (TokenFlags(tokenizer, id) & tokenizer_layout::kSpecialHidden) != 0;
  if (hidden && state->show_specials == 0) return;
  Span<const uint8_t> text = TokenText(tokenizer, id);
  if (text.empty()) return;
  if (state->at_start != 0 && !hidden) {
    state->at_start = 0;
    const bool prefixed = tokenizer.header->dummy_prefix != static_cast<uint32_t>(tokenizer_layout::DummyPrefix::kNone);
    if (prefixed && text[0] == ' ') text = text.subspan(1, text.size() - 1);
  }
  for (const uint8_t byte : text) AppendByte(state, byte, sink);
}

}  // namespace

size_t MaxAppendBytes(const Tokenizer &tokenizer) { return 3 * (size_t{tokenizer.header->max_token_bytes} + 1); }

Status Append(const Tokenizer &tokenizer, Detokenizer *state, int32_t id, Span<char> out, size_t *count) {
  *count = 0;
  if (id < 0 || static_cast<uint32_t>(id) >= tokenizer.header->vocab_size) return Status::kToken;
  Detokenizer next = *state;
  CharSink measure;
  AppendToken(tokenizer, &next, id, &measure);
  *count = measure.count;
  if (measure.count > out.size()) return Status::kBuffer;
  CharSink sink{out};
  AppendToken(tokenizer, state, id, &sink);
  return Status::kOk;
}

Status Flush(Detokenizer *state, Span<char> out, size_t *count) {
  *count = 0;
  if (state->pending_bytes == 0) return Status::kOk;
  *count = sizeof kReplacement;
  if (out.size() < sizeof kReplacement) return Status::kBuffer;
  CharSink sink{out};
  sink.Put(kReplacement, sizeof kReplacement);
  state->pending_bytes = 0;
  return Status::kOk;
}

}  // namespace acorn
