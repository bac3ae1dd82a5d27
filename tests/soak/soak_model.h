// A model under load: several conversations, each with a record of the rate that every token of it was computed at, so that a
// fresh model can repeat it.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "acorn.h"
#include "acorn_posix.h"

namespace acorn::soak {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Throws Failure that names `what`.
void Check(acorn_status status, const std::string &what);

/// One seed, one run: std::mt19937_64's numbers are the standard's, its distributions are not.
class Dice {
 public:
  explicit Dice(uint64_t seed) : engine_(seed) {}
  /// In [0, count).
  uint64_t Below(uint64_t count) { return engine_() % count; }
  bool OneIn(uint64_t count) { return Below(count) == 0; }

 private:
  std::mt19937_64 engine_;
};

/// A thread that asks a session's call to stop while it runs, at some moment of it.
class Canceller {
 public:
  Canceller();
  ~Canceller();
  Canceller(const Canceller &) = delete;
  Canceller &operator=(const Canceller &) = delete;
  /// Cancels once, after `spins` looks at a counter. Done() waits for it.
  void Start(acorn_session *session, uint64_t spins);
  void Done();

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  acorn_session *session_ = nullptr;  // null: nothing to do
  uint64_t spins_ = 0;
  bool end_ = false;
  std::thread thread_;
};

struct Counts {
  uint64_t turns, tokens, generated, cancelled, rates, refills, saves, loads, rewinds, resets, full, checks;
};

class SoakModel {
 public:
  SoakModel(const std::string &path, uint32_t sessions, uint32_t threads);
  ~SoakModel();
  SoakModel(const SoakModel &) = delete;
  SoakModel &operator=(const SoakModel &) = delete;

  /// One thing that a user of some session may do. Throws Failure on any status that the call's comment does not allow.
  void Turn(Dice *dice, Canceller *canceller, Counts *counts);
  /// Repeats every conversation in a fresh model with other chunks and threads and all experts resident; the logits of one more
  /// token must be equal.
  void CheckDigests(Counts *counts);

  const std::string &path() const { return path_; }
  const acorn_memory_plan &plan() const { return plan_; }

 private:
  /// What the states of a model that has them know of the tokens before the next one.
  enum class Seen { kAll, kNothing, kSomething };
  struct Conversation {
    acorn_session *session = nullptr;
    std::vector<uint32_t> rates;  // [position]
    Seen seen = Seen::kAll;
  };
  struct Snapshot {
    std::vector<uint8_t> bytes;
    size_t size = 0;  // 0: none
    std::vector<uint32_t> rates;
    Seen seen = Seen::kAll;
  };

  void Open(const acorn_options &options, const acorn_port *port, void **block, acorn_memory_plan *plan, acorn_model **model) const;
  acorn_status AppendPrompt(Conversation *conversation, Dice *dice);
  acorn_status Generate(Conversation *conversation, Dice *dice, Counts *counts);
  void Talk(Conversation *conversation, Dice *dice, Canceller *canceller, Counts *counts);
  void SwitchRate(Conversation *conversation, Dice *dice, Counts *counts);
  void Save(Conversation *conversation, Dice *dice, Counts *counts);
  void Load(Conversation *conversation, Dice *dice, Counts *counts);
  void Rewind(Conversation *conversation, size_t position);
  void Reset(Conversation *conversation);
  /// After a call that may have appended: the new tokens have the session's rate.
  void Record(Conversation *conversation, acorn_status status, Counts *counts);
  bool HasStates() const { return plan_.state_bytes != 0; }

  std::string path_;
  acorn_posix *posix_ = nullptr;
  acorn_port port_ = {};
  acorn_posix_file file_ = {};
  acorn_image image_ = {};
  volatile uint8_t touched_ = 0;  // every page of the file, so that none comes in later
  acorn_memory_plan plan_ = {};
  acorn_model_info info_ = {};
  void *block_ = nullptr;
  acorn_model *model_ = nullptr;
  std::vector<uint32_t> model_rates_;
  std::vector<Conversation> conversations_;
  std::vector<Snapshot> snapshots_;
  std::vector<int32_t> ids_;
};

}  // namespace acorn::soak
