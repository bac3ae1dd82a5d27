// Experts from storage: the same logits as all resident, whatever the cache, the policy, the threads, the chunk and the device,
// and what goes wrong in storage is named, loses nothing and can be tried again.
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/experts/simulated_storage.h"
#include "tests/support/model_session.h"

namespace acorn::test {
namespace {

constexpr uint64_t kRecordBytes = 16384;  // of a small expert: one block of the file

std::vector<ModelSpec> SparseSpecs() {
  std::vector<ModelSpec> sparse;
  for (const ModelSpec &spec : VariedSpecs()) {
    if (spec.experts != 0) sparse.push_back(spec);
  }
  return sparse;
}

struct Way {
  uint32_t policy, chunk, threads;
};
std::vector<Way> Ways() {
#if defined(ACORN_EMULATED)  // each run takes seconds there: one of each kind
  return {{ACORN_EXPERTS_LFRU, 1, 1}, {ACORN_EXPERTS_LRU, 64, 2}};
#else
  std::vector<Way> ways;
  for (const uint32_t policy : {ACORN_EXPERTS_LFRU, ACORN_EXPERTS_LRU, ACORN_EXPERTS_EDGEMOE}) {
    for (const uint32_t chunk : {1u, 7u, 64u}) {
      for (const uint32_t threads : {1u, 3u}) ways.push_back({policy, chunk, threads});
    }
  }
  return ways;
#endif
}

constexpr uint32_t kPrefetches = 3;
constexpr size_t kDevices = 6;

class StreamingLogits : public testing::TestWithParam<ModelSpec> {};

TEST_P(StreamingLogits, EqualAllResident) {
  const AlignedBytes file = BuildModel(GetParam());
  const std::vector<int32_t> tokens = SomeTokens(GetParam().vocab_size, GetParam().max_context);
  ModelSession resident(file);
  const std::vector<int32_t> expected = resident.Score(tokens);
  ASSERT_EQ(resident.status(), ACORN_OK);
  const uint64_t slot_bytes = resident.plan().expert_record_bytes;
  const uint32_t all = resident.plan().experts, useful = resident.plan().useful_expert_slots;
  ASSERT_EQ(all, GetParam().layers * GetParam().experts);
  ASSERT_EQ(useful, GetParam().layers * GetParam().top_k);
  const AlignedBytes image = ResidentPart(file);
  const acorn_device_preset *presets = nullptr;
  ASSERT_EQ(acorn_device_presets(&presets), kDevices);
  std::set<std::pair<size_t, uint32_t>> decoded;  // one token at a time, which is when guesses are made: by device and prefetch
  const uint32_t sizes[] = {1, GetParam().top_k, useful, all / 2 + 1, all};
  for (uint32_t size = 0; size < std::size(sizes); ++size) {
    const uint32_t slots = sizes[size];
    for (const Way &way : Ways()) {
      // Each device with each prefetch, and both with each policy and either number of threads.
      const uint32_t prefetch = (way.policy + 2 * size) % kPrefetches;
      const size_t preset = (way.policy + (way.threads == 1 ? 0 : 3) + size) % kDevices;
      if (way.chunk == 1) decoded.insert({preset, prefetch});
      acorn_simulated_options device = {};
      device.timing = presets[preset].timing;
      device.seed = slots + way.chunk;
      device.jitter_ns = 200000;  // results out of order
      Storage storage(file, device, way.threads);
      acorn_options options = Streaming(slots, slot_bytes, way.policy);
      options.chunk_tokens = way.chunk;
      options.expert_prefetch = prefetch;
      ModelSession session(image, options, storage.port());
      ASSERT_EQ(session.status(), ACORN_OK) << acorn_status_text(session.status()) << " " << session.fault().section;
      EXPECT_EQ(session.plan().expert_slots, slots);
      ASSERT_EQ(session.Score(tokens), expected)
          << slots << " slots, policy " << way.policy << ", chunk " << way.chunk << ", threads " << way.threads << ", prefetch "
          << prefetch << ", " << presets[preset].name;
      acorn_expert_stats stats;
      ASSERT_EQ(acorn_model_expert_stats(session.model(), &stats), ACORN_OK);
      EXPECT_GE(stats.misses + stats.prefetches_used, GetParam().top_k);
      EXPECT_LE(stats.prefetches_used, stats.prefetches);
      EXPECT_EQ(stats.bytes_read, acorn_simulated_get_counts(storage.device()).bytes);
      EXPECT_GE(stats.bytes_read, stats.misses * kRecordBytes);
      if (slots == all) {
        EXPECT_LE(stats.misses, all);
      }
    }
  }
#if !defined(ACORN_EMULATED)
  EXPECT_EQ(decoded.size(), kDevices * kPrefetches);
#endif
}

INSTANTIATE_TEST_SUITE_P(Specs, StreamingLogits, testing::ValuesIn(SparseSpecs()),
                         [](const testing::TestParamInfo<ModelSpec> &spec) { return spec.param.name; });

// Experts whose records are read at once, and in stripes.
ModelSpec FaultSpec(bool striped) {
  ModelSpec spec = SparseSpecs()[0];
  if (striped) spec.expert_ffn = 5600, spec.layers = 1;
  return spec;
}

class StreamingFaults : public testing::TestWithParam<bool> {
 protected:
  StreamingFaults() : spec_(FaultSpec(GetParam())), file_(BuildModel(spec_)), tokens_(SomeTokens(spec_.vocab_size, 40)) {
    ModelSession resident(file_);
    expected_ = resident.Score(tokens_);
    slot_bytes_ = resident.plan().expert_record_bytes;
    experts_at_ = LoadLittle64(file_.data() + kHeaderExperts);
  }

  acorn_expert_fault FaultOf(ModelSession *session) {
    acorn_expert_fault fault = {};
    EXPECT_EQ(acorn_model_expert_fault(session->model(), &fault), ACORN_OK);
    return fault;
  }

  /// Appends the logits of tokens from `first` on.
  acorn_status Feed(ModelSession *session, size_t first, size_t count, std::vector<int32_t> *logits) {
    const auto collect = [](void *ctx, size_t, const int32_t *row, size_t size) {
      auto *all = static_cast<std::vector<int32_t> *>(ctx);
      all->insert(all->end(), row, row + size);
      return 0;
    };
    return acorn_session_score(session->session(), tokens_.data() + first, count, collect, logits);
  }

  /// Scores until a fault, mends the storage, and goes on: all logits must be the resident model's.
  void ExpectGoesOn(uint32_t kind, acorn_status status, acorn_options options) {
    Storage storage(file_);
    options.chunk_tokens = 8;
    ModelSession session(file_, options, storage.port());
    ASSERT_EQ(session.status(), ACORN_OK);
    const acorn_simulated_fault fault = {kind, UINT32_MAX, experts_at_, file_.size() - experts_at_};
    std::vector<int32_t> logits;
    ASSERT_EQ(Feed(&session, 0, 16, &logits), ACORN_OK);
    acorn_session_reset(session.session());
    logits.clear();
    ASSERT_EQ(acorn_simulated_add_fault(storage.device(), &fault), 0);
    EXPECT_EQ(Feed(&session, 0, tokens_.size(), &logits), status);
    const acorn_expert_fault found = FaultOf(&session);
    EXPECT_EQ(found.status, status);
    EXPECT_LT(found.layer, spec_.layers);
    EXPECT_LT(found.expert, spec_.experts);
    EXPECT_GE(found.offset, experts_at_);
    EXPECT_EQ(found.offset % 16384, 0u);
    // What was computed before it stands; the same call without the fault goes on from there.
    const size_t position = acorn_session_position(session.session());
    EXPECT_EQ(logits.size(), position * spec_.vocab_size);
    acorn_simulated_clear_faults(storage.device());
    ASSERT_EQ(Feed(&session, position, tokens_.size() - position, &logits), ACORN_OK);
    EXPECT_EQ(logits, expected_);
  }

  ModelSpec spec_;
  AlignedBytes file_;
  std::vector<int32_t> tokens_, expected_;
  uint64_t slot_bytes_ = 0, experts_at_ = 0;
};

// Layers before the fault have taken the chunk into their states, and those behind it have not.
TEST(StreamingStates, AFaultInTheMiddleOfAChunk) {
  const std::vector<ModelSpec> specs = SparseSpecs();
  const auto hybrid = [](const ModelSpec &spec) { return std::string(spec.name) == "state_space_hybrid_experts"; };
  const ModelSpec spec = *std::find_if(specs.begin(), specs.end(), hybrid);
  const AlignedBytes file = BuildModel(spec);
  const std::vector<int32_t> tokens = SomeTokens(spec.vocab_size, 40);
  ModelSession resident(file);
  const std::vector<int32_t> expected = resident.Score(tokens);
  const uint64_t experts_at = LoadLittle64(file.data() + kHeaderExperts);
  Storage storage(file);
  acorn_options options = Streaming(3, resident.plan().expert_record_bytes);
  options.chunk_tokens = 8;
  ModelSession session(file, options, storage.port());
  std::vector<int32_t> logits = session.Score({tokens.begin(), tokens.begin() + 16});
  ASSERT_EQ(session.status(), ACORN_OK);
  const acorn_simulated_fault fault = {ACORN_SIMULATED_ERROR, UINT32_MAX, experts_at, file.size() - experts_at};
  ASSERT_EQ(acorn_simulated_add_fault(storage.device(), &fault), 0);
  // Twice: the second time while the states catch up.
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(acorn_session_prefill(session.session(), tokens.data() + 16, 8), static_cast<acorn_status>(ACORN_ERR_STORAGE));
    EXPECT_EQ(acorn_session_position(session.session()), 16u);
    // The logits of the last token are still there, and go into a snapshot and come out of it.
    const int32_t *pending = nullptr;
    ASSERT_EQ(acorn_session_logits(session.session(), &pending), static_cast<acorn_status>(ACORN_OK));
    EXPECT_EQ(std::vector<int32_t>(pending, pending + spec.vocab_size), std::vector<int32_t>(logits.end() - spec.vocab_size, logits.end()));
    std::vector<uint8_t> snapshot(acorn_session_snapshot_bytes(session.session()));
    ASSERT_EQ(acorn_session_save(session.session(), snapshot.data(), snapshot.size()), static_cast<acorn_status>(ACORN_OK));
    ASSERT_EQ(acorn_session_load(resident.session(), snapshot.data(), snapshot.size()), static_cast<acorn_status>(ACORN_OK));
    ASSERT_EQ(acorn_session_logits(resident.session(), &pending), static_cast<acorn_status>(ACORN_OK));
    EXPECT_EQ(std::vector<int32_t>(pending, pending + spec.vocab_size), std::vector<int32_t>(logits.end() - spec.vocab_size, logits.end()));
  }
  acorn_simulated_clear_faults(storage.device());
  const std::vector<int32_t> rest = session.Score({tokens.begin() + 16, tokens.end()});
  ASSERT_EQ(session.status(), ACORN_OK);
  logits.insert(logits.end(), rest.begin(), rest.end());
  EXPECT_EQ(logits, expected);
}

TEST_P(StreamingFaults, AReadThatFails) { ExpectGoesOn(ACORN_SIMULATED_ERROR, ACORN_ERR_STORAGE, Streaming(3, slot_bytes_)); }
TEST_P(StreamingFaults, AShortRead) { ExpectGoesOn(ACORN_SIMULATED_SHORT, ACORN_ERR_STORAGE, Streaming(3, slot_bytes_)); }
TEST_P(StreamingFaults, ADamagedRecord) { ExpectGoesOn(ACORN_SIMULATED_DAMAGE, ACORN_ERR_DAMAGED, Streaming(3, slot_bytes_)); }

TEST_P(StreamingFaults, AReadThatStallsPastTheDeadline) {
  acorn_simulated_options device = {};
  device.stall_ns = 3000000000;
  Storage storage(file_, device);
  acorn_options options = Streaming(3, slot_bytes_);
  options.read_timeout_ms = 500;
  ModelSession session(file_, options, storage.port());
  const acorn_simulated_fault fault = {ACORN_SIMULATED_HANG, 1, experts_at_, file_.size() - experts_at_};
  ASSERT_EQ(acorn_simulated_add_fault(storage.device(), &fault), 0);
  const uint64_t before = storage.port()->ticks(storage.port()->ctx);
  session.Score(tokens_);
  EXPECT_EQ(session.status(), ACORN_ERR_STALLED);
  EXPECT_LE(storage.port()->ticks(storage.port()->ctx) - before, 600000000u);
  EXPECT_EQ(FaultOf(&session).status, ACORN_ERR_STALLED);
  // Once the storage answers again, so does the session; the slot of the late read was lost to nobody.
  acorn_simulated_advance(storage.device(), 3000000000);
  const size_t position = acorn_session_position(session.session());
  ASSERT_EQ(position, 0u);
  std::vector<int32_t> logits;
  ASSERT_EQ(Feed(&session, 0, tokens_.size(), &logits), ACORN_OK);
  EXPECT_EQ(logits, expected_);
}

TEST_P(StreamingFaults, CancelDuringAStall) {
  acorn_simulated_options device = {};
  device.stall_ns = UINT64_MAX;
  device.tick_ns = 1000;
  Storage storage(file_, device);
  ModelSession session(file_, Streaming(3, slot_bytes_), storage.port());
  const acorn_simulated_fault fault = {ACORN_SIMULATED_STALL, UINT32_MAX, experts_at_, file_.size() - experts_at_};
  ASSERT_EQ(acorn_simulated_add_fault(storage.device(), &fault), 0);
  // The request comes as a wait begins, as if from another thread: nobody looks for longer before it ends.
  struct Wrapped {
    acorn_port inner;
    acorn_session *session;
    int waits;
    uint64_t cancelled;  // ticks
  } wrapped = {*storage.port(), nullptr, 0, 0};
  acorn_port port = *storage.port();
  port.ctx = &wrapped;
  port.cpu_features = 0;
  port.threads = 1;
  port.parallel_for = nullptr;
  port.log = nullptr;
  port.ticks = [](void *ctx) { auto *w = static_cast<Wrapped *>(ctx); return w->inner.ticks(w->inner.ctx); };
  port.read = nullptr;
  port.read_submit = [](void *ctx, const acorn_read_request *requests, size_t count, size_t *accepted) {
    auto *w = static_cast<Wrapped *>(ctx);
    return w->inner.read_submit(w->inner.ctx, requests, count, accepted);
  };
  port.read_wait = [](void *ctx, acorn_read_result *results, size_t capacity, uint64_t timeout, size_t *count) {
    auto *w = static_cast<Wrapped *>(ctx);
    if (timeout != 0 && ++w->waits == 3) {
      w->cancelled = w->inner.ticks(w->inner.ctx);
      acorn_session_cancel(w->session);
    }
    return w->inner.read_wait(w->inner.ctx, results, capacity, timeout, count);
  };
  port.read_cancel = [](void *ctx, uint64_t id) {
    auto *w = static_cast<Wrapped *>(ctx);
    return w->inner.read_cancel(w->inner.ctx, id);
  };
  ModelSession waiting(file_, Streaming(3, slot_bytes_), &port);
  ASSERT_EQ(waiting.status(), ACORN_OK);
  wrapped.session = waiting.session();
  waiting.Score(tokens_);
  EXPECT_EQ(waiting.status(), ACORN_ERR_CANCELLED);
  const uint64_t took = storage.port()->ticks(storage.port()->ctx) - wrapped.cancelled;
  EXPECT_GE(took, 4000000u - 2 * device.tick_ns);
  EXPECT_LE(took, 4000000u + 10 * device.tick_ns);  // 4 ms, and looks at the clock
  // The request is met: the next call waits for itself.
  EXPECT_EQ(acorn_session_prefill(waiting.session(), tokens_.data(), 1), static_cast<acorn_status>(ACORN_ERR_STALLED));
}

TEST_P(StreamingFaults, APortThatOnlyReads) {
  struct File {
    const AlignedBytes *bytes;
  } file = {&file_};
  acorn_port port = {};
  port.struct_size = sizeof port;
  port.ctx = &file;
  port.read = [](void *ctx, void *to, uint64_t offset, size_t bytes) {
    const AlignedBytes &from = *static_cast<File *>(ctx)->bytes;
    if (offset + bytes > from.size()) return 1;
    std::memcpy(to, from.data() + offset, bytes);
    return 0;
  };
  ModelSession session(ResidentPart(file_), Streaming(4, slot_bytes_), &port);
  ASSERT_EQ(session.status(), ACORN_OK);
  EXPECT_EQ(session.Score(tokens_), expected_);
}

TEST_P(StreamingFaults, WhatCannotBeOpened) {
  // No experts in the image and no cache for them; a cache smaller than one expert; a port that cannot read.
  ModelSession truncated(ResidentPart(file_));
  EXPECT_EQ(truncated.status(), ACORN_ERR_TRUNCATED);
  EXPECT_STREQ(truncated.fault().section, "experts");
  Storage storage(file_);
  acorn_options options = {};
  options.expert_cache_bytes = slot_bytes_ - 1;
  ModelSession small(file_, options, storage.port());
  EXPECT_EQ(small.status(), ACORN_ERR_MEMORY);
  EXPECT_STREQ(small.fault().section, "expert cache");
  EXPECT_EQ(small.fault().offset, slot_bytes_);
  ModelSession no_read(file_, Streaming(2, slot_bytes_));
  EXPECT_EQ(no_read.status(), ACORN_ERR_PORT);
  acorn_options policy = Streaming(2, slot_bytes_, 7);
  EXPECT_EQ(ModelSession(file_, policy, storage.port()).status(), ACORN_ERR_ARGUMENT);
}

TEST_P(StreamingFaults, RecordsAreReadAsLargeAsTheyShould) {
  Storage storage(file_);
  ModelSession session(file_, Streaming(6, slot_bytes_), storage.port());
  EXPECT_EQ(session.Score(tokens_), expected_);
  acorn_expert_stats stats;
  ASSERT_EQ(acorn_model_expert_stats(session.model(), &stats), ACORN_OK);
  EXPECT_EQ(acorn_simulated_get_counts(storage.device()).submitted, stats.misses * (GetParam() ? 4 : 1));
  EXPECT_EQ(stats.bytes_read, stats.misses * slot_bytes_);
}

// No more is under way at once than keeps a device busy: the first expert lands first, and can be computed.
TEST_P(StreamingFaults, ReadsUnderWay) {
  ModelSpec spec = spec_;
  spec.experts = 16;
  const AlignedBytes file = BuildModel(spec);
  ModelSession resident(file);
  struct Wrapped {
    acorn_port inner;
    uint64_t bytes, bytes_of_one, most_bytes;
  };
  acorn_simulated_options device = {};
  device.timing = {100000, 0, 1000000000, 64};
  Storage storage(file, device);
  Wrapped wrapped = {*storage.port(), 0, 0, 0};
  acorn_port port = *storage.port();
  port.ctx = &wrapped;
  port.threads = 1;
  port.parallel_for = nullptr;
  port.log = nullptr;
  port.read = nullptr;
  port.ticks = [](void *ctx) { auto *w = static_cast<Wrapped *>(ctx); return w->inner.ticks(w->inner.ctx); };
  port.read_submit = [](void *ctx, const acorn_read_request *requests, size_t count, size_t *accepted) {
    auto *w = static_cast<Wrapped *>(ctx);
    const int status = w->inner.read_submit(w->inner.ctx, requests, count, accepted);
    for (size_t i = 0; i < *accepted; ++i) {
      w->bytes_of_one = requests[i].bytes > w->bytes_of_one ? requests[i].bytes : w->bytes_of_one;
      w->bytes += requests[i].bytes;
    }
    w->most_bytes = w->bytes > w->most_bytes ? w->bytes : w->most_bytes;
    return status;
  };
  port.read_wait = [](void *ctx, acorn_read_result *results, size_t capacity, uint64_t timeout, size_t *count) {
    auto *w = static_cast<Wrapped *>(ctx);
    const int status = w->inner.read_wait(w->inner.ctx, results, capacity, timeout, count);
    for (size_t i = 0; i < *count; ++i) w->bytes -= results[i].bytes;
    return status;
  };
  port.read_cancel = nullptr;
  const uint64_t slot_bytes = resident.plan().expert_record_bytes;
  ModelSession session(file, Streaming(spec.experts * spec.layers, slot_bytes), &port);
  const std::vector<int32_t> tokens = SomeTokens(spec.vocab_size, 40);
  EXPECT_EQ(session.Score(tokens), resident.Score(tokens));
  EXPECT_EQ(wrapped.bytes, 0u);
  constexpr uint64_t kMost = 5 << 19;
  EXPECT_LE(wrapped.most_bytes, kMost);
  if (GetParam()) {
    ASSERT_GT(spec.experts * slot_bytes, 2 * kMost);
    EXPECT_GT(wrapped.most_bytes, kMost - wrapped.bytes_of_one);
  }
}

// A demand gets the storage from a guess that was wrong: what had not begun does not begin.
TEST_P(StreamingFaults, AWrongGuessIsGivenUp) {
  ModelSpec spec = spec_;
  spec.experts = 8;
  spec.layers = 2;
  const AlignedBytes file = BuildModel(spec);
  const std::vector<int32_t> tokens = SomeTokens(spec.vocab_size, 24);
  ModelSession resident(file);
  const std::vector<int32_t> expected = resident.Score(tokens);
  acorn_simulated_options device = {};
  device.timing = {100000, 0, 1000000000, 1};  // one read at a time; the others have not begun
  device.depth = 32;
  for (const uint32_t prefetch : {ACORN_PREFETCH_GATE, ACORN_PREFETCH_PATH}) {
    Storage storage(file, device);
    acorn_options options = Streaming(6, resident.plan().expert_record_bytes);
    options.expert_prefetch = prefetch;
    options.chunk_tokens = 1;
    ModelSession session(file, options, storage.port());
    EXPECT_EQ(session.Score(tokens), expected);
    const acorn_simulated_counts counts = acorn_simulated_get_counts(storage.device());
    acorn_expert_stats stats;
    ASSERT_EQ(acorn_model_expert_stats(session.model(), &stats), ACORN_OK);
    EXPECT_GT(stats.prefetches, stats.prefetches_used);
    EXPECT_EQ(counts.cancelled != 0, GetParam()) << prefetch;  // of a record in one read that has begun nothing can be given up
    EXPECT_EQ(stats.bytes_read, counts.bytes);
    EXPECT_EQ(counts.failed, 0u);
  }
}

// One stripe fails and the others come: nothing of the record is used, and it is read again as a whole.
TEST_P(StreamingFaults, OnePartOfARecord) {
  for (const uint32_t kind : {ACORN_SIMULATED_ERROR, ACORN_SIMULATED_SHORT, ACORN_SIMULATED_DAMAGE}) {
    for (uint64_t block = 0; block < slot_bytes_; block += 3 * 16384) {
      // Which byte of a read is damaged nobody knows: it must not be one behind the record.
      if (kind == ACORN_SIMULATED_DAMAGE && !(GetParam() && block < slot_bytes_ / 2)) break;
      Storage storage(file_);
      ModelSession session(file_, Streaming(spec_.experts * spec_.layers, slot_bytes_), storage.port());
      const acorn_simulated_fault fault = {kind, 1, experts_at_ + block, 64};
      ASSERT_EQ(acorn_simulated_add_fault(storage.device(), &fault), 0);
      session.Score(tokens_);
      EXPECT_EQ(session.status(), kind == ACORN_SIMULATED_DAMAGE ? ACORN_ERR_DAMAGED : ACORN_ERR_STORAGE) << kind << " at " << block;
      const acorn_expert_fault found = FaultOf(&session);
      EXPECT_EQ(found.layer, 0u);
      EXPECT_EQ(found.expert, 0u);
      EXPECT_EQ(found.offset, experts_at_);
      acorn_session_reset(session.session());
      std::vector<int32_t> logits;
      EXPECT_EQ(Feed(&session, 0, tokens_.size(), &logits), ACORN_OK);
      EXPECT_EQ(logits, expected_);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Records, StreamingFaults, testing::Bool(),
                         [](const testing::TestParamInfo<bool> &striped) { return striped.param ? "striped" : "whole"; });

}  // namespace
}  // namespace acorn::test
