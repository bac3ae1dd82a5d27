// Calls that end early: wherever a request or the time is heard, inside a step too, the chunk under way leaves nothing behind, and
// what is fed again has the bits of a session that was never stopped. The place is counted, by looks at the clock.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/time.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/experts/simulated_storage.h"
#include "tests/support/model_session.h"
#include "tests/support/thread_port.h"

namespace acorn::test {
namespace {

// A look takes a model's run and more: where a machine is emulated, one in so many.
#if defined(ACORN_EMULATED)
constexpr uint64_t kStride = 19;
#else
constexpr uint64_t kStride = 1;
#endif
constexpr acorn_status kOk = ACORN_OK, kCancelled = ACORN_ERR_CANCELLED, kDeadline = ACORN_ERR_DEADLINE;
constexpr uint64_t kFarMs = 1000000000;  // a deadline that is looked for and never comes
constexpr size_t kChunk = 4, kBefore = 3;

std::atomic<acorn_session *> g_signalled{nullptr};  // whose call a signal stops; null: none's

/// While it lives, a signal cancels the call of `g_signalled`.
class CancellingSignal {
 public:
  explicit CancellingSignal(int signal) : signal_(signal) {
    struct sigaction action = {};
    action.sa_handler = [](int) { acorn_session_cancel(g_signalled); };  // null: does nothing
    action.sa_flags = SA_RESTART;
    EXPECT_EQ(sigaction(signal_, &action, &before_), 0);
  }
  CancellingSignal(const CancellingSignal &) = delete;
  ~CancellingSignal() { sigaction(signal_, &before_, nullptr); }

 private:
  int signal_;
  struct sigaction before_ = {};
};

/// Another port whose clock is looked at through this one: counts the looks, and cancels at one of them. Where the other has no
/// clock, a look is a millisecond.
class LookedAtPort {
 public:
  explicit LookedAtPort(const acorn_port &inner) : inner_(inner), port_(inner) {
    port_.ctx = this;
    port_.ticks = [](void *ctx) { return static_cast<LookedAtPort *>(ctx)->Look(); };
    if (inner.ticks == nullptr) port_.ticks_per_second = 1000;
    if (inner.parallel_for != nullptr) {
      port_.parallel_for = [](void *ctx, acorn_task task, void *arg, uint32_t count) {
        const acorn_port &other = static_cast<LookedAtPort *>(ctx)->inner_;
        other.parallel_for(other.ctx, task, arg, count);
      };
    }
    if (inner.read_submit == nullptr) return;
    port_.read = nullptr;
    port_.log = nullptr;
    port_.read_submit = [](void *ctx, const acorn_read_request *requests, size_t count, size_t *accepted) {
      const acorn_port &other = static_cast<LookedAtPort *>(ctx)->inner_;
      return other.read_submit(other.ctx, requests, count, accepted);
    };
    port_.read_wait = [](void *ctx, acorn_read_result *results, size_t capacity, uint64_t timeout, size_t *count) {
      const acorn_port &other = static_cast<LookedAtPort *>(ctx)->inner_;
      return other.read_wait(other.ctx, results, capacity, timeout, count);
    };
    port_.read_cancel = [](void *ctx, uint64_t id) {
      const acorn_port &other = static_cast<LookedAtPort *>(ctx)->inner_;
      return other.read_cancel(other.ctx, id);
    };
  }

  const acorn_port *get() const { return &port_; }
  uint64_t looks() const { return looks_; }
  /// The so many-th look from now on cancels a session's call, itself or from the handler of a signal.
  void CancelAt(acorn_session *session, uint64_t look, bool by_signal) {
    session_ = session;
    cancel_at_ = looks_ + look;
    by_signal_ = by_signal;
  }
  void Forget() { session_ = nullptr; }

 private:
  uint64_t Look() {
    ++looks_;
    if (session_ != nullptr && looks_ == cancel_at_) Cancel();
    return inner_.ticks == nullptr ? looks_ : inner_.ticks(inner_.ctx);
  }
  void Cancel() {
    if (!by_signal_) return acorn_session_cancel(session_);
    const CancellingSignal signal(SIGUSR1);
    g_signalled = session_;
    EXPECT_EQ(raise(SIGUSR1), 0);
    g_signalled = nullptr;
  }

  acorn_port inner_, port_;
  bool by_signal_ = false;
  acorn_session *session_ = nullptr;
  uint64_t looks_ = 0, cancel_at_ = 0;
};

std::vector<uint8_t> Snapshot(acorn_session *session) {
  std::vector<uint8_t> bytes(acorn_session_snapshot_bytes(session));
  EXPECT_EQ(acorn_session_save(session, bytes.data(), bytes.size()), kOk);
  return bytes;
}

enum class Way { kCancel, kSignal, kTime };

struct Case {
  std::string spec;
  uint32_t threads;
  uint32_t slots;  // of experts that stream; 0: they do not
  Way way;
};

class Stops : public testing::TestWithParam<Case> {
 protected:
  Stops() : spec_(Find(GetParam().spec)), file_(BuildModel(spec_)), tokens_(SomeTokens(spec_.vocab_size, 13)) {
    options_.chunk_tokens = kChunk;
    if (GetParam().slots != 0) {
      const uint64_t slot_bytes = ModelSession(file_).plan().expert_record_bytes;
      options_.expert_cache_bytes = GetParam().slots * slot_bytes;
      storage_ = std::make_unique<Storage>(file_, acorn_simulated_options{}, GetParam().threads);
      port_ = std::make_unique<LookedAtPort>(*storage_->port());
    } else {
      threads_ = std::make_unique<ThreadPort>(HostFeatures(), GetParam().threads);
      port_ = std::make_unique<LookedAtPort>(*threads_->get());
    }
    session_ = std::make_unique<ModelSession>(file_, options_, port_->get());
    EXPECT_EQ(session_->status(), kOk);
  }

  static ModelSpec Find(const std::string &name) {
    std::vector<ModelSpec> specs = VariedSpecs();
    for (const ModelSpec &spec : ElasticSpecs()) specs.push_back(spec);
    for (const ModelSpec &spec : specs) {
      if (spec.name == name) return spec;
    }
    ADD_FAILURE() << name;
    return {};
  }

  acorn_session *session() { return session_->session(); }

  /// From here on a call ends at the so many-th look.
  void Arm(uint64_t look) {
    if (GetParam().way != Way::kTime) {
      EXPECT_EQ(acorn_session_set_deadline(session(), kFarMs), kOk);
      port_->CancelAt(session(), look, GetParam().way == Way::kSignal);
    } else {
      EXPECT_EQ(acorn_session_set_deadline(session(), look), kOk);
    }
  }
  void Disarm() {
    port_->Forget();
    EXPECT_EQ(acorn_session_set_deadline(session(), ACORN_NO_DEADLINE), kOk);
  }
  acorn_status Stopped() const { return GetParam().way == Way::kTime ? kDeadline : kCancelled; }

  /// The first tokens, at rate 0, and from here on the highest rate.
  void Begin(acorn_session *session) const {
    acorn_session_reset(session);
    ASSERT_EQ(acorn_session_set_rate(session, 0), kOk);
    ASSERT_EQ(acorn_session_prefill(session, tokens_.data(), kBefore), kOk);
    if (!spec_.profiles.empty()) {
      ASSERT_EQ(acorn_session_set_rate(session, spec_.profiles.back().rate), kOk);
    }
  }
  acorn_status Prefill(acorn_session *session) const {
    const size_t at = acorn_session_position(session);
    return acorn_session_prefill(session, tokens_.data() + at, tokens_.size() - 2 - at);
  }
  /// The last two tokens, one by one.
  acorn_status Decode(acorn_session *session) const {
    return acorn_session_decode(session, nullptr, tokens_[acorn_session_position(session)]);
  }

  const ModelSpec spec_;
  const AlignedBytes file_;
  const std::vector<int32_t> tokens_;
  acorn_options options_ = {};
  std::unique_ptr<Storage> storage_;
  std::unique_ptr<ThreadPort> threads_;
  std::unique_ptr<LookedAtPort> port_;
  std::unique_ptr<ModelSession> session_;
};

TEST_P(Stops, AnywhereInAPrefill) {
  ModelSession whole(file_, options_, storage_ != nullptr ? storage_->port() : nullptr);
  ASSERT_EQ(whole.status(), kOk);
  Begin(whole.session());
  const std::vector<uint8_t> begun = Snapshot(whole.session());
  ASSERT_EQ(Prefill(whole.session()), kOk);
  ASSERT_EQ(Decode(whole.session()), kOk);
  const std::vector<uint8_t> expected = Snapshot(whole.session());
  uint64_t looks = 1, in_first_chunk = 0, in_later_ones = 0;
  for (;; looks += kStride) {
    Begin(session());
    Arm(looks);
    const acorn_status status = Prefill(session());
    Disarm();
    if (status == kOk) break;
    ASSERT_EQ(status, Stopped()) << looks;
    const size_t position = acorn_session_position(session());
    ASSERT_EQ((position - kBefore) % kChunk, 0u) << looks;
    if (position == kBefore) {
      ++in_first_chunk;
      ASSERT_EQ(Snapshot(session()), begun) << looks;  // logits and states too
    } else {
      ++in_later_ones;
    }
    ASSERT_EQ(Prefill(session()), kOk) << looks;
    ASSERT_EQ(Decode(session()), kOk) << looks;
    ASSERT_EQ(Snapshot(session()), expected) << looks;
  }
  // Every step of both chunks, and places inside some.
  EXPECT_GT(in_first_chunk * kStride, spec_.layers * 4);
  // How often several threads look depends on which of them is first.
  EXPECT_GE(in_later_ones, GetParam().threads == 1 && kStride == 1 ? in_first_chunk / 2 : 1);
}

// A single token is not always given up; where it is, it leaves nothing.
TEST_P(Stops, AnywhereInADecodeStep) {
  Begin(session());
  ASSERT_EQ(Prefill(session()), kOk);
  const std::vector<uint8_t> before = Snapshot(session());
  ASSERT_EQ(Decode(session()), kOk);
  const std::vector<uint8_t> expected = Snapshot(session());
  for (uint64_t looks = 1;; looks += kStride) {
    ASSERT_EQ(acorn_session_load(session(), before.data(), before.size()), kOk);
    Arm(looks);
    const acorn_status status = Decode(session());
    Disarm();
    if (status == kOk) {
      const bool whole = session_->plan().state_bytes != 0 && GetParam().slots == 0;
      if (kStride == 1) {
        EXPECT_EQ(looks > spec_.layers * 4, !whole);
      }
      break;
    }
    ASSERT_EQ(status, Stopped()) << looks;
    ASSERT_EQ(Snapshot(session()), before) << looks;
    ASSERT_EQ(Decode(session()), kOk) << looks;
    ASSERT_EQ(Snapshot(session()), expected) << looks;
  }
}

// Time for two chunks in each call is enough: also where the states have to see the conversation again, what was computed stands.
TEST_P(Stops, AConversationIsComputedAgainPieceByPiece) {
  if (session_->plan().state_bytes == 0) GTEST_SKIP() << "nothing is computed again";
  ModelSession whole(file_, options_, storage_ != nullptr ? storage_->port() : nullptr);
  ASSERT_EQ(acorn_session_prefill(whole.session(), tokens_.data(), tokens_.size()), kOk);
  const std::vector<uint8_t> expected = Snapshot(whole.session());
  ASSERT_EQ(acorn_session_prefill(session(), tokens_.data(), tokens_.size()), kOk);
  ASSERT_EQ(acorn_session_rewind(session(), tokens_.size() - 1), kOk);
  // Looks of one chunk.
  ModelSession other(file_, options_, port_->get());
  ASSERT_EQ(acorn_session_set_deadline(other.session(), kFarMs), kOk);
  const uint64_t begin = port_->looks();
  ASSERT_EQ(acorn_session_prefill(other.session(), tokens_.data(), kChunk), kOk);
  const uint64_t chunk_looks = port_->looks() - begin;
  acorn_status status = Stopped();
  for (int calls = 0; status == Stopped() && calls < 20; ++calls) {
    Arm(2 * chunk_looks);  // streams take more looks with other experts in memory
    status = acorn_session_prefill(session(), tokens_.data() + tokens_.size() - 1, 1);
    Disarm();
  }
  ASSERT_EQ(status, kOk);
  EXPECT_EQ(Snapshot(session()), expected);
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
#if defined(ACORN_EMULATED)
  return {{"w8_kv4", 1, 0, Way::kTime}, {"state_space_hybrid", 1, 0, Way::kCancel}, {"elastic_hybrid_experts", 1, 4, Way::kCancel}};
#endif
  for (const Way way : {Way::kCancel, Way::kTime}) {
    for (const char *spec : {"w8_kv4", "elastic_dense", "state_space", "elastic_state_space", "state_space_hybrid", "elastic_hybrid_experts", "elastic_experts"}) {
      cases.push_back({spec, 1, 0, way});
    }
  }
  for (const char *spec : {"elastic_dense", "state_space_hybrid"}) cases.push_back({spec, 1, 0, Way::kSignal});
  // Other threads hear what one of them has seen; and waits for storage, whose clock is its own.
  cases.push_back({"state_space_hybrid", 3, 0, Way::kCancel});
  for (const char *spec : {"elastic_hybrid_experts", "elastic_experts"}) cases.push_back({spec, 1, 4, Way::kCancel});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Session, Stops, testing::ValuesIn(Cases()), [](const testing::TestParamInfo<Case> &way) {
  return way.param.spec + "_" + std::to_string(way.param.threads) + "_threads_" + std::to_string(way.param.slots) + "_slots_" +
         (way.param.way == Way::kCancel ? "cancel" : way.param.way == Way::kSignal ? "signal" : "deadline");
});

// From another thread, whenever: what a call leaves can be gone on with.
TEST(Stop, FromAnotherThread) {
  ModelSpec spec = VariedSpecs().front();
  const std::vector<int32_t> tokens = SomeTokens(spec.vocab_size, 60);
  ThreadPort port(HostFeatures(), 2);
  ModelSession session(BuildModel(spec), {}, port.get()), whole(BuildModel(spec));
  ASSERT_EQ(acorn_session_prefill(whole.session(), tokens.data(), tokens.size()), kOk);
  const std::vector<uint8_t> expected = Snapshot(whole.session());
  std::atomic<bool> enough{false};
  std::atomic<int> stopped{0};
  std::thread other([&] {
    while (!enough) {
      const int before = stopped;
      acorn_session_cancel(session.session());
      while (!enough && stopped == before) std::this_thread::yield();
    }
  });
  while (stopped < 20) {
    const size_t at = acorn_session_position(session.session());
    if (at == tokens.size()) {
      acorn_session_reset(session.session());
      acorn_session_cancel(session.session());  // the other's may have gone with the reset
      continue;
    }
    const acorn_status status = acorn_session_prefill(session.session(), tokens.data() + at, tokens.size() - at);
    ASSERT_TRUE(status == kOk || status == kCancelled) << status;
    if (status == kCancelled) ++stopped;
  }
  enough = true;
  other.join();
  acorn_session_reset(session.session());
  ASSERT_EQ(acorn_session_prefill(session.session(), tokens.data(), tokens.size()), kOk);
  EXPECT_EQ(Snapshot(session.session()), expected);
}

#if !defined(__SANITIZE_THREAD__)  // which hands signals on when it likes
// A timer's signal, between any two instructions of a call: it ends as if another thread had asked.
TEST(Stop, FromASignalHandler) {
#if defined(ACORN_EMULATED)
  constexpr int kTimes = 3;
#else
  constexpr int kTimes = 20;
#endif
  const ModelSpec spec = VariedSpecs().front();
  const std::vector<int32_t> tokens = SomeTokens(spec.vocab_size, 60);
  const AlignedBytes file = BuildModel(spec);
  ModelSession whole(file), session(file);
  ASSERT_EQ(acorn_session_prefill(whole.session(), tokens.data(), tokens.size()), kOk);
  const std::vector<uint8_t> prefilled = Snapshot(whole.session());
  ASSERT_EQ(acorn_session_decode(whole.session(), nullptr, 1), kOk);
  const std::vector<uint8_t> decoded = Snapshot(whole.session());
  const CancellingSignal signal(SIGALRM);
  itimerval timer = {};
  timer.it_interval.tv_usec = timer.it_value.tv_usec = 200;
  ASSERT_EQ(setitimer(ITIMER_REAL, &timer, nullptr), 0);
  // What comes between two calls is for nobody.
  const auto stoppable = [&](const auto &call) {
    g_signalled = session.session();
    const acorn_status status = call();
    g_signalled = nullptr;
    EXPECT_TRUE(status == kOk || status == kCancelled) << status;
    return status == kCancelled;
  };
  for (int stopped = 0; stopped < kTimes && !HasFailure();) {
    const size_t at = acorn_session_position(session.session());
    if (at == tokens.size()) {
      acorn_session_reset(session.session());
      continue;
    }
    stopped += stoppable([&] { return acorn_session_prefill(session.session(), tokens.data() + at, tokens.size() - at); });
  }
  for (int stopped = 0; stopped < kTimes && !HasFailure();) {
    ASSERT_EQ(acorn_session_load(session.session(), prefilled.data(), prefilled.size()), kOk);
    const bool was_stopped = stoppable([&] { return acorn_session_decode(session.session(), nullptr, 1); });
    stopped += was_stopped;
    ASSERT_EQ(Snapshot(session.session()), was_stopped ? prefilled : decoded);
  }
  timer = {};
  ASSERT_EQ(setitimer(ITIMER_REAL, &timer, nullptr), 0);
  acorn_session_reset(session.session());
  ASSERT_EQ(acorn_session_prefill(session.session(), tokens.data(), tokens.size()), kOk);
  EXPECT_EQ(Snapshot(session.session()), prefilled);
}
#endif

TEST(Stop, ADeadlineNeedsAClock) {
  ModelSession session(BuildModel(VariedSpecs().front()));
  EXPECT_EQ(acorn_session_set_deadline(session.session(), 5), static_cast<acorn_status>(ACORN_ERR_PORT));
  EXPECT_EQ(acorn_session_set_deadline(session.session(), ACORN_NO_DEADLINE), kOk);
  EXPECT_EQ(acorn_session_set_deadline(nullptr, 5), static_cast<acorn_status>(ACORN_ERR_ARGUMENT));
  const int32_t token = 1;
  EXPECT_EQ(acorn_session_prefill(session.session(), &token, 1), kOk);
}

TEST(Stop, ADeadlineStandsUntilTheNextOne) {
  ThreadPort threads(0, 1);
  const LookedAtPort port(*threads.get());
  acorn_options options = {};
  options.flags = ACORN_OPEN_TRACE;
  ModelSession session(BuildModel(VariedSpecs().front()), options, port.get());
  const int32_t tokens[] = {1, 2, 3};
  ASSERT_EQ(acorn_session_prefill(session.session(), tokens, 3), kOk);
  ASSERT_EQ(acorn_session_set_deadline(session.session(), 0), kOk);
  const std::vector<uint8_t> before = Snapshot(session.session());
  acorn_generation generation = {};
  generation.struct_size = sizeof generation;
  generation.sampling.struct_size = sizeof generation.sampling;
  generation.max_tokens = 2;
  size_t count = 0;
  const auto nothing = [](void *, size_t, const int32_t *, size_t) { return 0; };
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(acorn_session_prefill(session.session(), tokens, 3), kDeadline);
    EXPECT_EQ(acorn_session_score(session.session(), tokens, 3, nothing, nullptr), kDeadline);
    EXPECT_EQ(acorn_session_decode(session.session(), nullptr, 1), kDeadline);
    EXPECT_EQ(acorn_session_generate(session.session(), nullptr, &count, &generation), kDeadline);
    EXPECT_EQ(count, 0u);
  }
  EXPECT_EQ(Snapshot(session.session()), before);
  // A request that comes too is met by the same call.
  acorn_session_cancel(session.session());
  EXPECT_EQ(acorn_session_decode(session.session(), nullptr, 1), kCancelled);
  EXPECT_EQ(acorn_session_decode(session.session(), nullptr, 1), kDeadline);
  acorn_session_reset(session.session());
  EXPECT_EQ(acorn_session_prefill(session.session(), tokens, 3), kDeadline);
  ASSERT_EQ(acorn_session_load(session.session(), before.data(), before.size()), kOk);
  EXPECT_EQ(acorn_session_decode(session.session(), nullptr, 1), kDeadline);
  // Later than the clock can count is never; and the next session has none.
  ASSERT_EQ(acorn_session_set_deadline(session.session(), ACORN_NO_DEADLINE - 1), kOk);
  EXPECT_EQ(acorn_session_generate(session.session(), nullptr, &count, &generation), kOk);
  ASSERT_EQ(acorn_session_set_deadline(session.session(), 0), kOk);
  acorn_session_close(session.session());
  acorn_session *next = nullptr;
  ASSERT_EQ(acorn_session_open(&next, session.model()), kOk);
  EXPECT_EQ(acorn_session_prefill(next, tokens, 3), kOk);
}

}  // namespace
}  // namespace acorn::test
