#include "text/chat_template.h"

#include "text/unicode.h"

namespace acorn {
namespace {

namespace layout = tokenizer_layout;
using layout::ChatOpKind;
using layout::ChatSection;

// Text without white space at both ends, as Jinja's trim takes it away.
Span<const char> Trim(Span<const char> text) {
  const uint8_t *bytes = reinterpret_cast<const uint8_t *>(text.data());
  size_t start = 0, end = text.size();
  while (start < end) {
    size_t length;
    if (ClassOf(DecodeUtf8(bytes + start, end - start, &length)) != CodePointClass::kSpace) break;
    start += length;
  }
  while (start < end) {
    size_t last = end - 1, length;
    while (last > start && end - last < kMaxUtf8Bytes && IsUtf8Continuation(bytes[last])) --last;
    if (ClassOf(DecodeUtf8(bytes + last, end - last, &length)) != CodePointClass::kSpace) break;
    end = last;
  }
  return text.subspan(start, end - start);
}

// Collects parts and encodes them whenever a token separates what came from what comes.
class Renderer {
 public:
  Renderer(const Tokenizer &tokenizer, bool continues, Span<int32_t> out, Span<uint8_t> work)
      : tokenizer_(tokenizer), continues_(continues), out_(out), work_(work) {}

  Span<const layout::ChatOp> Ops(ChatSection section) const {
    const layout::Table &table = tokenizer_.chat_sections[static_cast<uint32_t>(section)];
    const uint8_t *base = reinterpret_cast<const uint8_t *>(tokenizer_.header);
    return Span<const layout::ChatOp>(reinterpret_cast<const layout::ChatOp *>(base + table.offset), table.count);
  }

  Status Add(Span<const layout::ChatOp> ops, Span<const char> content, Span<const char> system) {
    for (const layout::ChatOp &op : ops) {
      TextPart part;
      switch (static_cast<ChatOpKind>(op.kind)) {
        case ChatOpKind::kToken:
          part.kind = TextPart::Kind::kToken;
          part.token = static_cast<int32_t>(op.a);
          ACORN_TRY(Encode());
          break;
        case ChatOpKind::kText:
          part.text = Span<const char>(reinterpret_cast<const char *>(tokenizer_.chat_text) + op.a, op.b);
          break;
        case ChatOpKind::kContent:
          part.text = content;
          break;
        case ChatOpKind::kContentTrimmed:
          part.text = Trim(content);
          break;
        case ChatOpKind::kSystem:
          part.text = system;
          break;
        case ChatOpKind::kSystemTrimmed:
          part.text = Trim(system);
          break;
      }
      if (part_count_ == kMaxParts) ACORN_TRY(Encode());
      parts_[part_count_++] = part;
    }
    return Status::kOk;
  }

  // Encodes the collected parts.
  Status Encode() {
    if (part_count_ == 0) return Status::kOk;
    EncodeOptions options;
    options.continues = continues_;
    const size_t used = count_ < out_.size() ? count_ : out_.size();
    size_t added = 0;
    const Status status = EncodeParts(tokenizer_, Span<const TextPart>(parts_, part_count_), options,
                                      out_.subspan(used, out_.size() - used), &added, work_);
    if (status != Status::kOk && status != Status::kBuffer) return status;
    count_ += added;
    part_count_ = 0;
    continues_ = true;
    return Status::kOk;
  }

  size_t count() const { return count_; }

 private:
  // Parts between two tokens; a longer stretch is encoded in pieces of this many.
  static constexpr size_t kMaxParts = 128;

  const Tokenizer &tokenizer_;
  bool continues_;
  Span<int32_t> out_;
  Span<uint8_t> work_;
  size_t count_ = 0;
  size_t part_count_ = 0;
  TextPart parts_[kMaxParts];
};

Status RenderMessages(Renderer *renderer, Span<const ChatMessage> messages, ChatOptions options, const Tokenizer &tokenizer) {
  const Span<const char> none;
  if (options.place == ChatPlace::kStart) {
    ACORN_TRY(renderer->Add(renderer->Ops(ChatSection::kStart), none, none));
    if (messages.empty() || messages[0].role != ChatRole::kSystem) {
      ACORN_TRY(renderer->Add(renderer->Ops(ChatSection::kDefaultSystem), none, none));
    }
  } else {
    Span<const layout::ChatOp> end = renderer->Ops(ChatSection::kReplyEnd);
    const bool stop_first = !end.empty() && static_cast<ChatOpKind>(end[0].kind) == ChatOpKind::kToken &&
                            IsStopToken(tokenizer, static_cast<int32_t>(end[0].a));
    if (options.place == ChatPlace::kAfterReplyAndStop && stop_first) end = end.subspan(1, end.size() - 1);
    ACORN_TRY(renderer->Add(end, none, none));
  }
  const Span<const layout::ChatOp> joined = renderer->Ops(ChatSection::kUserWithSystem);
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage &message = messages[i];
    switch (message.role) {
      case ChatRole::kSystem:
        if (i != 0 || options.place != ChatPlace::kStart) return Status::kArgument;
        if (joined.empty()) {
          if (renderer->Ops(ChatSection::kSystem).empty()) return Status::kUnsupported;
          ACORN_TRY(renderer->Add(renderer->Ops(ChatSection::kSystem), message.content, none));
        } else if (messages.size() == 1 || messages[1].role != ChatRole::kUser) {
          return Status::kArgument;  // nothing to join it with
        }
        break;
      case ChatRole::kUser:
        if (i == 1 && messages[0].role == ChatRole::kSystem && !joined.empty()) {
          ACORN_TRY(renderer->Add(joined, message.content, messages[0].content));
        } else {
          ACORN_TRY(renderer->Add(renderer->Ops(ChatSection::kUser), message.content, none));
        }
        break;
      case ChatRole::kAssistant:
        ACORN_TRY(renderer->Add(renderer->Ops(ChatSection::kAssistant), message.content, none));
        break;
      default:
        return Status::kArgument;
    }
  }
  if (options.generation_prompt) {
    ACORN_TRY(renderer->Add(renderer->Ops(ChatSection::kGenerationPrompt), none, none));
  }
  return renderer->Encode();
}

// What a template adds to a conversation.
struct TemplateSize {
  size_t text_bytes = 0, tokens = 0;  // of all sections, which are more than stand around one message
  size_t copies = 1;                  // of a message's content, at most: no template of a known shape has two, a file may have
};

TemplateSize MeasureTemplate(const Tokenizer &tokenizer) {
  TemplateSize size;
  if (tokenizer.chat_sections == nullptr) return size;
  const uint8_t *base = reinterpret_cast<const uint8_t *>(tokenizer.header);
  for (uint32_t section = 0; section < layout::kChatSections; ++section) {
    const layout::Table &table = tokenizer.chat_sections[section];
    const layout::ChatOp *ops = reinterpret_cast<const layout::ChatOp *>(base + table.offset);
    size_t copies = 0;
    for (uint32_t i = 0; i < table.count; ++i) {
      const auto kind = static_cast<ChatOpKind>(ops[i].kind);
      if (kind == ChatOpKind::kText) {
        size.text_bytes += ops[i].b;
      } else if (kind == ChatOpKind::kToken) {
        ++size.tokens;
      } else {
        ++copies;
      }
    }
    if (copies > size.copies) size.copies = copies;
  }
  return size;
}

}  // namespace

Status RenderChat(const Tokenizer &tokenizer, Span<const ChatMessage> messages, ChatOptions options, Span<int32_t> out,
                  size_t *count, Span<uint8_t> work) {
  *count = 0;
  if (!HasChatTemplate(tokenizer)) return Status::kText;
  Renderer renderer(tokenizer, options.place != ChatPlace::kStart, out, work);
  ACORN_TRY(RenderMessages(&renderer, messages, options, tokenizer));
  *count = renderer.count();
  return renderer.count() > out.size() ? Status::kBuffer : Status::kOk;
}

size_t ChatWorkBytes(const Tokenizer &tokenizer, size_t messages, size_t content_bytes) {
  const TemplateSize size = MeasureTemplate(tokenizer);
  return EncodeWorkBytes(tokenizer, content_bytes * size.copies + size.text_bytes * (messages + 1));
}

size_t MaxChatTokens(const Tokenizer &tokenizer, size_t messages, size_t content_bytes) {
  const TemplateSize size = MeasureTemplate(tokenizer);
  const size_t tokens = size.tokens * (messages + 1);
  return MaxTokens(tokenizer, content_bytes * size.copies + size.text_bytes * (messages + 1) + tokens) + tokens;
}

}  // namespace acorn
