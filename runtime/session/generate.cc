// Generation: sample, feed, hand out text. Characters that could be the start of a stop string are held back.
#include "session/lookup.h"
#include "session/session.h"

namespace acorn {
namespace {

/// At most kMaxStopBytes + 1: no more of a string is read than tells that it is too long.
size_t Length(const char *text) {
  size_t length = 0;
  while (length <= kMaxStopBytes && text[length] != 0) ++length;
  return length;
}

bool StartsWith(Span<const char> text, const char *with, size_t bytes) {
  return text.size() >= bytes && __builtin_memcmp(text.data(), with, bytes) == 0;
}

// What of a text may be given out.
struct Cut {
  size_t bytes;  // from the start
  bool stop;     // a stop string follows them
};

Cut FindCut(Span<const char> text, Span<const char *const> stops) {
  for (size_t i = 0; i < text.size(); ++i) {
    const Span<const char> rest(text.data() + i, text.size() - i);
    bool may_start = false;
    for (const char *stop : stops) {
      const size_t bytes = Length(stop);
      if (StartsWith(rest, stop, bytes)) return {i, true};
      may_start |= bytes > rest.size() && __builtin_memcmp(rest.data(), stop, rest.size()) == 0;
    }
    if (may_start) return {i, false};
  }
  return {text.size(), false};
}

Status CheckStops(Span<const char *const> stops) {
  if (stops.size() > kMaxStopStrings) return Status::kArgument;
  for (const char *stop : stops) {
    if (stop == nullptr || stop[0] == 0 || Length(stop) > kMaxStopBytes) return Status::kArgument;
  }
  return Status::kOk;
}

// Text on its way out: [0, held) waits, more is appended by each token.
struct Output {
  Session *session;
  const Generation *generation;
  size_t held = 0;

  // Adds a token's characters and gives out what may go.  last: nothing more will come
  // Returns: the reason to stop, or 0
  uint32_t Give(int32_t token, bool last) {
    const Tokenizer &tokenizer = session->model->tokenizer;
    Span<char> buffer = session->text;
    size_t count = 0;
    // The buffer is the longest stop string and what one token can add, so that neither call can fail; a token beyond the
    // tokenizer's vocabulary (padding of the embedding) has no text.
    if (tokenizer.header != nullptr) {
      if (Append(tokenizer, &session->detokenizer, token, buffer.subspan(held, buffer.size() - held), &count) != Status::kOk) count = 0;
    }
    if (last) {
      size_t flushed = 0;
      if (Flush(&session->detokenizer, buffer.subspan(held + count, buffer.size() - held - count), &flushed) == Status::kOk) count += flushed;
    }
    const Cut cut = FindCut(Span<const char>(buffer.data(), held + count), generation->stop_strings);
    const size_t give = last && !cut.stop ? held + count : cut.bytes;
    const int end = generation->callback == nullptr ? 0 : generation->callback(generation->ctx, token, buffer.data(), give);
    held = held + count - give;
    __builtin_memmove(buffer.data(), buffer.data() + give, held);
    if (cut.stop) return static_cast<uint32_t>(StopReason::kString);
    return end != 0 ? static_cast<uint32_t>(StopReason::kCaller) : 0;
  }
};

// Feeds sampled tokens, and with them, in the same pass, guesses of what will be sampled next. A guess that is sampled costs nothing
// more; the answer is that of one token at a time.
class Feeder {
 public:
  Feeder(Session *session, uint32_t most) : session_(session), most_(MayDraft(*session) ? most : 0) {}

  /// left: tokens that may be sampled from here on, this one included
  Status Feed(int32_t token, uint64_t left) {
    if (next_ < computed_ && session_->position == first_ + next_ && *IdAt(*session_, session_->position) == token) {
      ++session_->timings.accepted_tokens;
      AcceptDraft(session_, next_++);
      return Status::kOk;
    }
    computed_ = next_ = 0;
    const uint64_t most = most_ < left ? most_ : left - 1;
    size_t drafts = 0;
    if (most != 0) {
      MakeRoom(session_, static_cast<size_t>(most) + 1);
      int32_t *const end = IdAt(*session_, session_->position);
      const size_t ids = NewestIds(*session_).size(), count = ids < kLookUpTokens ? ids : kLookUpTokens - 1;
      *end = token;
      drafts = LookUp(Span<int32_t>(end - count, count + 1 + static_cast<size_t>(most)), count + 1, &session_->stop);
    }
    if (drafts == 0) return acorn::Feed(session_, Span<const int32_t>(&token, 1), nullptr, nullptr);
    session_->timings.drafted_tokens += drafts;
    first_ = session_->position;
    ACORN_TRY(FeedDraft(session_, drafts + 1));
    computed_ = drafts + 1;
    next_ = 1;
    return Status::kOk;
  }

 private:
  Session *session_;
  size_t most_;
  uint64_t first_ = 0, computed_ = 0, next_ = 0;  // position and tokens of the last pass, and which of them comes next
};

}  // namespace

Status Generate(Session *session, const Generation &generation, StopReason *reason, size_t *count) {
  Model *model = session->model;
  *count = 0;
  *reason = StopReason::kLength;
  if (session->logits == nullptr) return Status::kState;
  ACORN_TRY(CheckSamplerParams(generation.sampling));
  ACORN_TRY(CheckStops(generation.stop_strings));
  if (generation.draft_tokens > model->dims.chunk - 1 || generation.draft_tokens > model->dims.logit_rows - 1) return Status::kArgument;
  session->detokenizer = {};
  Output output{session, &generation};
  Feeder feeder(session, generation.draft_tokens);
  for (;;) {
    ACORN_TRY(session->stop.Take());
    if (RoomOf(*session) == 0) {
      *reason = StopReason::kContext;
      return Status::kOk;
    }
    int32_t token = 0;
    ACORN_TRY(SampleNext(session, generation.sampling, generation.repetition_window, &token));
    const uint64_t before = model->clock.Now();
    uint64_t left = RoomOf(*session);
    if (generation.max_tokens != 0 && generation.max_tokens - *count < left) left = generation.max_tokens - *count;
    ACORN_TRY(feeder.Feed(token, left));
    session->timings.decode_ticks += model->clock.Now() - before;
    ++session->timings.decode_tokens;
    ++*count;
    const bool end = model->tokenizer.header != nullptr && static_cast<uint32_t>(token) < VocabSize(model->tokenizer) &&
                     IsStopToken(model->tokenizer, token);
    const bool last = end || *count == generation.max_tokens || RoomOf(*session) == 0;
    const uint32_t stop = output.Give(token, last);
    if (stop != 0 || end) {
      *reason = end ? StopReason::kEnd : static_cast<StopReason>(stop);
      return Status::kOk;
    }
    if (*count == generation.max_tokens) return Status::kOk;
  }
}

}  // namespace acorn
