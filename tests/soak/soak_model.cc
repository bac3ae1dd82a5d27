#include "soak_model.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>

namespace acorn::soak {
namespace {

constexpr uint32_t kContext = 192, kMostPrompt = 48, kMostAnswer = 24;
constexpr size_t kSnapshots = 3;
constexpr const char *kPrompts[] = {
    "turn on the lamp in the kitchen", "set the heater of the bedroom to 21 degrees", "what is the weather like",
    "", " ", "0123456789", "Über den Wolken – naïve café", "日本語のテキスト", "\xf0\x9f\x8c\xb0 an acorn", "<|endoftext|><|user|>",
    "please please please please please please please please please", "\xff\xfe broken \xc3", "turn\toff\neverything",
};

uint64_t Digest(const int32_t *logits, size_t count) {
  uint64_t digest = 0xcbf29ce484222325u;
  for (size_t i = 0; i < count; ++i) {
    for (int shift = 0; shift < 32; shift += 8) {
      digest = (digest ^ (static_cast<uint32_t>(logits[i]) >> shift & 0xff)) * 0x100000001b3u;
    }
  }
  return digest;
}

}  // namespace

void Check(acorn_status status, const std::string &what) {
  if (status != ACORN_OK) throw Failure(what + ": " + acorn_status_text(status));
}

Canceller::Canceller() : thread_([this] { Run(); }) {}

Canceller::~Canceller() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    end_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Canceller::Start(acorn_session *session, uint64_t spins) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    session_ = session;
    spins_ = spins;
  }
  changed_.notify_all();
}

void Canceller::Done() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return session_ == nullptr; });
}

void Canceller::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return end_ || session_ != nullptr; });
    if (end_) return;
    acorn_session *session = session_;
    const uint64_t spins = spins_;
    lock.unlock();
    for (volatile uint64_t i = 0; i < spins;) i = i + 1;
    acorn_session_cancel(session);
    lock.lock();
    session_ = nullptr;
    changed_.notify_all();
  }
}

SoakModel::SoakModel(const std::string &path, uint32_t sessions, uint32_t threads) : path_(path) {
  posix_ = acorn_posix_create(threads);
  if (posix_ == nullptr) throw Failure("no threads");
  int error = acorn_posix_set_file(posix_, path.c_str());
  if (error == 0) error = acorn_posix_open_file(&file_, path.c_str(), ACORN_POSIX_MAP);
  if (error != 0) throw Failure(path + ": " + std::strerror(error));
  acorn_posix_port(posix_, &port_, 0);
  image_ = {file_.data, file_.bytes};
  for (size_t i = 0; i < file_.bytes; i += 4096) touched_ = touched_ ^ static_cast<const uint8_t *>(file_.data)[i];
  acorn_options options = {};
  options.struct_size = sizeof options;
  Check(acorn_plan(&plan_, nullptr, &image_, &options, &port_), path);
  options.context_tokens = std::min(kContext, plan_.context_tokens);
  options.chunk_tokens = 16;
  options.max_sessions = sessions;
  // Fewer than a token needs, so that every token reads and every slot is fought for.
  if (plan_.experts != 0) {
    options.expert_cache_bytes = plan_.expert_record_bytes * std::max(1u, plan_.useful_expert_slots / 2);
    options.expert_prefetch = ACORN_PREFETCH_GATE;
  }
  Open(options, &port_, &block_, &plan_, &model_);
  Check(acorn_model_get_info(model_, &info_), path);
  model_rates_.resize(plan_.rates);
  size_t count = 0;
  Check(acorn_model_rates(model_, model_rates_.data(), model_rates_.size(), &count), path);
  conversations_.resize(sessions);
  for (Conversation &conversation : conversations_) {
    Check(acorn_session_open(&conversation.session, model_), path);
    conversation.rates.reserve(plan_.context_tokens);
  }
  snapshots_.resize(kSnapshots);
  for (Snapshot &snapshot : snapshots_) {
    snapshot.bytes.assign(plan_.session_bytes, 1);  // touched: a snapshot is shorter than the session
    snapshot.rates.reserve(plan_.context_tokens);
  }
  ids_.resize(kMostPrompt);
}

SoakModel::~SoakModel() {
  acorn_posix_stop_reads(posix_, UINT64_MAX);
  acorn_posix_release(block_, plan_.block_bytes);
  acorn_posix_close_file(&file_);
  acorn_posix_destroy(posix_);
}

void SoakModel::Open(const acorn_options &options, const acorn_port *port, void **block, acorn_memory_plan *plan,
                     acorn_model **model) const {
  Check(acorn_plan(plan, nullptr, &image_, &options, port), path_);
  *block = acorn_posix_allocate(plan->block_bytes);
  if (*block == nullptr) throw Failure("no memory");
  std::memset(*block, 0, plan->block_bytes);  // its pages are here from the start, and growth is growth
  Check(acorn_model_open(model, nullptr, &image_, &options, port, *block, plan->block_bytes), path_);
}

void SoakModel::Turn(Dice *dice, Canceller *canceller, Counts *counts) {
  Conversation *conversation = &conversations_[dice->Below(conversations_.size())];
  ++counts->turns;
  switch (dice->Below(12)) {
    case 0:
      SwitchRate(conversation, dice, counts);
      break;
    case 1:
      Save(conversation, dice, counts);
      break;
    case 2:
      Load(conversation, dice, counts);
      break;
    case 3:
      ++counts->rewinds;
      Rewind(conversation, dice->Below(conversation->rates.size() + 1));
      break;
    case 4:
      ++counts->resets;
      if (dice->OneIn(2)) {
        acorn_session_close(conversation->session);
        Check(acorn_session_open(&conversation->session, model_), "opening a session again");
      }
      Reset(conversation);
      break;
    default:
      Talk(conversation, dice, dice->OneIn(3) ? canceller : nullptr, counts);
  }
}

acorn_status SoakModel::AppendPrompt(Conversation *conversation, Dice *dice) {
  if (info_.has_tokenizer == 0 || dice->OneIn(4)) {
    const size_t count = 1 + dice->Below(kMostPrompt);
    for (size_t i = 0; i < count; ++i) ids_[i] = static_cast<int32_t>(dice->Below(info_.vocab_size));
    return acorn_session_prefill(conversation->session, ids_.data(), count);
  }
  const char *prompt = kPrompts[dice->Below(std::size(kPrompts))];
  uint32_t flags = ACORN_TEXT_BOS;
  if (info_.has_chat_template != 0 && dice->OneIn(2)) {
    flags |= ACORN_TEXT_CHAT;
  } else if (dice->OneIn(2)) {
    flags |= ACORN_TEXT_MARKUP;
  }
  return acorn_session_append_text(conversation->session, prompt, std::strlen(prompt), flags);
}

acorn_status SoakModel::Generate(Conversation *conversation, Dice *dice, Counts *counts) {
  static const char *const kStops[] = {"\n\n", "}}"};
  acorn_generation generation = {};
  generation.struct_size = sizeof generation;
  generation.max_tokens = 1 + static_cast<uint32_t>(dice->Below(kMostAnswer));
  generation.sampling.struct_size = sizeof generation.sampling;
  generation.sampling.temperature_q16 = static_cast<uint32_t>(dice->Below(3) * 50000);
  generation.sampling.top_k = static_cast<uint32_t>(dice->Below(40));
  generation.sampling.repetition_penalty_q16 = dice->OneIn(2) ? 72000 : 0;
  generation.sampling.seed = dice->Below(1000);
  generation.stop_strings = kStops;
  generation.stop_count = dice->OneIn(2) ? std::size(kStops) : 0;
  size_t count = 0;
  const acorn_status status = acorn_session_generate(conversation->session, nullptr, &count, &generation);
  counts->generated += count;
  return status;
}

void SoakModel::Talk(Conversation *conversation, Dice *dice, Canceller *canceller, Counts *counts) {
  if (canceller != nullptr) canceller->Start(conversation->session, dice->Below(2000000));
  const size_t before = conversation->rates.size();
  acorn_status status = AppendPrompt(conversation, dice);
  Record(conversation, status, counts);
  if (status == ACORN_ERR_CONTEXT_FULL) {
    ++counts->full;
    Reset(conversation);
  } else if (status == ACORN_OK && conversation->rates.size() != before) {
    status = Generate(conversation, dice, counts);
    Record(conversation, status, counts);
  }
  const bool may = canceller != nullptr && status == ACORN_ERR_CANCELLED;
  // A text of no tokens is none to feed.
  const bool empty = status == ACORN_ERR_ARGUMENT || status == ACORN_ERR_STATE;
  if (status != ACORN_OK && status != ACORN_ERR_CONTEXT_FULL && !may && !empty) Check(status, "a turn");
  if (canceller == nullptr) return;
  canceller->Done();
  // A request that came too late ends the next call: this one.
  const int32_t token = 0;
  status = acorn_session_prefill(conversation->session, &token, 1);
  Record(conversation, status, counts);
  if (status == ACORN_ERR_CONTEXT_FULL) return Reset(conversation);  // which takes the request back: a call refused does not
  if (status != ACORN_ERR_CANCELLED) Check(status, "the call after a cancel");
}

void SoakModel::Record(Conversation *conversation, acorn_status status, Counts *counts) {
  const uint32_t rate = acorn_session_rate(conversation->session);
  const size_t position = acorn_session_position(conversation->session);
  if (position < conversation->rates.size()) throw Failure("tokens are lost");
  if (conversation->seen != Seen::kAll && (status == ACORN_OK || position > conversation->rates.size())) {
    // They were computed once more, at the rate of now: by a call that had nothing to add too.
    std::fill(conversation->rates.begin(), conversation->rates.end(), rate);
    conversation->seen = Seen::kAll;
  }
  counts->tokens += position - conversation->rates.size();
  conversation->rates.resize(position, rate);
  if (status != ACORN_ERR_CANCELLED) return;
  ++counts->cancelled;
  // Whether the states stand where the call ended, or anew, nobody can tell from here.
  if (HasStates() && position != 0) Rewind(conversation, position - 1);
  if (HasStates()) conversation->seen = Seen::kSomething;
}

void SoakModel::SwitchRate(Conversation *conversation, Dice *dice, Counts *counts) {
  if (conversation->seen == Seen::kSomething) return;  // at the rate of before
  acorn_session *session = conversation->session;
  const uint32_t rate = model_rates_[dice->Below(model_rates_.size())];
  const acorn_status status = acorn_session_set_rate(session, rate);
  ++counts->rates;
  if (status != ACORN_ERR_REFILL) return Check(status, "a switch of the rate");
  ++counts->refills;
  const int32_t *begin = acorn_session_tokens(session);
  const std::vector<int32_t> tokens(begin, begin + acorn_session_position(session));
  Reset(conversation);
  Check(acorn_session_set_rate(session, rate), "a switch of the rate of an empty session");
  Check(acorn_session_prefill(session, tokens.data(), tokens.size()), "filling a session again");
  Record(conversation, ACORN_OK, counts);
}

void SoakModel::Save(Conversation *conversation, Dice *dice, Counts *counts) {
  Snapshot *snapshot = &snapshots_[dice->Below(snapshots_.size())];
  const size_t bytes = acorn_session_snapshot_bytes(conversation->session);
  if (bytes > snapshot->bytes.size()) throw Failure("a snapshot is longer than its session");
  Check(acorn_session_save(conversation->session, snapshot->bytes.data(), bytes), "saving");
  snapshot->size = bytes;
  snapshot->rates = conversation->rates;
  snapshot->seen = conversation->seen;
  ++counts->saves;
}

void SoakModel::Load(Conversation *conversation, Dice *dice, Counts *counts) {
  const Snapshot &snapshot = snapshots_[dice->Below(snapshots_.size())];
  if (snapshot.size == 0) return;
  Check(acorn_session_load(conversation->session, snapshot.bytes.data(), snapshot.size), "loading");
  conversation->rates = snapshot.rates;
  conversation->seen = snapshot.seen;
  ++counts->loads;
}

void SoakModel::Rewind(Conversation *conversation, size_t position) {
  const bool back = position < conversation->rates.size();
  Check(acorn_session_rewind(conversation->session, position), "a rewind");
  conversation->rates.resize(position);
  if (HasStates() && back && conversation->seen == Seen::kAll) conversation->seen = Seen::kNothing;
  if (position == 0) conversation->seen = Seen::kAll;
}

void SoakModel::Reset(Conversation *conversation) {
  acorn_session_reset(conversation->session);
  conversation->rates.clear();
  conversation->seen = Seen::kAll;
}

void SoakModel::CheckDigests(Counts *counts) {
  acorn_options options = {};
  options.struct_size = sizeof options;
  options.context_tokens = plan_.context_tokens;
  options.chunk_tokens = 64;
  acorn_memory_plan plan = {};
  void *block = nullptr;
  acorn_model *model = nullptr;
  acorn_port port = port_;
  port.parallel_for = nullptr;
  port.threads = 1;
  Open(options, &port, &block, &plan, &model);
  acorn_session *fresh = nullptr;
  Check(acorn_session_open(&fresh, model), "opening a fresh session");
  for (Conversation &conversation : conversations_) {
    const size_t position = conversation.rates.size();
    if (position == acorn_session_capacity(conversation.session)) continue;
    const int32_t token = static_cast<int32_t>(position % info_.vocab_size);
    const int32_t *logits = nullptr;
    Check(acorn_session_decode(conversation.session, &logits, token), "a token to compare");
    Record(&conversation, ACORN_OK, counts);
    const uint64_t found = Digest(logits, info_.vocab_size);
    acorn_session_reset(fresh);
    Check(acorn_session_set_rate(fresh, conversation.rates[0]), "the first rate of a fresh session");
    const int32_t *tokens = acorn_session_tokens(conversation.session);
    for (size_t begin = 0; begin <= position;) {
      size_t end = begin;
      while (end <= position && conversation.rates[end] == conversation.rates[begin]) ++end;
      Check(acorn_session_set_rate(fresh, conversation.rates[begin]), "a rate of a fresh session");
      Check(acorn_session_prefill(fresh, tokens + begin, end - begin), "filling a fresh session");
      begin = end;
    }
    Check(acorn_session_logits(fresh, &logits), "the logits of a fresh session");
    if (found != Digest(logits, info_.vocab_size)) {
      throw Failure(path_ + ": other logits than a fresh session's after " + std::to_string(position + 1) + " tokens");
    }
    ++counts->checks;
  }
  acorn_posix_release(block, plan.block_bytes);
}

}  // namespace acorn::soak
