// How likely the model finds given tokens: the natural logarithms that perplexity and eval report. The only floating point is
// here, on integer logits that the library has computed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device.h"
#include "statistics.h"

namespace acorn::program {

/// Rows of logits that a session holds at once: enough for the head's weights to be read rarely.
inline constexpr uint32_t kLogitRows = 32;

/// Of a logit, in natural units.
double LogitUnit(const acorn_model_info &info);

struct TokenScore {
  double loss = 0;        // −ln p(token)
  bool likeliest = false;  // the token is the greedy choice: the lowest id of the largest logits
};
/// logits [vocab_size] are what came before `token`, in [0, vocab_size).
TokenScore ScoreToken(const int32_t *logits, size_t vocab_size, int32_t token, double unit);

/// A context and what is to follow it, as ids.
struct Continuation {
  std::vector<int32_t> ids;  // both
  size_t first = 0;          // the continuation's first id; at least 1
  bool truncated = false;    // ids at the context's left were dropped
};

struct ContinuationScore {
  double log_likelihood = 0;  // ln p(continuation | context)
  bool likeliest = true;      // every token is the greedy choice
};

/// Scores continuations one after the other in the device's session. Whatever a continuation has in common with the one before
/// it, from the first token on, is not computed again, and gives the same bits.
class ContinuationScorer {
 public:
  /// `device` is open, has a tokenizer and logit rows to taste. Its session is this object's from now on.
  explicit ContinuationScorer(Device *device);

  /// As lm-evaluation-harness: both texts are encoded as one, behind the start token where the tokenizer adds one; what goes
  /// beyond the context's own ids is the continuation; white space at the context's end belongs to it too; where the context has
  /// no ids, the start token (or the end token) stands for it; what the session cannot hold is dropped at the left.
  /// `where` names the source of the texts in failures.  Throws Failure where the continuation has no ids, or alone is too long.
  Continuation Encode(const std::string &context, const std::string &continuation, const std::string &where);

  ContinuationScore Score(const Continuation &continuation);

  /// Tokens of all continuations so far, and FNV-1a-64 over the logits that were computed to score them, in order: a position
  /// that a continuation has in common with the one before it, and is not computed again, counts once.
  uint64_t tokens() const { return tokens_; }
  uint64_t digest() const { return digest_.value(); }

 private:
  static int OnLogits(void *ctx, size_t row, const int32_t *logits, size_t count);

  Device *device_;
  double unit_;
  bool start_is_prefix_ = false;  // the start token is the model's constant prefix
  std::vector<int32_t> ids_;      // of the last continuation; the session holds all but the last of them
  size_t first_scored_ = 0;       // scores_ is valid from here on
  size_t next_ = 0;               // of ids_, to be scored by the next row
  std::vector<TokenScore> scores_;  // [ids_.size()]
  uint64_t tokens_ = 0;
  Fnv digest_;
};

}  // namespace acorn::program
