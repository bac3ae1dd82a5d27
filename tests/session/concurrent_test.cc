// Threads: models on one image run side by side, sessions of one model take turns under the caller's lock, and anybody may cancel at
// any time. Each conversation has the digest of one that was alone. The thread sanitizer runs these too.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/experts/simulated_storage.h"
#include "tests/support/model_session.h"

namespace acorn::test {
namespace {

constexpr acorn_status kOk = ACORN_OK;
#if defined(ACORN_EMULATED)
constexpr uint32_t kThreads[] = {3};
#else
constexpr uint32_t kThreads[] = {2, 4, 8};
#endif

/// One conversation. `lock`: of the model, held for each call and not for what it gave; null: nobody else has the model.
class Conversation {
 public:
  Conversation(acorn_session *session, uint32_t vocab_size, uint64_t seed, std::mutex *lock)
      : session_(session), vocab_size_(vocab_size), lock_(lock) {
    Random random(seed);
    for (int32_t &token : tokens_) token = static_cast<int32_t>(random.Between(0, vocab_size - 1));
  }

  uint64_t Run() {
    std::vector<uint8_t> snapshot;
    for (int turn = 0; turn < 3; ++turn) {
      Feed(0, 11);
      Feed(11, 9);
      for (size_t i = 0; i < 5; ++i) Feed(20 + i, 1);
      size_t bytes = 0;
      Call([&] {
        bytes = acorn_session_snapshot_bytes(session_);
        snapshot.resize(bytes);
        return acorn_session_save(session_, snapshot.data(), bytes);
      });
      Hash(snapshot.data(), bytes);
      Call([&] { return acorn_session_rewind(session_, 7); });
      Feed(7, 6);
      Call([&] { return acorn_session_load(session_, snapshot.data(), bytes); });
      acorn_sampling sampling = {};
      sampling.struct_size = sizeof sampling;
      sampling.temperature_q16 = 65536;
      sampling.seed = 3;
      int32_t token = 0;
      Call([&] { return acorn_session_sample(session_, &token, &sampling); });
      Hash(&token, sizeof token);
      Feed(25, 3);
      Call([&] { return acorn_session_reset(session_), kOk; });
    }
    return digest_;
  }

 private:
  // Until nobody cancels it.
  template <typename Body>
  void Call(const Body &body) {
    acorn_status status = ACORN_ERR_CANCELLED;
    while (status == ACORN_ERR_CANCELLED) {
      std::unique_lock<std::mutex> lock;
      if (lock_ != nullptr) lock = std::unique_lock<std::mutex>(*lock_);
      status = body();
    }
    EXPECT_EQ(status, kOk);
  }
  // Tokens that are to stand from `begin` on.
  void Feed(size_t begin, size_t count) {
    Call([&] {
      size_t position = acorn_session_position(session_);
      if (position == begin + count) position = begin + count - 1;  // taken in, but cancelled before its logits
      const acorn_status status = acorn_session_rewind(session_, position);
      return status != kOk ? status : acorn_session_prefill(session_, tokens_ + position, begin + count - position);
    });
    const int32_t *logits = nullptr;
    EXPECT_EQ(acorn_session_logits(session_, &logits), kOk);
    Hash(logits, vocab_size_ * sizeof(int32_t));
  }
  void Hash(const void *data, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) digest_ = (digest_ ^ static_cast<const uint8_t *>(data)[i]) * 0x100000001b3u;
  }

  acorn_session *session_;
  uint32_t vocab_size_;
  std::mutex *lock_;
  int32_t tokens_[32] = {};
  uint64_t digest_ = 0xcbf29ce484222325u;
};

acorn_options Options(uint32_t sessions) {
  acorn_options options = {};
  options.chunk_tokens = 4;
  options.max_sessions = sessions;
  return options;
}

ModelSpec SpecNamed(const std::string &name) {
  for (const ModelSpec &spec : VariedSpecs()) {
    if (spec.name == name) return spec;
  }
  ADD_FAILURE() << name;
  return {};
}

class Concurrent : public testing::TestWithParam<std::string> {
 protected:
  Concurrent() : spec_(SpecNamed(GetParam())), file_(BuildModel(spec_)) {
    for (uint64_t seed = 0; seed < 8; ++seed) {
      ModelSession alone(file_, Options(1));
      EXPECT_EQ(alone.status(), kOk);
      alone_.push_back(Conversation(alone.session(), spec_.vocab_size, seed, nullptr).Run());
    }
  }

  /// Conversation i in session i of `model`, each on a thread of its own.
  void ExpectTurnsTaken(acorn_model *model, acorn_session *first, uint32_t threads, bool cancelled) {
    std::vector<acorn_session *> sessions = {first};
    for (uint32_t i = 1; i < threads; ++i) {
      sessions.push_back(nullptr);
      ASSERT_EQ(acorn_session_open(&sessions.back(), model), kOk);
    }
    std::mutex lock;
    std::vector<uint64_t> found(threads);
    std::vector<std::thread> workers;
    std::atomic<bool> done{false};
    for (uint32_t i = 0; i < threads; ++i) {
      workers.emplace_back([&, i] { found[i] = Conversation(sessions[i], spec_.vocab_size, i, &lock).Run(); });
    }
    std::thread canceller;
    if (cancelled) {
      canceller = std::thread([&] {
        // Ever more seldom: however slow the machine or a sanitizer makes a chunk, some day one is done between two requests.
        for (uint32_t i = 0; !done; ++i) {
          acorn_session_cancel(sessions[i % threads]);
          std::this_thread::yield();
          for (volatile uint32_t spin = 0; spin < 20000 + 200 * i;) spin = spin + 1;
        }
      });
    }
    for (std::thread &worker : workers) worker.join();
    done = true;
    if (cancelled) canceller.join();
    for (uint32_t i = 0; i < threads; ++i) EXPECT_EQ(found[i], alone_[i]) << i << " of " << threads;
  }

  ModelSpec spec_;
  AlignedBytes file_;
  std::vector<uint64_t> alone_;  // digests by seed
};

TEST_P(Concurrent, ModelsOnOneImage) {
  const acorn_image image{file_.data(), file_.size()};
  for (const uint32_t threads : kThreads) {
    std::vector<uint64_t> found(threads);
    std::vector<std::thread> workers;
    for (uint32_t i = 0; i < threads; ++i) {
      workers.emplace_back([&, i] {
        acorn_options options = Options(1);
        options.struct_size = sizeof options;
        acorn_memory_plan plan = {};
        acorn_model *model = nullptr;
        acorn_session *session = nullptr;
        EXPECT_EQ(acorn_plan(&plan, nullptr, &image, &options, nullptr), kOk);
        AlignedBytes block(std::vector<uint8_t>(plan.block_bytes, 0x3c));
        EXPECT_EQ(acorn_model_open(&model, nullptr, &image, &options, nullptr, block.data(), block.size()), kOk);
        EXPECT_EQ(acorn_session_open(&session, model), kOk);
        found[i] = Conversation(session, spec_.vocab_size, i, nullptr).Run();
      });
    }
    for (std::thread &worker : workers) worker.join();
    for (uint32_t i = 0; i < threads; ++i) EXPECT_EQ(found[i], alone_[i]) << i << " of " << threads;
  }
}

TEST_P(Concurrent, SessionsTakeTurns) {
  for (const uint32_t threads : kThreads) {
    ModelSession shared(file_, Options(threads));
    ASSERT_EQ(shared.status(), kOk);
    ExpectTurnsTaken(shared.model(), shared.session(), threads, false);
  }
}

TEST_P(Concurrent, SessionsThatAreCancelled) {
  ModelSession shared(file_, Options(kThreads[0]));
  ASSERT_EQ(shared.status(), kOk);
  ExpectTurnsTaken(shared.model(), shared.session(), kThreads[0], true);
}

// One pool of slots for all sessions, smaller than what one of them needs for a token.
TEST_P(Concurrent, SessionsShareExpertSlots) {
  if (spec_.experts == 0) GTEST_SKIP() << "it has no experts";
  for (const uint32_t threads : kThreads) {
    for (const bool cancelled : {false, true}) {
      Storage storage(file_);
      acorn_options options = Options(threads);
      options.expert_cache_bytes = 3 * ModelSession(file_).plan().expert_record_bytes;
      options.expert_prefetch = ACORN_PREFETCH_GATE;
      ModelSession shared(file_, options, storage.port());
      ASSERT_EQ(shared.status(), kOk);
      ExpectTurnsTaken(shared.model(), shared.session(), threads, cancelled);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Concurrent,
                         testing::Values("w4g32_tied_groups", "experts_w4g32", "state_space", "state_space_hybrid_experts"),
                         [](const testing::TestParamInfo<std::string> &name) { return name.param; });

#if defined(ACORN_DEBUG_CHECKS)
/// A port whose loop lets somebody else use the model: what a caller without a lock does now and then, always.
struct Intruder {
  std::function<void()> use;
};

void LetIn(void *ctx, acorn_task task, void *arg, uint32_t count) {
  if (const std::function<void()> use = std::exchange(static_cast<Intruder *>(ctx)->use, nullptr)) std::thread(use).join();
  for (uint32_t i = 0; i < count; ++i) task(arg, i, 0);
}

/// `use`: what another thread does to a session while a prefill of it, or of one beside it, runs.
void UseTwice(bool same_session, const std::function<void(acorn_session *, acorn_model *)> &use) {
  const ModelSpec spec = SpecNamed("w4g32_tied_groups");
  Intruder intruder;
  acorn_port port = {};
  port.struct_size = sizeof port;
  port.ctx = &intruder;
  port.threads = 2;
  port.parallel_for = LetIn;
  ModelSession session(BuildModel(spec), Options(2), &port);
  acorn_session *other = nullptr;
  EXPECT_EQ(acorn_session_open(&other, session.model()), kOk);
  intruder.use = [&] { use(same_session ? session.session() : other, session.model()); };
  const int32_t tokens[] = {1, 2, 3};
  EXPECT_EQ(acorn_session_prefill(session.session(), tokens, 3), kOk);
}
#endif

TEST(ConcurrentDeathTest, TwoCallsAtOnceStopABuildWithDebugChecks) {
#if defined(ACORN_DEBUG_CHECKS)
  static constexpr int32_t kToken = 1;
  std::vector<uint8_t> snapshot(1 << 20);
  const auto ignore = [](acorn_status) {};
  const std::pair<const char *, std::function<void(acorn_session *, acorn_model *)>> calls[] = {
      {"prefill", [&](acorn_session *s, acorn_model *) { ignore(acorn_session_prefill(s, &kToken, 1)); }},
      {"decode", [&](acorn_session *s, acorn_model *) { ignore(acorn_session_decode(s, nullptr, kToken)); }},
      {"rewind", [&](acorn_session *s, acorn_model *) { ignore(acorn_session_rewind(s, 0)); }},
      {"rate", [&](acorn_session *s, acorn_model *) { ignore(acorn_session_set_rate(s, 0)); }},
      {"save", [&](acorn_session *s, acorn_model *) { ignore(acorn_session_save(s, snapshot.data(), snapshot.size())); }},
      {"load", [&](acorn_session *s, acorn_model *) { ignore(acorn_session_load(s, snapshot.data(), snapshot.size())); }},
      {"reset", [&](acorn_session *s, acorn_model *) { acorn_session_reset(s); }},
      {"close", [&](acorn_session *s, acorn_model *) { acorn_session_close(s); }},
      {"open", [&](acorn_session *, acorn_model *m) { acorn_session *s; ignore(acorn_session_open(&s, m)); }},
  };
  for (const auto &[name, use] : calls) {
    for (const bool same_session : {true, false}) {
      EXPECT_DEATH(UseTwice(same_session, use), "") << name << (same_session ? ", the same session" : ", another session");
    }
  }
#else
  GTEST_SKIP() << "this build has no debug checks";
#endif
}

}  // namespace
}  // namespace acorn::test
