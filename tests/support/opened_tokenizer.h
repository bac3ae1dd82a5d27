// OpenedTokenizer: a tokenizer segment that the compiler built, opened by the runtime, with calls that cannot run out of
// room. For tests of both.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "text/chat_template.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/tokenizer_model.h"

namespace acorn::test {

using Ids = std::vector<int32_t>;

struct TextMessage {
  ChatRole role;
  std::string content;
};

class OpenedTokenizer {
 public:
  explicit OpenedTokenizer(const compiler::TokenizerModel &model) : segment_(compiler::BuildTokenizerSegment(model)) {
    TokenizerFault fault;
    const Status status = OpenTokenizer(&tokenizer_, Span<const uint8_t>(segment_.data(), segment_.size()), &fault);
    EXPECT_EQ(status, Status::kOk) << "table " << fault.table << ", index " << fault.index;
  }
  OpenedTokenizer(const OpenedTokenizer &) = delete;

  const Tokenizer &get() const { return tokenizer_; }
  const std::vector<uint8_t> &segment() const { return segment_; }

  Ids Encode(const std::string &text, EncodeOptions options = {}) const {
    Ids ids(MaxTokens(tokenizer_, text.size()));
    std::vector<uint8_t> work(EncodeWorkBytes(tokenizer_, text.size()));
    size_t count = 0;
    EXPECT_EQ(acorn::Encode(tokenizer_, Chars(text), options, Span<int32_t>(ids.data(), ids.size()), &count,
                            Span<uint8_t>(work.data(), work.size())),
              Status::kOk);
    EXPECT_LE(count, ids.size());
    ids.resize(count);
    return ids;
  }
  Ids EncodeMarkup(const std::string &text) const {
    EncodeOptions options;
    options.markup = true;
    return Encode(text, options);
  }

  std::string Decode(const Ids &ids, Detokenizer state = {}) const {
    std::string text;
    std::vector<char> buffer(MaxAppendBytes(tokenizer_));
    const Span<char> out(buffer.data(), buffer.size());
    size_t count = 0;
    for (const int32_t id : ids) {
      EXPECT_EQ(Append(tokenizer_, &state, id, out, &count), Status::kOk) << id;
      text.append(buffer.data(), count);
    }
    EXPECT_EQ(Flush(&state, out, &count), Status::kOk);
    return text.append(buffer.data(), count);
  }
  std::string DecodeWhole(const Ids &ids) const {
    Detokenizer state;
    state.at_start = 1;
    return Decode(ids, state);
  }

  Ids Chat(const std::vector<TextMessage> &messages, ChatOptions options = {}) const {
    std::vector<ChatMessage> views;
    size_t bytes = 0;
    for (const TextMessage &message : messages) {
      views.push_back({message.role, Chars(message.content)});
      bytes += message.content.size();
    }
    Ids ids(MaxChatTokens(tokenizer_, messages.size(), bytes));
    std::vector<uint8_t> work(ChatWorkBytes(tokenizer_, messages.size(), bytes));
    size_t count = 0;
    EXPECT_EQ(RenderChat(tokenizer_, Span<const ChatMessage>(views.data(), views.size()), options,
                         Span<int32_t>(ids.data(), ids.size()), &count, Span<uint8_t>(work.data(), work.size())),
              Status::kOk);
    EXPECT_LE(count, ids.size());
    ids.resize(count);
    return ids;
  }

  static Span<const char> Chars(const std::string &text) { return Span<const char>(text.data(), text.size()); }

 private:
  std::vector<uint8_t> segment_;
  Tokenizer tokenizer_;
};

}  // namespace acorn::test
