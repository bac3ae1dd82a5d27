// A conversation: its keys and values, its tokens, the logits of the last one. docs/ARITHMETIC.md is what a step computes; here
// is what is fed when. A failed call leaves the session as it was, unless its comment says otherwise.
#pragma once

#include "base/debug.h"
#include "session/model.h"

namespace acorn {

/// Held by what uses the memory that a model's sessions share, or changes a session. Two at once are a mistake of the caller's
/// (acorn.h), which shows in wrong bits now and then; where debug checks are on, the second one stops the program.
/// The flag orders nothing, so that a race detector still sees what the caller's own lock does not cover.
class Exclusive {
 public:
#if defined(ACORN_DEBUG_CHECKS)
  explicit Exclusive(Model *model) : model_(model) {
    ACORN_DCHECK(__atomic_exchange_n(&model_->in_use, 1u, __ATOMIC_RELAXED) == 0);
  }
  ~Exclusive() { __atomic_store_n(&model_->in_use, 0u, __ATOMIC_RELAXED); }

 private:
  Model *model_;
#else
  explicit Exclusive(Model *) {}
#endif
 public:
  Exclusive(const Exclusive &) = delete;
  Exclusive &operator=(const Exclusive &) = delete;
};

/// Sums of the model's clock.
struct Timings {
  uint64_t prefill_ticks, prefill_tokens;
  uint64_t decode_ticks, decode_tokens;
  uint64_t sample_ticks, sample_tokens;
  uint64_t drafted_tokens, accepted_tokens;  // guessed by a generation, and guessed right
};

/// A hook of the caller's, whose type only the wall knows, and what it is called with.
struct CallersHook {
  void (*callback)(void);
  void *ctx;
};

struct Session {
  Model *model;
  bool taken;
  Stop stop;
  uint32_t profile;          // index of the one that runs
  uint64_t position;         // real tokens
  uint64_t state_position;   // of them, those that the states have seen; without states all
  uint64_t written;          // tokens whose rows caches have had since the conversation began, taken back or not
  uint64_t loaded;           // of them, those of which a snapshot brought no more than the next one sees
  const int32_t *logits;     // of the last token; null: none
  Span<int32_t> logit_rows;  // [logit_rows, vocab_size rounded up to 16]
  Span<int32_t> tokens;      // [TokenPlaces], from first_token on: the newest, and room for those to come
  uint64_t first_token;      // 0 until a session without an end has had to let the oldest go
  Span<CachePlace> caches;
  Span<uint8_t *> states;
  Span<char> text;           // generate's: characters held back, then those of one token
  Detokenizer detokenizer;
  void (*logit_hook)(void *ctx, int32_t *logits, size_t vocab_size);
  void *logit_hook_ctx;
  RoutingHook routing_hook, guess_hook;
  CallersHook routing_caller, guess_caller;
  Timings timings;
};

/// The place of a token's id, which stands in memory or has room there.
inline int32_t *IdAt(const Session &session, uint64_t token) { return session.tokens.data() + (token - session.first_token); }

/// The newest of the conversation's ids, as many as a session of any chunk has.
inline Span<const int32_t> NewestIds(const Session &session) {
  const uint64_t context = session.model->dims.context, count = session.position < context ? session.position : context;
  return {IdAt(session, session.position - count), static_cast<size_t>(count)};
}

/// How many tokens more the session can take.
inline uint64_t RoomOf(const Session &session) {
  const uint64_t tokens = session.model->dims.tokens;
  return tokens == kEndless ? kEndless : tokens - session.position;
}

/// Makes places for the ids of the next `count` tokens, at most RoomOf, a chunk or the context. Ids may move.
void MakeRoom(Session *session, size_t count);

constexpr size_t kMaxStopStrings = 16;
constexpr size_t kMaxStopBytes = 63;

/// Lays a session out in `arena`, or counts its bytes when that has no block (then *session is not touched).
void LayOutSession(const Graph &graph, const GraphCounts &counts, const Dims &dims, uint64_t text_bytes, Arena *arena,
                   Session **session);

/// Empty conversation after the constant prefix, at the same rate.
void ResetSession(Session *session);
/// The constant prefix's rows of every cache, as the file has them. A part of ResetSession.
void WritePrefix(Session *session);

inline uint32_t RateOf(const Session &session) { return session.model->graph.profiles[session.profile].rate; }

/// The rate of all tokens from here on. Those before stay as they were computed (docs/ELASTIC.md), the logits too.
/// Returns: kOk | kRate | kRefill (both: nothing changed; the second: a lower rate, and what was computed is too narrow for it)
Status SetRate(Session *session, uint32_t rate);

using LogitsCallback = int (*)(void *ctx, size_t row, const int32_t *logits, size_t vocab_size);

/// Appends tokens, in chunks.  callback null: only the last token's logits are computed
/// Where the states have not seen all tokens before these, they see them first.
/// Returns: kOk | kToken | kContextFull | kRefill (the states want tokens whose ids are gone) | kCancelled | kDeadline | as
///          ExpertSource (all three: whole chunks are kept, of the others nothing)
Status Feed(Session *session, Span<const int32_t> tokens, LogitsCallback callback, void *ctx);

/// Computes the `count` tokens whose ids stand behind the conversation's, and the logits of each, in one pass; the first
/// of them joins the conversation. Only where no state sees tokens that may not stay (MayDraft).
/// count: at most the chunk, the rows of logits and what is left of the context
/// Returns: as Feed, the conversation as it was
Status FeedDraft(Session *session, size_t count);

/// The next of these tokens, number `index` of the pass, joins the conversation.
void AcceptDraft(Session *session, size_t index);

/// Whether tokens may be computed that are dropped again without a trace in what follows: no state has seen them, nobody records the
/// steps or the routing, and no routing depends on which experts are in memory.
bool MayDraft(const Session &session);

/// Drops the tokens from `position` on. States cannot forget: they start anew, and see the rest again when tokens are fed.
/// Returns: kOk | kArgument | kRefill (the rest has left memory, in parts: nothing changed)
Status Rewind(Session *session, uint64_t position);

/// What text is, beside text: flags of acorn.h.
struct TextFlags {
  bool markup;
  bool bos;
  bool chat;
};

/// Ids of a text; `place` as in a conversation whose last tokens are `before`.
/// Returns: kOk | kText | kBuffer
Status EncodeText(Model *model, Span<const int32_t> before, Span<const char> text, TextFlags flags, Span<int32_t> out,
                  size_t *count);

/// Encodes and feeds. A start that the constant prefix already is is not fed again.
Status FeedText(Session *session, Span<const char> text, TextFlags flags);

/// Chooses the next token; does not feed it.
/// window: last tokens that the repetition penalty sees; 0: all
Status SampleNext(Session *session, const SamplerParams &params, uint32_t window, int32_t *token);

enum class StopReason : uint32_t { kLength = 1, kEnd = 2, kString = 3, kContext = 4, kCaller = 5 };

struct Generation {
  uint32_t max_tokens;  // 0: until the context is full
  SamplerParams sampling;
  uint32_t repetition_window;
  uint32_t draft_tokens;  // most that are guessed in a pass; 0: none are
  Span<const char *const> stop_strings;  // zero-terminated
  int (*callback)(void *ctx, int32_t token, const char *text, size_t bytes);
  void *ctx;
};

/// Samples, feeds and hands out tokens.
/// Returns: kOk | kState (no logits) | kArgument (more drafts than a chunk or the rows of logits hold beside a token) | as Feed, of the
///          token under way
Status Generate(Session *session, const Generation &generation, StopReason *reason, size_t *count);

/// Parts of a reference run, in order; kNone: no part differs.
enum class RunPhase : uint32_t { kNone = 0, kPrefill = 1, kDecode = 2, kSample = 3 };

/// Over the logits of the last prompt token and of every generated one; over the generated ids.
struct RunDigests {
  uint64_t logits, ids;
};

/// Where a reference run first differs from the file.
struct RunReport {
  RunPhase phase;
  size_t index;               // of the step in body and head together; kSample: of the generated token
  uint64_t expected, actual;  // digests; kSample: ids
  RunDigests digests;         // of what ran, whole where `phase` is kNone or kSample
};

/// Computes at rate 0 the ids and digests of a run whose other members are set, in a session that is empty before and after.
/// generated: [run.generated.size()], whose contents are not read;  prefill, decode: [body + head]
/// Returns: kOk | kState (no trace) | as Feed and Sample
Status RecordRun(Session *session, const ReferenceRun &run, Span<int32_t> generated, Span<uint64_t> prefill,
                 Span<uint64_t> decode);

/// Repeats the file's reference run, which is of rate 0, in a session that is empty before and after.
/// Returns: kOk (whether it differs or not) | kState (no trace, no run in the file) | as Feed and Sample
Status CheckRun(Session *session, RunReport *report);

/// Calls that compute end with kDeadline from so many milliseconds on from now; Stop::kNever: never.
/// Returns: kOk | kPort (the port has no clock)
Status SetDeadline(Session *session, uint64_t ms);

}  // namespace acorn
