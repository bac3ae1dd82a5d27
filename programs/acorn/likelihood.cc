#include "likelihood.h"

#include <algorithm>
#include <cmath>

#include "error.h"

namespace acorn::program {

double LogitUnit(const acorn_model_info &info) {
  return std::ldexp(static_cast<double>(info.logit_multiplier), -info.logit_shift - 16);
}

TokenScore ScoreToken(const int32_t *logits, size_t vocab_size, int32_t token, double unit) {
  const int32_t *largest = std::max_element(logits, logits + vocab_size);
  double sum = 0;
  for (size_t i = 0; i < vocab_size; ++i) sum += std::exp((static_cast<double>(logits[i]) - *largest) * unit);
  return {std::log(sum) + (static_cast<double>(*largest) - logits[token]) * unit, largest - logits == token};
}

ContinuationScorer::ContinuationScorer(Device *device) : device_(device), unit_(LogitUnit(device->info())) {
  // A start token that the file holds as constant prefix is not fed again, and append_text knows whether it is one.
  acorn_session *session = device->session();
  acorn_session_reset(session);
  const bool starts = !device->Encode("", ACORN_TEXT_BOS).empty();
  device->Check(acorn_session_append_text(session, "", 0, ACORN_TEXT_BOS), "reading the start token");
  start_is_prefix_ = starts && acorn_session_position(session) == 0;
  acorn_session_reset(session);
}

Continuation ContinuationScorer::Encode(const std::string &context, const std::string &continuation, const std::string &where) {
  const acorn_model_info &info = device_->info();
  const size_t context_bytes = context.find_last_not_of(" \t\n\v\f\r") + 1;
  Continuation encoded;
  encoded.ids = device_->Encode(context + continuation, ACORN_TEXT_BOS);
  encoded.first = device_->Encode(context.substr(0, context_bytes), ACORN_TEXT_BOS).size();
  if (start_is_prefix_) {
    encoded.ids.erase(encoded.ids.begin());
    --encoded.first;
  }
  if (encoded.first == 0) {
    const int32_t start = info.bos_token >= 0 ? info.bos_token : info.eos_token;
    if (start < 0) Fail(ExitCode::kUsage, "%s: the context is empty, and the model has no start token", where.c_str());
    encoded.ids.insert(encoded.ids.begin(), start);
    encoded.first = 1;
  }
  if (encoded.first >= encoded.ids.size()) Fail(ExitCode::kUsage, "%s: the continuation has no tokens", where.c_str());
  // The last id is scored, but not fed.
  const uint64_t capacity = acorn_session_capacity(device_->session());
  if (encoded.ids.size() - 1 > capacity) {
    const size_t dropped = encoded.ids.size() - (capacity + 1);
    if (dropped >= encoded.first) {
      Fail(ExitCode::kUsage, "%s: the continuation has %zu tokens, the context holds %llu", where.c_str(),
           encoded.ids.size() - encoded.first, static_cast<unsigned long long>(capacity));
    }
    encoded.ids.erase(encoded.ids.begin(), encoded.ids.begin() + static_cast<std::ptrdiff_t>(dropped));
    encoded.first -= dropped;
    encoded.truncated = true;
  }
  return encoded;
}

int ContinuationScorer::OnLogits(void *ctx, size_t, const int32_t *logits, size_t count) {
  auto *self = static_cast<ContinuationScorer *>(ctx);
  self->scores_[self->next_] = ScoreToken(logits, count, self->ids_[self->next_], self->unit_);
  self->digest_.Add(logits, count);
  ++self->next_;
  return 0;
}

ContinuationScore ContinuationScorer::Score(const Continuation &continuation) {
  const std::vector<int32_t> &ids = continuation.ids;
  const size_t first = continuation.first, count = ids.size();
  const size_t common = static_cast<size_t>(
      std::mismatch(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(std::min(count, ids_.size())), ids_.begin()).first -
      ids.begin());
  // Ids from `first` to next_ were scored before, behind the same ids; the row that scores next_ is the first one to compute.
  const bool known = first >= first_scored_ && common > first;
  next_ = known ? common : first;
  if (!known) first_scored_ = first;
  ids_ = ids;
  scores_.resize(count);
  if (next_ < count) {
    acorn_session *session = device_->session();
    const size_t row = next_ - 1;
    size_t kept = std::min<uint64_t>(std::min(common, row), acorn_session_position(session));
    acorn_status status = acorn_session_rewind(session, kept);
    if (status == ACORN_ERR_REFILL) {  // windows have moved past it
      kept = 0;
      status = acorn_session_rewind(session, kept);
    }
    device_->Check(status, "rewinding");
    if (kept < row) device_->Check(acorn_session_prefill(session, ids.data() + kept, row - kept), "reading a context");
    device_->Check(acorn_session_score(session, ids.data() + row, count - 1 - row, OnLogits, this), "scoring");
  }
  tokens_ += count - first;
  ContinuationScore score;
  for (size_t i = first; i < count; ++i) {
    score.log_likelihood -= scores_[i].loss;
    score.likeliest = score.likeliest && scores_[i].likeliest;
  }
  return score;
}

}  // namespace acorn::program
