#include "session/session.h"
#include "text/chat_template.h"

namespace acorn {

Status EncodeText(Model *model, Span<const int32_t> before, Span<const char> text, TextFlags flags, Span<int32_t> out,
                  size_t *count) {
  const Exclusive exclusive(model);
  const Tokenizer &tokenizer = model->tokenizer;
  if (tokenizer.header == nullptr) return Status::kText;
  if (flags.chat) {
    ChatMessage message;
    message.content = text;
    ChatOptions options;
    if (!before.empty()) {
      options.place = IsStopToken(tokenizer, before[before.size() - 1]) ? ChatPlace::kAfterReplyAndStop : ChatPlace::kAfterReply;
    }
    return RenderChat(tokenizer, Span<const ChatMessage>(&message, 1), options, out, count, model->text_work);
  }
  EncodeOptions options;
  options.markup = flags.markup;
  options.bos = flags.bos && before.empty();
  options.continues = !before.empty();
  return Encode(tokenizer, text, options, out, count, model->text_work);
}

Status FeedText(Session *session, Span<const char> text, TextFlags flags) {
  Model *model = session->model;
  const Span<const int32_t> prefix = model->graph.prefix_tokens;
  // The ids go straight to where the conversation's next tokens belong; of a session without an end, as many as it keeps.
  const uint64_t context = model->dims.context, left = RoomOf(*session), most = left < context ? left : context;
  MakeRoom(session, most);
  const Span<const int32_t> before = NewestIds(*session);
  const Span<int32_t> room(IdAt(*session, session->position), most);
  size_t count = 0;
  const Status status = EncodeText(model, before, text, flags, room, &count);
  if (status == Status::kBuffer) return Status::kContextFull;
  ACORN_TRY(status);
  size_t skip = 0;
  if (session->position == 0 && !prefix.empty() && count >= prefix.size()) {
    while (skip < prefix.size() && room[skip] == prefix[skip]) ++skip;
    if (skip < prefix.size()) skip = 0;
  }
  return Feed(session, Span<const int32_t>(room.data() + skip, count - skip), nullptr, nullptr);
}

}  // namespace acorn
