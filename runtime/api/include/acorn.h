// Acorn: language models on small devices, with integers only, in memory that is known before the model is opened. C99.
//
//   acorn_image_read the model file through the port, where it is not in memory already
//   acorn_plan       how many bytes, by class, before anything is opened
//   acorn_model_open the image (mapped file, flash, memory) and one block of the caller's
//   acorn_session_*  a conversation: prefill, decode, sample, text in and out
//
// After acorn_model_open the library allocates nothing. It has no globals, starts no thread and never exits the process.
// A model and its sessions share scratch memory: at most one call for a model at a time, except acorn_session_cancel. Builds with
// debug checks stop the program at a second one.
// Results come through outputs; a failed call leaves its object as it was unless its comment says otherwise.
#ifndef ACORN_H_
#define ACORN_H_

#include <stddef.h>
#include <stdint.h>

#include "acorn_port.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ACORN_NODISCARD __attribute__((warn_unused_result))
#define ACORN_API __attribute__((visibility("default")))
#else
#define ACORN_NODISCARD
#define ACORN_API
#endif

/// Frozen values, in groups: 0x1_ caller, 0x2_ model, 0x3_ resource, 0x4_ port, 0x5_ cancelled.
typedef uint32_t acorn_status;
enum {
  ACORN_OK = 0x00,
  ACORN_ERR_ARGUMENT = 0x10,     /* null, misaligned or out-of-range argument */
  ACORN_ERR_STATE = 0x11,        /* call not legal in this state of the object */
  ACORN_ERR_TOKEN = 0x12,        /* token id outside the vocabulary */
  ACORN_ERR_TEXT = 0x13,         /* text cannot be encoded: no tokenizer, no chat template */
  ACORN_ERR_RATE = 0x14,         /* the model file holds no such rate: acorn_model_rates */
  ACORN_ERR_REFILL = 0x15,       /* what is asked for needs the conversation anew: reset the session, feed its tokens again */
  ACORN_ERR_FOREIGN = 0x20,      /* not an Acorn file */
  ACORN_ERR_VERSION = 0x21,      /* an Acorn file of another version */
  ACORN_ERR_TRUNCATED = 0x22,    /* image shorter than it says */
  ACORN_ERR_DAMAGED = 0x23,      /* checksum mismatch */
  ACORN_ERR_INVALID = 0x24,      /* content breaks a rule of the format */
  ACORN_ERR_UNSUPPORTED = 0x25,  /* legal content that this build cannot run */
  ACORN_ERR_OTHER_MODEL = 0x26,  /* a snapshot of a session of another model file */
  ACORN_ERR_MEMORY = 0x30,       /* the block is smaller than the plan */
  ACORN_ERR_CONTEXT_FULL = 0x31, /* no room for the tokens; state unchanged, nothing lost */
  ACORN_ERR_BUFFER = 0x32,       /* an output buffer is too small */
  ACORN_ERR_PORT = 0x40,         /* a callback of the port failed */
  ACORN_ERR_STORAGE = 0x41,      /* a read of an expert failed or came short: acorn_model_expert_fault */
  ACORN_ERR_STALLED = 0x42,      /* a read of an expert did not come in time: the same */
  ACORN_ERR_CANCELLED = 0x50,    /* stopped on request: acorn_session_cancel, or a callback */
  ACORN_ERR_DEADLINE = 0x51      /* stopped by the time: acorn_session_set_deadline */
};

/// A short English sentence for a status; static, never NULL.
ACORN_API const char *acorn_status_text(acorn_status status);

/// A model file in memory. data: 64-byte aligned, valid and unchanged until the model is no longer used. Weights are read in
/// place and never copied; where they lie (mapped file, flash, memory of the caller) is the caller's choice.
typedef struct acorn_image {
  const void *data;
  size_t bytes;
} acorn_image;

/// Where a bad model file is bad. section: static text such as "header", "graph", "segment", "body", "tokenizer".
typedef struct acorn_fault {
  uint32_t struct_size;
  acorn_status status;
  const char *section;
  uint64_t index;  /* of the segment, step, value … inside the section */
  uint64_t offset; /* bytes from the start of the file, or inside the section where that is all there is */
} acorn_fault;

/// Brings the model file that port.read reads into memory of the caller's, where it has no other way there (flash that is not
/// in the address space, a card). Reads the header and checks it, then the whole file; what it holds is checked by acorn_plan.
/// Out: *image the file in `memory`;  *need its bytes as soon as its header has been read, may be NULL
/// In:  memory 64-byte aligned; NULL with memory_bytes 0 asks for the need
/// Returns: ACORN_OK | ACORN_ERR_MEMORY (memory untouched) | ACORN_ERR_PORT (no read, or it failed) | 0x2_ | 0x1_
///          (on a big-endian machine ACORN_ERR_UNSUPPORTED, before anything is read)
ACORN_NODISCARD ACORN_API acorn_status acorn_image_read(acorn_image *image, uint64_t *need, const acorn_port *port, void *memory,
                                                        size_t memory_bytes);

#define ACORN_HEADER_BYTES 64u
/// How much of a model file must be in memory where its experts stream: what stands before them. All of it for a model without.
/// In:  start the first ACORN_HEADER_BYTES of the file, or what there is
/// Returns: ACORN_OK | 0x2_ | 0x1_
ACORN_NODISCARD ACORN_API acorn_status acorn_image_resident(uint64_t *bytes, const void *start, size_t start_bytes);

/// Zero in any field means its default.
typedef struct acorn_options {
  uint32_t struct_size;
  /// Real tokens a session can hold. Limit: the model's max_context. Default: the same, or, where attention sees a window of them in
  /// every layer, no end: the session then keeps the ids of the newest max_context tokens (docs/ENDLESS.md).
  uint32_t context_tokens;
  uint32_t chunk_tokens;   /* tokens of prefill computed together, 1 to 1024; default 128; changes memory and speed, no result */
  uint32_t logit_rows;     /* rows of logits held at once, 1 to 256; default 1; more make acorn_session_score faster */
  uint32_t max_sessions;   /* default 1, at most 1,024 */
  uint32_t cpu_features;   /* ANDed with port.cpu_features; default all */
  uint32_t flags;          /* ACORN_OPEN_… */
  /// Experts of a mixture-of-experts model stay in storage and come through the port as they are needed, into slots of this many
  /// bytes together (in the block, itemised in the plan). 0: they are part of the image and are used where they lie. Changes
  /// memory and speed, no result. The image need not go on behind its resident part then.
  uint64_t expert_cache_bytes;
  uint32_t expert_policy;   /* ACORN_EXPERTS_… */
  uint32_t expert_prefetch; /* ACORN_PREFETCH_… */
  uint32_t read_timeout_ms; /* that a call waits without any read coming in; default 10,000. Needs port.ticks */
  /// Two dials that change answers, off by default, for experts that cost a read; 16 fractional bits.
  uint32_t drop_experts_q16;  /* the chosen experts of least weight go that have together at most this share of a token's weights:
                                 the same on every machine */
  uint32_t cache_routing_q16; /* experts in memory are preferred as if their logits were so much of the token's range higher: the
                                 answer depends on the cache and on what came before */
  uint32_t rate; /* of sessions that open: percent of its prunable weights that the model leaves out, one of acorn_model_rates */
} acorn_options;
/// Experts that are read before they are asked for, one token after the other, while the storage has nothing to do. Changes speed
/// only, and not always for the better: a wrong guess costs a read and a slot.
#define ACORN_PREFETCH_OFF 0u
#define ACORN_PREFETCH_GATE 1u /* what the next layer's router says of the stream as it is one layer before */
#define ACORN_PREFETCH_PATH 2u /* what has followed on the last two layers' experts so far; its tables are in the plan */
/// Which expert leaves first when another one needs its slot.
#define ACORN_EXPERTS_LFRU 0u    /* the smallest frequency / (age + 1) */
#define ACORN_EXPERTS_LRU 1u     /* the one not used for longest */
#define ACORN_EXPERTS_EDGEMOE 2u /* the smallest frequency / distance to the layer's next turn */
#define ACORN_OPEN_CHECK_WEIGHTS 1u /* also verify the checksums of the weights: reads the whole file */
#define ACORN_OPEN_PROFILE 2u       /* count ticks for each kernel: acorn_model_profile */
#define ACORN_OPEN_SCALAR 4u        /* portable kernels only, whatever the CPU has */
#define ACORN_OPEN_TRACE 8u         /* keep a digest of what each step computes: acorn_model_trace, acorn_session_selftest */

/// Exact bytes by class. block_bytes is what acorn_model_open needs: model + max_sessions · session + scratch +
/// expert slots.
typedef struct acorn_memory_plan {
  uint32_t struct_size;
  uint32_t context_tokens, chunk_tokens, logit_rows, max_sessions, threads; /* as resolved from the options and the port; context_tokens
                                                                               of an endless session: the newest, whose ids it keeps */
  uint64_t image_bytes;          /* the file; const, never copied */
  uint64_t model_bytes;          /* parsed graph */
  uint64_t session_bytes;        /* one session: keys and values, states, logits, token history, sampler */
  uint64_t scratch_bytes;        /* activations and kernels' own, shared by all sessions */
  uint64_t expert_slot_bytes;    /* slots of experts that stream; 0: none do */
  uint64_t io_bytes;             /* 0 in this version */
  uint64_t block_bytes;          /* total to hand over, of any address aligned to 64 */
  uint32_t reference_tokens;     /* of the file's reference run: the context that acorn_session_selftest needs; 0: no run */
  uint32_t experts;              /* of the model, all layers together; 0: it has none */
  uint32_t expert_slots;         /* experts that are in memory at once, at the rate of the options; 0: none streams */
  uint32_t useful_expert_slots;  /* what one token needs: with fewer, only the most popular experts are found again, and with
                                    ACORN_EXPERTS_LRU none */
  uint64_t expert_record_bytes;  /* of a slot, at the same rate */
  uint64_t state_bytes;          /* of session_bytes: what state-space layers keep, the same for any context; 0: there are none */
  uint32_t rates;                /* that the file holds: rows of acorn_plan_rate */
  uint32_t endless;              /* 1: a session has no end, and what it keeps does not grow: acorn_options.context_tokens */
} acorn_memory_plan;

/// Verifies the image's header and graph and computes the plan. Nothing is kept; nothing is written but *plan and *fault.
/// port may be NULL (scalar, one thread); fault may be NULL. Reads the image without trusting a byte of it.
/// Returns: ACORN_OK | 0x1_ (ACORN_ERR_RATE: *fault has the rate as index) | 0x2_ |
///          ACORN_ERR_MEMORY (expert_cache_bytes is less than one expert at rate 0: *fault says its bytes as offset) |
///          ACORN_ERR_PORT (experts are to stream and the port cannot read)
ACORN_NODISCARD ACORN_API acorn_status acorn_plan(acorn_memory_plan *plan, acorn_fault *fault, const acorn_image *image,
                                                  const acorn_options *options, const acorn_port *port);

/// One of the rates that a file holds. The block serves them all; what a token reads and keeps is less at a higher one. Exact,
/// from the shapes of the model's steps.
typedef struct acorn_rate_plan {
  uint32_t struct_size;
  uint32_t rate;            /* percent, as asked of the compiler; realised: left_out_bytes / prunable_bytes */
  uint64_t resident_bytes;  /* of memory that this rate touches: the block, and of the image what this rate reads, of experts that are
                               part of it all (a mapped file comes in pages) */
  uint64_t weight_bytes;    /* weights that a token reads: all layers, the head, a row of the embedding; of routed experts top_k of
                               each layer, as long as its longest, in whole blocks */
  uint64_t prunable_bytes;  /* of weight_bytes at rate 0, those of which any rate reads less than all; 0: none */
  uint64_t left_out_bytes;  /* of these, what this rate does not read */
  uint64_t cache_row_bytes; /* keys and values of a token, all layers: written once, read by each token after it */
  uint64_t state_bytes;     /* what a token reads and writes of acorn_memory_plan.state_bytes */
} acorn_rate_plan;
/// index: below acorn_memory_plan.rates, by rising rate; the first one is 0. The rest as for acorn_plan.
/// Returns: as acorn_plan | ACORN_ERR_ARGUMENT (also: index past the last rate)
ACORN_NODISCARD ACORN_API acorn_status acorn_plan_rate(acorn_rate_plan *row, acorn_fault *fault, const acorn_image *image,
                                                       const acorn_options *options, const acorn_port *port, size_t index);

typedef struct acorn_model acorn_model;
typedef struct acorn_session acorn_session;

/// Opens a model inside the caller's block; the same image, options and port as for acorn_plan. port is copied.
/// block: 64-byte aligned, block_bytes at least; used until the caller stops using the model (there is nothing to close).
/// Returns: ACORN_OK | ACORN_ERR_MEMORY (block untouched) | ACORN_ERR_PORT (experts are to stream and the port reads nothing) |
///          0x1_ | 0x2_
ACORN_NODISCARD ACORN_API acorn_status acorn_model_open(acorn_model **model, acorn_fault *fault, const acorn_image *image,
                                                        const acorn_options *options, const acorn_port *port, void *block,
                                                        size_t block_bytes);

/// What a caller may want to know of a model. Strings point into the image and are not zero-terminated.
typedef struct acorn_model_info {
  uint32_t struct_size;
  uint32_t vocab_size, max_context, prefix_rows, layers;
  uint32_t has_tokenizer, has_chat_template;
  int32_t bos_token, eos_token; /* −1: none */
  int32_t logit_multiplier, logit_shift; /* logit · multiplier / 2^shift = natural units in Q16 */
  const char *name;
  size_t name_bytes;
  const char *family;
  size_t family_bytes;
} acorn_model_info;
ACORN_NODISCARD ACORN_API acorn_status acorn_model_get_info(const acorn_model *model, acorn_model_info *info);

/// The rates that the model's file holds, in percent, rising; the first one is 0.
/// Out: rates [capacity], *count how many there are (also when ACORN_ERR_BUFFER)
/// Returns: ACORN_OK | ACORN_ERR_BUFFER (nothing written) | ACORN_ERR_ARGUMENT
ACORN_NODISCARD ACORN_API acorn_status acorn_model_rates(const acorn_model *model, uint32_t *rates, size_t capacity, size_t *count);

/// What streaming experts has cost, since open. All 0 where none streams.
typedef struct acorn_expert_stats {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t hits, misses; /* experts that a layer needed for a token or a chunk, and found in memory or did not */
  uint64_t bytes_read;
  uint64_t stall_ticks; /* of the port's clock, with nothing left to compute while a read was under way */
  uint64_t prefetches, prefetches_used; /* guesses that were read, and of those what was then asked for */
} acorn_expert_stats;
ACORN_NODISCARD ACORN_API acorn_status acorn_model_expert_stats(const acorn_model *model, acorn_expert_stats *stats);

/// What the last call that returned ACORN_ERR_STORAGE, ACORN_ERR_STALLED or, for an expert, ACORN_ERR_DAMAGED or ACORN_ERR_INVALID
/// met. The session stands at the last whole chunk before: feed the rest again.
typedef struct acorn_expert_fault {
  uint32_t struct_size;
  acorn_status status; /* ACORN_OK: none so far, or experts did not fail the last call */
  uint32_t layer;      /* among those that have experts */
  uint32_t expert;
  uint64_t offset; /* of its record in the file */
  int32_t error;   /* of the port's read; 0 where the bytes came but were wrong */
  uint32_t reserved;
} acorn_expert_fault;
ACORN_NODISCARD ACORN_API acorn_status acorn_model_expert_fault(const acorn_model *model, acorn_expert_fault *fault);

/// One expert of a model.
typedef struct acorn_expert_info {
  uint32_t struct_size;
  uint32_t top_k;  /* experts that a token visits in this layer */
  uint64_t offset; /* of its record in the file */
  uint64_t bytes;  /* that a read of it takes, at the rate of the options */
} acorn_expert_info;
/// layer: among those that have experts
/// Returns: ACORN_OK | ACORN_ERR_ARGUMENT (also: no such layer, or no such expert in it)
ACORN_NODISCARD ACORN_API acorn_status acorn_model_get_expert(const acorn_model *model, acorn_expert_info *info, uint32_t layer,
                                                              uint32_t expert);

/// Text to ids and back. flags: ACORN_TEXT_…
#define ACORN_TEXT_MARKUP 1u /* special tokens written in the text are read as such; otherwise text is only text */
#define ACORN_TEXT_BOS 2u    /* start with the model's start token where its tokenizer wants one */
#define ACORN_TEXT_CHAT 4u   /* one user turn in the model's chat template; special tokens in the text stay text */
/// Out: ids [capacity], *count how many (also when ACORN_ERR_BUFFER, where known).
/// Returns: ACORN_OK | ACORN_ERR_TEXT | ACORN_ERR_BUFFER | 0x1_
ACORN_NODISCARD ACORN_API acorn_status acorn_tokenize(acorn_model *model, int32_t *ids, size_t capacity, size_t *count,
                                                      const char *text, size_t bytes, uint32_t flags);
/// The bytes of one token, which need not be whole characters. Special tokens give their name.
/// Returns: ACORN_OK | ACORN_ERR_TOKEN | ACORN_ERR_TEXT | ACORN_ERR_BUFFER (*bytes is the need)
ACORN_NODISCARD ACORN_API acorn_status acorn_token_text(const acorn_model *model, char *text, size_t capacity, size_t *bytes,
                                                        int32_t token);

/// Takes one of max_sessions slots; starts after the model's constant prefix with no token.
/// Returns: ACORN_OK | ACORN_ERR_STATE (all slots taken)
ACORN_NODISCARD ACORN_API acorn_status acorn_session_open(acorn_session **session, acorn_model *model);
/// Gives the slot back; never waits, and no call of the session may be running. Reads of experts that it asked for may still land in
/// the block.
ACORN_API void acorn_session_close(acorn_session *session);
/// Back to the state after acorn_session_open, hooks, rate and deadline kept.
ACORN_API void acorn_session_reset(acorn_session *session);

/// The rate at which the session computes from here on, in percent: a higher one reads less, is faster and knows less. Legal
/// between any two calls; allocates nothing, repacks nothing, moves no more than the last few rows that convolutions keep.
/// To a higher rate the conversation goes on as if its tokens so far had been computed at the old rate, which they were, and the
/// next ones at the new one (docs/ELASTIC.md): also the present logits stay, so that generation can go on. To a lower rate, keys,
/// values and states lack what the higher one left out: legal where nothing was computed yet, or nothing is left (after
/// acorn_session_reset, a rewind to 0, or, where acorn_memory_plan.state_bytes is not 0, any rewind, since everything is then
/// computed once more, at the rate of that time). The rate that the session has is always legal and does nothing.
/// Returns: ACORN_OK | ACORN_ERR_RATE | ACORN_ERR_REFILL | ACORN_ERR_ARGUMENT (session unchanged in all but the first)
ACORN_NODISCARD ACORN_API acorn_status acorn_session_set_rate(acorn_session *session, uint32_t rate);
ACORN_API uint32_t acorn_session_rate(const acorn_session *session);

/// Appends tokens to the conversation, one at least; computed in chunks. The last token's logits are then valid.
/// Where a model has experts, this and every other call that computes (score, decode, append_text, generate, selftest,
/// record) may also end with ACORN_ERR_STORAGE, ACORN_ERR_STALLED, ACORN_ERR_DAMAGED or ACORN_ERR_INVALID, told by
/// acorn_model_expert_fault: what stands then is what stands after ACORN_ERR_CANCELLED, and the call can be made again.
/// Returns: ACORN_OK | ACORN_ERR_TOKEN | ACORN_ERR_CONTEXT_FULL (both: state unchanged) |
///          ACORN_ERR_CANCELLED | ACORN_ERR_DEADLINE (whole chunks are kept: acorn_session_position says how many tokens; the rest
///          is as if it had never been fed. No logits, unless no token was kept: then those that there were)
ACORN_NODISCARD ACORN_API acorn_status acorn_session_prefill(acorn_session *session, const int32_t *tokens, size_t count);

/// As prefill, and hands every token's logits over: row i is what follows tokens[i]. A non-zero return of the callback cancels. The
/// chunk whose rows are handed over when the call is stopped is kept, with or without all of its rows.
/// Logits: [vocab_size] int32, valid during the call.
typedef int (*acorn_logits_callback)(void *ctx, size_t row, const int32_t *logits, size_t vocab_size);
ACORN_NODISCARD ACORN_API acorn_status acorn_session_score(acorn_session *session, const int32_t *tokens, size_t count,
                                                           acorn_logits_callback callback, void *ctx);

/// Runs one decode step: appends the token and gives the logits of what follows.
///   x = embed(token); for each layer: x = block(x, kv, position); logits = head(x); position += 1
/// Returns: ACORN_OK | ACORN_ERR_CONTEXT_FULL | ACORN_ERR_TOKEN | ACORN_ERR_CANCELLED | ACORN_ERR_DEADLINE (state and logits
///          unchanged in all but the first)
/// Out:     logits  [vocab_size] int32 in units of the model's logit factor, owned by the session, valid until its next call;
///          logits may be NULL
ACORN_NODISCARD ACORN_API acorn_status acorn_session_decode(acorn_session *session, const int32_t **logits, int32_t token);

/// The logits of the last token: [vocab_size].  ACORN_ERR_STATE when there is none.
ACORN_NODISCARD ACORN_API acorn_status acorn_session_logits(acorn_session *session, const int32_t **logits);

/// Real tokens in the conversation, and how many it can hold; UINT64_MAX: there is no end.
ACORN_API uint64_t acorn_session_position(const acorn_session *session);
ACORN_API uint64_t acorn_session_capacity(const acorn_session *session);
/// The conversation's tokens: [acorn_session_position], or of a session without an end the newest max_context of them where that is
/// less. Valid until the session's next call.
ACORN_API const int32_t *acorn_session_tokens(const acorn_session *session);
/// Drops every token from `position` on; the next prefill or decode goes on from there, with the bits of a session that never
/// went further. No logits until then. Costs nothing by itself; but where acorn_memory_plan.state_bytes is not 0, what the layers
/// keep cannot be taken back: the next call that appends computes the tokens before `position` once more, which takes as long as
/// their prefill did and can end as that can (ACORN_ERR_CANCELLED, ACORN_ERR_DEADLINE, ACORN_ERR_STORAGE, ACORN_ERR_STALLED: call
/// again, nothing of the conversation is lost, and what was computed of it stands), at the rate that the session has then. The routing hook and the trace do not see these tokens twice.
/// Where attention sees a window, older tokens leave memory as new ones come. 0 is always possible, and so is chunk_tokens back, less
/// what was computed and is not kept (wrong guesses, a chunk that was stopped), and any position while nothing has been overwritten;
/// else ACORN_ERR_REFILL: reset the session and feed the tokens again. After acorn_session_load memory holds what the next token sees
/// and no more; with states, a session without an end goes back while it has no more than max_context tokens.
/// Returns: ACORN_OK | ACORN_ERR_ARGUMENT (position beyond the present one) | ACORN_ERR_REFILL (nothing changed)
ACORN_NODISCARD ACORN_API acorn_status acorn_session_rewind(acorn_session *session, uint64_t position);

/// A session in one run of bytes (docs/SNAPSHOTS.md): tokens, keys and values, states, rate and pending logits. It does not depend
/// on the machine, the context, the chunk or the threads, and what follows it is equal to the bit on all of them. What is not the
/// session's is not in it: sampling (its generator counts positions, so that the same acorn_sampling draws the same tokens), hooks,
/// timings, the trace, experts in memory, and text that acorn_session_generate holds back while it runs.
/// Bytes that acorn_session_save writes now.
ACORN_API size_t acorn_session_snapshot_bytes(const acorn_session *session);
/// Saves. Legal between any two calls and in the token callback of acorn_session_generate; changes nothing.
/// Out:     snapshot  acorn_session_snapshot_bytes at the front of `bytes` bytes, of any address
/// Returns: ACORN_OK | ACORN_ERR_BUFFER (nothing written) | ACORN_ERR_ARGUMENT
/// Memory:  nothing allocated; about the time that copying the bytes takes
ACORN_NODISCARD ACORN_API acorn_status acorn_session_save(const acorn_session *session, void *snapshot, size_t bytes);
/// Takes a snapshot's conversation in place of the session's, in any session of the same model file whose context holds its tokens,
/// at the rate that it was saved at; hooks stay, timings start anew, a request to cancel is forgotten. Legal between any two calls,
/// in no callback. Nothing is trusted, and nothing of the session changes before everything has been checked: any failure leaves it
/// as it was.
/// In:      snapshot  `bytes` bytes, of any address, exactly those that were saved; not changed by anybody during the call
/// Returns: ACORN_OK | ACORN_ERR_FOREIGN (no snapshot) | ACORN_ERR_VERSION | ACORN_ERR_TRUNCATED | ACORN_ERR_DAMAGED |
///          ACORN_ERR_OTHER_MODEL | ACORN_ERR_INVALID | ACORN_ERR_CONTEXT_FULL (more tokens than this session can hold) |
///          ACORN_ERR_ARGUMENT
ACORN_NODISCARD ACORN_API acorn_status acorn_session_load(acorn_session *session, const void *snapshot, size_t bytes);

/// How the next token is chosen; all fixed point with 16 fractional bits. A zero struct (but struct_size) is greedy.
typedef struct acorn_sampling {
  uint32_t struct_size;
  uint32_t temperature_q16;        /* 0: greedy, the lowest id of equals; at most 100 · 65536 */
  uint32_t top_k;                  /* 0: off */
  uint32_t top_p_q16;              /* 0 or ≥ 65536: off */
  uint32_t min_p_q16;              /* 0: off; at most 65536 */
  uint32_t repetition_penalty_q16; /* 0 or 65536: off; from 655 to 100 · 65536 */
  uint32_t repetition_window;      /* last tokens that are penalised; 0: all of acorn_session_tokens */
  uint32_t reserved;
  uint64_t seed; /* the same seed gives the same text on every machine */
} acorn_sampling;

/// Called with a copy of the logits before sampling: [vocab_size], may be changed in place (bias, grammar, ban).
typedef void (*acorn_logit_hook)(void *ctx, int32_t *logits, size_t vocab_size);
ACORN_API void acorn_session_set_logit_hook(acorn_session *session, acorn_logit_hook hook, void *ctx);

/// What a router chose for a token.
typedef struct acorn_route {
  uint16_t expert;     /* 65535: none, the token visits fewer */
  uint16_t weight_q15; /* at most 32,768 */
} acorn_route;
/// Called once for each layer that has experts and each chunk of tokens, before these are visited: routes [tokens, top_k], the
/// router's best first, valid during the call. layer: among those that have experts. A call that fails may have told of some
/// layers of a chunk already. It may read the model's profile and statistics and may call nothing that runs the session.
typedef void (*acorn_routing_hook)(void *ctx, uint32_t layer, const acorn_route *routes, size_t tokens, size_t top_k);
/// hook: NULL for none, which is how a session opens, and costs nothing.
ACORN_API void acorn_session_set_routing_hook(acorn_session *session, acorn_routing_hook hook, void *ctx);
/// As the routing hook, for what ACORN_PREFETCH_GATE foresees: while a single token is computed, once for each layer but the first,
/// before the routing hook hears of that layer. routes [1, top_k or fewer]: the experts worth a read, the likeliest first, and the
/// weights that they would have. Also where no expert streams; not called without that option, or of a layer that the gate cannot
/// foresee. hook: likewise; what it costs is the guess, where none would be made without it.
ACORN_API void acorn_session_set_guess_hook(acorn_session *session, acorn_routing_hook hook, void *ctx);

/// Chooses the next token from the present logits; does not append it. The generator's counter is the position, so that
/// rewinding repeats the choice.
/// Returns: ACORN_OK | ACORN_ERR_STATE (no logits) | ACORN_ERR_ARGUMENT
ACORN_NODISCARD ACORN_API acorn_status acorn_session_sample(acorn_session *session, int32_t *token,
                                                            const acorn_sampling *sampling);

/// Encodes text (ACORN_TEXT_… flags) and appends it. A start token that is the model's constant prefix is not fed again.
/// Returns: as acorn_tokenize and acorn_session_prefill
ACORN_NODISCARD ACORN_API acorn_status acorn_session_append_text(acorn_session *session, const char *text, size_t bytes,
                                                                 uint32_t flags);

/// One accepted token and the whole characters that it completes (may be empty; not zero-terminated). Text that could be the
/// start of a stop string is held back until it is clear. A non-zero return ends the generation.
typedef int (*acorn_token_callback)(void *ctx, int32_t token, const char *text, size_t bytes);

typedef struct acorn_generation {
  uint32_t struct_size;
  uint32_t max_tokens; /* 0: until the context is full, which is never in a session without an end */
  acorn_sampling sampling;
  const char *const *stop_strings; /* zero-terminated, at most 16 of at most 63 bytes; not part of the text given out */
  size_t stop_count;
  acorn_token_callback callback; /* may be NULL */
  void *ctx;
  /// Most tokens that are guessed and computed along with each one: what followed in the conversation when its last tokens stood
  /// there before. Faster where text repeats itself; the tokens are those of 0, to the bit. Below acorn_options.logit_rows and
  /// chunk_tokens. Without effect in a model whose plan has state_bytes, with a trace or a routing hook, and with cache_routing_q16.
  uint32_t draft_tokens;
} acorn_generation;

/// Why a generation ended.
enum { ACORN_STOP_LENGTH = 1, ACORN_STOP_END = 2, ACORN_STOP_STRING = 3, ACORN_STOP_CONTEXT = 4, ACORN_STOP_CALLER = 5 };

/// Samples, appends and hands out tokens until an end token, a stop string, max_tokens, a full context or the caller ends it.
/// Every accepted token is part of the conversation, the end token too, so that a next turn can follow.
/// Out: *reason ACORN_STOP_…, *count accepted tokens; both may be NULL.
/// Returns: ACORN_OK | ACORN_ERR_STATE (no logits) | ACORN_ERR_ARGUMENT |
///          ACORN_ERR_CANCELLED | ACORN_ERR_DEADLINE (*count tokens stand; call again to go on: text held back is not given out, and
///          the same tokens follow)
ACORN_NODISCARD ACORN_API acorn_status acorn_session_generate(acorn_session *session, uint32_t *reason, size_t *count,
                                                              const acorn_generation *generation);

/// Asks the running call of a session to stop: the next call that computes if none is running. One atomic write, which is legal from
/// another thread and in a signal handler, at any time until the session is closed. Computing is prefill, score, decode, append_text,
/// generate, selftest and record. How soon they end, by what they are about:
///   computing    with the tasks that run, on each thread at most 192 channels of a matrix with 128 rows, or what attention takes for
///                16 rows and a group of heads; or with a step that goes row by row. 2,048 tokens of SmolLM2-135M on 2 threads of a
///                Sapphire Rapids: bench/results/README.md
///   a token's    what has begun is not given up: logits of a last token, which are a pass over the head; a single token of a model
///   end          with state-space layers none of whose experts stream; tokenizing; sampling
///   a wait       of experts that stream: 4 ms, or with the read that is under way where the port has no read_submit
/// A chunk that is stopped leaves keys, values and states as they were, and can be fed again with the same bits. The routing hook and
/// the trace have seen some of its steps.
ACORN_API void acorn_session_cancel(acorn_session *session);

#define ACORN_NO_DEADLINE UINT64_MAX
/// Calls that compute end with ACORN_ERR_DEADLINE once `ms` milliseconds of the port's clock have passed since this call, as if
/// acorn_session_cancel had been called then; those that begin later end at once. For a deadline of each call, set it before each.
/// It stands until the next one is set or the session is closed: over resets, loads, and calls that it has ended.
/// In:      ms  0: from now on; ACORN_NO_DEADLINE: never, which is how a session opens
/// Returns: ACORN_OK | ACORN_ERR_PORT (the port has no clock: ticks and ticks_per_second) | ACORN_ERR_ARGUMENT
ACORN_NODISCARD ACORN_API acorn_status acorn_session_set_deadline(acorn_session *session, uint64_t ms);

/// Ticks of the port's clock, summed since open or reset.
typedef struct acorn_timings {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t prefill_ticks, prefill_tokens; /* prefill, score, append_text */
  uint64_t decode_ticks, decode_tokens;   /* decode, and generate's own steps */
  uint64_t sample_ticks, sample_tokens;
  uint64_t drafted_tokens, accepted_tokens; /* acorn_generation.draft_tokens: computed along, and those of them that came true */
  uint64_t ticks_per_second;
} acorn_timings;
ACORN_NODISCARD ACORN_API acorn_status acorn_session_timings(const acorn_session *session, acorn_timings *timings);

/// One kernel's ticks since open (needs ACORN_OPEN_PROFILE). name: static, such as "gemm_s8_w4g32/avx512vnni".
typedef struct acorn_profile_row {
  uint32_t struct_size;
  uint32_t reserved;
  const char *name;
  uint64_t ticks, calls;
} acorn_profile_row;
/// Returns: ACORN_OK | ACORN_ERR_ARGUMENT (index past the last row)
ACORN_NODISCARD ACORN_API acorn_status acorn_model_profile(const acorn_model *model, acorn_profile_row *row, size_t index);

/// One step of the model and what it has computed since open or the last reset of the trace, by any session: a digest over
/// every integer that it wrote (docs/ARITHMETIC.md, section 13). Equal on every machine for the same tokens.
typedef struct acorn_trace_row {
  uint32_t struct_size;
  int32_t layer;      /* -1: before the first layer or after the last */
  const char *op;     /* static, such as "Linear" */
  const char *kernel; /* lives as long as the model; as in acorn_profile_row.name */
  uint64_t digest;
} acorn_trace_row;
/// Rows in the order of the file: body, then head; at any rate, of which each has its own digests. Needs ACORN_OPEN_TRACE.
/// Returns: ACORN_OK | ACORN_ERR_STATE (no trace) | ACORN_ERR_ARGUMENT (index past the last row)
ACORN_NODISCARD ACORN_API acorn_status acorn_model_trace(const acorn_model *model, acorn_trace_row *row, size_t index);
/// Sets every row's digest back to what it is after open: the trace then tells of the calls from here on. Sessions keep their
/// state. NULL, or a model without a trace: nothing happens.
ACORN_API void acorn_model_trace_reset(acorn_model *model);

/// Parts of a reference run: the prompt at once, the generated tokens one by one, the choice of each of them.
enum { ACORN_PHASE_PREFILL = 1, ACORN_PHASE_DECODE = 2, ACORN_PHASE_SAMPLE = 3 };

/// What acorn_session_selftest found.
typedef struct acorn_selftest_report {
  uint32_t struct_size;
  uint32_t passed;             /* 1: every step and every choice is the file's */
  uint32_t phase;              /* ACORN_PHASE_… of the first difference; 0: passed */
  uint32_t step;               /* its row in acorn_model_trace; ACORN_PHASE_SAMPLE: which generated token */
  int32_t layer;               /* as in acorn_trace_row; ACORN_PHASE_SAMPLE: -1 */
  uint32_t tokens;             /* of the whole run, prompt and generated */
  const char *op, *kernel;     /* of that step; NULL when passed */
  uint64_t expected, actual;   /* its digests; ACORN_PHASE_SAMPLE: ids; 0 when passed */
  uint64_t digest, ids_digest; /* as far as it ran: of the logits of the last prompt token and each generated one; of their ids */
} acorn_selftest_report;
/// Repeats the reference run that the file carries, at rate 0, and compares each step's digest with the file's. The first step that
/// differs is the one that computes wrongly: steps after it in the same run only inherit its mistake. Needs ACORN_OPEN_TRACE and
/// room for acorn_memory_plan.reference_tokens; resets the trace. The session is reset before and after and keeps its rate; its hooks are
/// not called, and what trades answers for speed (dropped experts, routing by what is in memory) is off.
/// Returns: ACORN_OK (the report says whether it passed) | ACORN_ERR_STATE (no trace, or the file has no reference run) |
///          ACORN_ERR_CONTEXT_FULL | ACORN_ERR_CANCELLED | ACORN_ERR_DEADLINE
ACORN_NODISCARD ACORN_API acorn_status acorn_session_selftest(acorn_session *session, acorn_selftest_report *report);

/// A reference run to be recorded, for who writes model files. The last sampled_count ids are drawn with temperature_q16 and
/// seed, those before are the likeliest.
typedef struct acorn_reference_run {
  uint32_t struct_size;
  uint32_t prompt_count, generated_count; /* 1 at least, together at most 1,024 */
  uint32_t sampled_count, temperature_q16; /* the latter above 0 in any case */
  uint32_t steps; /* room in each of the two arrays of digests: as many as acorn_model_trace has rows, or more */
  uint64_t seed;
  const int32_t *prompt;                       /* [prompt_count] */
  int32_t *generated;                          /* out: [generated_count] */
  uint64_t *prefill_digests, *decode_digests;  /* out: [rows of acorn_model_trace] */
} acorn_reference_run;
/// Computes what acorn_session_selftest will compare, at rate 0 and with dials and hooks off. The session is reset before and after
/// and keeps its rate. Needs ACORN_OPEN_TRACE.
/// Returns: ACORN_OK | ACORN_ERR_STATE (no trace) | ACORN_ERR_BUFFER (steps) | ACORN_ERR_TOKEN | ACORN_ERR_CONTEXT_FULL |
///          ACORN_ERR_CANCELLED | ACORN_ERR_DEADLINE | ACORN_ERR_ARGUMENT
ACORN_NODISCARD ACORN_API acorn_status acorn_session_record(acorn_session *session, acorn_reference_run *run);

#ifdef __cplusplus
}
#endif

#endif  // ACORN_H_
