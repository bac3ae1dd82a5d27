// What holds for any tokenizer that opens, whatever is in it: buffers of the promised sizes are enough, ids lie inside the vocabulary,
// and what is decoded is UTF-8. For fuzz targets; in them every buffer is as large as promised and no byte larger.
#pragma once

#include "text/chat_template.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/utf8.h"

namespace acorn::fuzz {

using Ids = std::vector<int32_t>;

inline Span<const char> Chars(std::string_view text) { return Span<const char>(text.data(), text.size()); }

/// A text where a sanitizer sees the first byte behind it.
class ExactText {
 public:
  explicit ExactText(std::string_view text) : bytes_(reinterpret_cast<const uint8_t *>(text.data()), text.size(), 8) {}
  std::string_view get() const { return {reinterpret_cast<const char *>(bytes_.data()), bytes_.size()}; }

 private:
  ExactBytes bytes_;
};

inline void RequireIds(const Tokenizer &tokenizer, const Ids &ids) {
  for (const int32_t id : ids) Require(id >= 0 && static_cast<uint32_t>(id) < VocabSize(tokenizer), "an id inside the vocabulary");
}

/// body(out, count, work) with room for `most` ids and `work_bytes` of work.
template <typename Body>
Ids RunEncoder(const Tokenizer &tokenizer, size_t most, size_t work_bytes, const Body &body) {
  const ExactBytes out(most * sizeof(int32_t), 8), work(work_bytes, 8);
  Require(work_bytes <= kMaxEncodeWorkBytes, "the bound of the work buffer");
  size_t count = 0;
  const auto *ids = reinterpret_cast<const int32_t *>(out.data());
  body(Span<int32_t>(reinterpret_cast<int32_t *>(out.data()), most), &count, Span<uint8_t>(work.data(), work_bytes));
  Require(count <= most, "the bound of the ids' number");
  const Ids result(ids, ids + count);
  RequireIds(tokenizer, result);
  return result;
}

inline Ids EncodeAll(const Tokenizer &tokenizer, std::string_view text, EncodeOptions options) {
  const ExactText exact(text);
  const size_t work_bytes = EncodeWorkBytes(tokenizer, text.size());
  return RunEncoder(tokenizer, MaxTokens(tokenizer, text.size()), work_bytes, [&](Span<int32_t> out, size_t *count, Span<uint8_t> work) {
    Require(Encode(tokenizer, Chars(exact.get()), options, out, count, work) == Status::kOk, "a text is encoded");
    if (*count == 0 || text.size() > 256) return;
    size_t need = 0;
    const Status status = Encode(tokenizer, Chars(exact.get()), options, out.subspan(0, *count - 1), &need, work);
    Require(status == Status::kBuffer && need == *count, "a buffer too small by one says so");
    Require(Encode(tokenizer, Chars(exact.get()), options, out, count, work) == Status::kOk, "a text is encoded again");
  });
}

/// Decodes as a stream does. What comes is UTF-8 in every piece; a buffer too small changes nothing.
inline std::string DecodeAll(const Tokenizer &tokenizer, const Ids &ids, Detokenizer state) {
  const ExactBytes buffer(MaxAppendBytes(tokenizer), 8);
  const Span<char> out(reinterpret_cast<char *>(buffer.data()), buffer.size());
  std::string text;
  size_t count = 0;
  const auto take = [&] {
    const std::string_view piece(out.data(), count);
    Require(IsUtf8(piece), "decoded text is UTF-8");
    text += piece;
  };
  for (const int32_t id : ids) {
    const Detokenizer before = state;
    const Status small = Append(tokenizer, &state, id, out.subspan(0, 0), &count);
    Require(small == (count == 0 ? Status::kOk : Status::kBuffer), "a token into no room");
    if (small == Status::kBuffer) Require(std::memcmp(&state, &before, sizeof state) == 0, "a state that a failed call leaves");
    if (small == Status::kOk) continue;
    const size_t need = count;
    Require(Append(tokenizer, &state, id, out, &count) == Status::kOk && count == need, "a token of the vocabulary is decoded");
    take();
  }
  Require(Flush(&state, out, &count) == Status::kOk, "a text ends");
  take();
  return text;
}

/// The bytes of the tokens, one after the other.
inline std::string BytesOf(const Tokenizer &tokenizer, const Ids &ids) {
  std::string bytes;
  for (const int32_t id : ids) {
    const Span<const uint8_t> text = TokenText(tokenizer, id);
    bytes.append(reinterpret_cast<const char *>(text.data()), text.size());
  }
  return bytes;
}

/// A conversation of `messages`. Returns its ids, none where the template or the order of roles has no place for it.
inline Ids RenderAll(const Tokenizer &tokenizer, const std::vector<ChatMessage> &messages, ChatOptions options) {
  size_t bytes = 0;
  for (const ChatMessage &message : messages) bytes += message.content.size();
  const size_t most = MaxChatTokens(tokenizer, messages.size(), bytes), work_bytes = ChatWorkBytes(tokenizer, messages.size(), bytes);
  return RunEncoder(tokenizer, most, work_bytes, [&](Span<int32_t> out, size_t *count, Span<uint8_t> work) {
    const Span<const ChatMessage> all(messages.data(), messages.size());
    const Status status = RenderChat(tokenizer, all, options, out, count, work);
    const bool is_refused = status == Status::kText || status == Status::kUnsupported || status == Status::kArgument;
    Require(status == Status::kOk || is_refused, "a conversation is rendered, or refused for what it is");
    if (is_refused) *count = 0;
  });
}

}  // namespace acorn::fuzz
