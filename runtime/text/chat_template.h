// Chat messages to token ids through the model's compiled chat template. The template's own tokens are ids, fixed by the
// compiler; the messages are plain text, so that nothing in them can become a special token. For session and programs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"
#include "base/status.h"
#include "text/tokenizer.h"

namespace acorn {

enum class ChatRole : uint32_t { kSystem = 0, kUser = 1, kAssistant = 2 };

struct ChatMessage {
  ChatRole role = ChatRole::kUser;
  Span<const char> content;
};

/// Where in a conversation the messages stand.
enum class ChatPlace : uint32_t {
  kStart = 0,              // they start it
  kAfterReply = 1,         // a reply was generated; its stop token was not fed to the model
  kAfterReplyAndStop = 2,  // a reply was generated and its stop token fed
};

struct ChatOptions {
  ChatPlace place = ChatPlace::kStart;
  bool generation_prompt = true;  // end with what asks for a reply
};

inline bool HasChatTemplate(const Tokenizer &tokenizer) { return tokenizer.chat_sections != nullptr; }

/// Renders `messages` to ids. A system message is legal only as the first message of a conversation.
/// A running conversation: one call with {system?, user} at kStart, then for each turn {user} at kAfterReply*.
/// Work:    ChatWorkBytes, or kMaxEncodeWorkBytes for any conversation; 8-byte aligned
/// Returns: kOk | kText (no chat template) | kUnsupported (a template without system messages) |
///          kArgument (a system message elsewhere) | kBuffer (*count is the need) | kMemory
Status RenderChat(const Tokenizer &tokenizer, Span<const ChatMessage> messages, ChatOptions options, Span<int32_t> out,
                  size_t *count, Span<uint8_t> work);

/// Work buffer of RenderChat for `messages` messages with `content_bytes` bytes of content altogether.
size_t ChatWorkBytes(const Tokenizer &tokenizer, size_t messages, size_t content_bytes);
/// Upper bound for the ids of RenderChat, for buffers.
size_t MaxChatTokens(const Tokenizer &tokenizer, size_t messages, size_t content_bytes);

}  // namespace acorn
