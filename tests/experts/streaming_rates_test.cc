// Experts from storage at several rates: slots as wide as each rate needs, and the same logits as all resident whenever the rate
// changes, whoever else uses the cache, and whatever storage does meanwhile.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/experts/simulated_storage.h"
#include "tests/support/model_session.h"

namespace acorn::test {
namespace {

constexpr acorn_status kOk = ACORN_OK;

/// Three slices, each of one size for all experts; at rate 15 all of them. Large ones are read apart, the largest in stripes.
ModelSpec Spec(bool large = false) {
  for (ModelSpec spec : ElasticSpecs()) {
    if (spec.name != "elastic_experts") continue;
    if (large) {
      spec.layers = 2, spec.experts = 4, spec.expert_weights.resize(1);
      spec.expert_slices = {2048, 1024, 6144}, spec.expert_ffn = 9216;
    }
    return spec;
  }
  ADD_FAILURE() << "no such spec";
  return {};
}

constexpr uint32_t kRates[] = {0, 15, 25, 40};

acorn_memory_plan PlanAt(const AlignedBytes &file, acorn_options options, uint32_t rate, const acorn_port *port) {
  options.rate = rate;
  const ModelSession session(file, options, port);
  EXPECT_EQ(session.status(), kOk);
  return session.plan();
}

acorn_expert_stats StatsOf(ModelSession *session) {
  acorn_expert_stats stats;
  EXPECT_EQ(acorn_model_expert_stats(session->model(), &stats), kOk);
  return stats;
}

/// Up and down through the rates; a lower one begins a conversation anew.
std::vector<int32_t> Talk(ModelSession *session, const std::vector<int32_t> &tokens) {
  constexpr struct {
    uint32_t rate;
    bool anew;
  } kTurns[] = {{0, false}, {15, false}, {25, false}, {40, false}, {0, true}, {40, false}, {25, true}, {40, false}, {15, true}};
  std::vector<int32_t> all;
  size_t at = 0;
  for (const auto &turn : kTurns) {
    if (turn.anew) acorn_session_reset(session->session());
    EXPECT_EQ(acorn_session_set_rate(session->session(), turn.rate), kOk);
    const auto begin = tokens.begin() + static_cast<int64_t>(at);
    const std::vector<int32_t> more = session->Score({begin, begin + 5});
    EXPECT_EQ(session->status(), kOk);
    all.insert(all.end(), more.begin(), more.end());
    at += 5;
  }
  return all;
}

TEST(StreamingRates, SlotsAreAsWideAsTheRateNeeds) {
  const AlignedBytes file = BuildModel(Spec());
  Storage storage(file);
  const uint64_t whole = PlanAt(file, {}, 0, nullptr).expert_record_bytes;
  const acorn_options options = Streaming(5, whole);
  const acorn_memory_plan first = PlanAt(file, options, 0, storage.port());
  EXPECT_EQ(first.expert_slots, 5u);
  uint64_t before = whole;
  for (const uint32_t rate : kRates) {
    const acorn_memory_plan plan = PlanAt(file, options, rate, storage.port());
    EXPECT_EQ(plan.block_bytes, first.block_bytes) << rate;
    EXPECT_EQ(plan.expert_slot_bytes, first.expert_slot_bytes) << rate;
    EXPECT_EQ(plan.expert_slots, std::min<uint64_t>(plan.experts, 5 * whole / plan.expert_record_bytes)) << rate;
    EXPECT_LE(plan.expert_record_bytes, before);
    if (rate >= 25) {
      EXPECT_LT(plan.expert_record_bytes, before);
    }
    EXPECT_EQ(plan.useful_expert_slots, first.useful_expert_slots);
    before = plan.expert_record_bytes;
  }
  // A cache that only narrow experts would fit is none: rate 0 has no slot.
  acorn_options narrow = {};
  narrow.expert_cache_bytes = whole - 1;
  narrow.rate = 40;
  const ModelSession refused(file, narrow, storage.port());
  EXPECT_EQ(refused.status(), static_cast<acorn_status>(ACORN_ERR_MEMORY));
  EXPECT_EQ(refused.fault().offset, whole);
}

class StreamingAtRates : public testing::TestWithParam<bool> {
 protected:
  const ModelSpec spec_ = Spec(GetParam());
  const AlignedBytes file_ = BuildModel(spec_);
  const std::vector<int32_t> tokens_ = SomeTokens(spec_.vocab_size, 45);
  const uint64_t whole_ = PlanAt(file_, {}, 0, nullptr).expert_record_bytes;
};

TEST_P(StreamingAtRates, EqualAllResident) {
  ModelSession resident(file_);
  const std::vector<int32_t> expected = Talk(&resident, tokens_);
  const uint32_t all = resident.plan().experts;
  const AlignedBytes image = ResidentPart(file_);
#if defined(ACORN_EMULATED)  // takes a minute for all of them
  const std::vector<uint32_t> slot_counts = {spec_.top_k, all / 2 + 1}, thread_counts = {3};
#else
  const std::vector<uint32_t> slot_counts = {1, spec_.top_k, all / 2 + 1, all}, thread_counts = {1, 3};
#endif
  for (const uint32_t slots : slot_counts) {
    for (const uint32_t threads : thread_counts) {
      for (const uint32_t prefetch : {ACORN_PREFETCH_OFF, ACORN_PREFETCH_GATE, ACORN_PREFETCH_PATH}) {
        acorn_simulated_options device = {};
        device.seed = slots;
        device.jitter_ns = 200000;
        Storage storage(file_, device, threads);
        acorn_options options = Streaming(slots, whole_);
        options.expert_prefetch = prefetch;
        options.chunk_tokens = prefetch == ACORN_PREFETCH_OFF ? 3 : 1;
        ModelSession session(image, options, storage.port());
        ASSERT_EQ(Talk(&session, tokens_), expected) << slots << " slots, threads " << threads << ", prefetch " << prefetch;
        EXPECT_EQ(StatsOf(&session).bytes_read, acorn_simulated_get_counts(storage.device()).bytes);
      }
    }
  }
}

// A miss reads the slices that the rate uses and no others, and experts that all fit stay.
TEST_P(StreamingAtRates, AMissReadsWhatTheRateUses) {
  for (const uint32_t rate : kRates) {
    acorn_options options = Streaming(spec_.layers * spec_.experts, whole_);
    options.rate = rate;
    Storage storage(file_);
    ModelSession session(file_, options, storage.port());
    session.Score(tokens_);
    for (uint32_t layer = 0; layer < spec_.layers; ++layer) {
      for (uint32_t expert = 0; expert < spec_.experts; ++expert) {
        acorn_expert_info info;
        ASSERT_EQ(acorn_model_get_expert(session.model(), &info, layer, expert), kOk);
        EXPECT_EQ(info.bytes, session.plan().expert_record_bytes);
      }
    }
    const acorn_expert_stats stats = StatsOf(&session);
    EXPECT_LE(stats.misses, spec_.layers * spec_.experts) << rate;
    EXPECT_EQ(stats.bytes_read, stats.misses * session.plan().expert_record_bytes) << rate;
  }
}

// The same slices: what is there stays. Others: nothing does.
TEST_P(StreamingAtRates, OnlyOtherSlicesEmptyTheCache) {
  Storage storage(file_);
  ModelSession session(file_, Streaming(spec_.layers * spec_.experts, whole_), storage.port());
  session.Score(tokens_);
  ASSERT_EQ(acorn_session_set_rate(session.session(), 15), kOk);
  acorn_session_reset(session.session());
  session.Score(tokens_);
  const uint64_t before = StatsOf(&session).misses;
  EXPECT_LE(before, spec_.layers * spec_.experts);
  ASSERT_EQ(acorn_session_set_rate(session.session(), 25), kOk);
  EXPECT_EQ(StatsOf(&session).misses, before);  // a switch reads nothing
  acorn_session_reset(session.session());
  session.Score(tokens_);
  EXPECT_GT(StatsOf(&session).misses, spec_.layers * spec_.experts);
}

TEST_P(StreamingAtRates, SessionsOfDifferentRatesTakeTurns) {
  acorn_options options = Streaming(3, whole_);
  options.max_sessions = 2;
  options.expert_prefetch = ACORN_PREFETCH_PATH;
  Storage storage(file_);
  ModelSession first(file_, options, storage.port());
  acorn_session *second = nullptr;
  ASSERT_EQ(acorn_session_open(&second, first.model()), kOk);
  ASSERT_EQ(acorn_session_set_rate(second, 40), kOk);
  const auto collect = [](void *ctx, size_t, const int32_t *row, size_t count) {
    auto *all = static_cast<std::vector<int32_t> *>(ctx);
    all->insert(all->end(), row, row + count);
    return 0;
  };
  std::vector<int32_t> whole, narrow;
  for (size_t i = 0; i < 12; ++i) {
    const std::vector<int32_t> logits = first.Score({tokens_[i]});
    whole.insert(whole.end(), logits.begin(), logits.end());
    ASSERT_EQ(acorn_session_score(second, &tokens_[i], 1, collect, &narrow), kOk);
  }
  const std::vector<int32_t> tokens(tokens_.begin(), tokens_.begin() + 12);
  ModelSession resident(file_), resident_narrow(file_, [] {
    acorn_options at = {};
    at.rate = 40;
    return at;
  }());
  EXPECT_EQ(whole, resident.Score(tokens));
  EXPECT_EQ(narrow, resident_narrow.Score(tokens));
}

// Reads that fail, come short or are damaged, at every rate and around every switch: the same tokens can be fed again.
TEST_P(StreamingAtRates, FaultsByChance) {
  ModelSession resident(file_);
  acorn_simulated_options device = {};
  for (uint32_t kind = ACORN_SIMULATED_ERROR; kind <= ACORN_SIMULATED_SHORT; ++kind) device.chance_q16[kind] = 1 << 13;
  device.seed = 3;
  device.jitter_ns = 100000;
  Storage storage(file_, device);
  acorn_options options = Streaming(3, whole_);
  options.expert_prefetch = ACORN_PREFETCH_GATE;
  options.chunk_tokens = 1;
  ModelSession session(file_, options, storage.port());
  size_t failures = 0;
  for (size_t i = 0; i < 24; ++i) {
    const uint32_t rate = kRates[i * 7 % 4];
    for (ModelSession *each : {&resident, &session}) {
      acorn_session_reset(each->session());
      ASSERT_EQ(acorn_session_set_rate(each->session(), rate), kOk);
    }
    const std::vector<int32_t> expected = resident.Score({tokens_[i]});
    acorn_status status;
    while ((status = acorn_session_prefill(session.session(), &tokens_[i], 1)) != kOk) {
      ASSERT_EQ(status, static_cast<acorn_status>(ACORN_ERR_STORAGE));
      ++failures;
    }
    const int32_t *logits = nullptr;
    ASSERT_EQ(acorn_session_logits(session.session(), &logits), kOk);
    EXPECT_EQ(std::vector<int32_t>(logits, logits + spec_.vocab_size), expected) << i;
  }
  EXPECT_GT(failures, 0u);
}

// A read that does not come is not waited for longer than for any other, and what it brings later hurts nobody.
TEST_P(StreamingAtRates, ASwitchWaitsForWhatIsUnderWay) {
  const uint64_t experts_at = LoadLittle64(file_.data() + kHeaderExperts);
  acorn_simulated_options device = {};
  device.stall_ns = 3000000000;
  Storage storage(file_, device);
  acorn_options options = Streaming(4, whole_);
  options.read_timeout_ms = 500;
  ModelSession session(file_, options, storage.port());
  const acorn_simulated_fault fault = {ACORN_SIMULATED_HANG, 1, experts_at, file_.size() - experts_at};
  ASSERT_EQ(acorn_simulated_add_fault(storage.device(), &fault), 0);
  EXPECT_EQ(acorn_session_prefill(session.session(), tokens_.data(), 1), static_cast<acorn_status>(ACORN_ERR_STALLED));
  ASSERT_EQ(acorn_session_set_rate(session.session(), 40), kOk);
  const uint64_t before = storage.port()->ticks(storage.port()->ctx);
  EXPECT_EQ(acorn_session_prefill(session.session(), tokens_.data(), 1), static_cast<acorn_status>(ACORN_ERR_STALLED));
  EXPECT_LE(storage.port()->ticks(storage.port()->ctx) - before, 600000000u);
  acorn_session_cancel(session.session());
  EXPECT_EQ(acorn_session_prefill(session.session(), tokens_.data(), 1), static_cast<acorn_status>(ACORN_ERR_CANCELLED));
  acorn_simulated_advance(storage.device(), 3000000000);
  options = {};
  options.rate = 40;
  ModelSession resident(file_, options);
  EXPECT_EQ(session.Score(tokens_), resident.Score(tokens_));
}

INSTANTIATE_TEST_SUITE_P(Sizes, StreamingAtRates, testing::Bool(),
                         [](const testing::TestParamInfo<bool> &large) { return std::string(large.param ? "Large" : "Small"); });

}  // namespace
}  // namespace acorn::test
