// The port fails at its first callback, at its second, and so on until a whole life of a model passes without reaching the fault.
// Each time the call that met it says so, the same call again goes on as if nothing had been, and no slot is lost.
#include <gtest/gtest.h>

#include <cinttypes>
#include <cstdio>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "tests/faults/faulty_port.h"
#include "tests/support/recorded_model.h"
#include "tests/support/temp_folder.h"

namespace acorn::test {
namespace {

constexpr acorn_status kOk = ACORN_OK;

constexpr uint32_t kVocab = 400;

/// The tokenizer of a model that lies in the repository.
std::vector<uint8_t> GoldenTokenizer() {
  const std::string bytes = ReadFile(std::string(ACORN_SOURCE_DIR) + "/schema/golden/v0.acorn");
  const AlignedBytes file(std::vector<uint8_t>(bytes.begin(), bytes.end()));
  const std::unique_ptr<schema::ModelT> model = GraphOf(file);
  for (const schema::Segment &segment : model->segments) {
    if (segment.kind() != schema::SegmentKind::Tokenizer) continue;
    return {file.data() + segment.offset(), file.data() + segment.offset() + segment.bytes()};
  }
  ADD_FAILURE() << "no tokenizer";
  return {};
}

ModelSpec Talking(ModelSpec spec) {
  spec.tokenizer = GoldenTokenizer();
  spec.vocab_size = kVocab;
  spec.max_context = 96;
  return spec;
}

ModelSpec SpecNamed(const std::string &name) {
  for (const std::vector<ModelSpec> &specs : {VariedSpecs(), ElasticSpecs()}) {
    for (const ModelSpec &spec : specs) {
      if (spec.name == name) return Talking(spec);
    }
  }
  ADD_FAILURE() << name;
  return {};
}

#if defined(ACORN_EMULATED)  // where a life takes seconds: a fault now and then, and one model of each kind
constexpr uint64_t kStride = 61;
constexpr bool kEmulated = true;
#else
#if !defined(ACORN_FAULT_STRIDE)
#define ACORN_FAULT_STRIDE 1
#endif
constexpr uint64_t kStride = ACORN_FAULT_STRIDE;
constexpr bool kEmulated = false;
#endif

/// What this process has swept, said in the end.
struct Swept : testing::Environment {
  void TearDown() override {
    std::printf("swept: %" PRIu64 " callbacks of undisturbed lives, %" PRIu64 " faults in them, %" PRIu64 " lives\n", callbacks, faults,
                lives);
  }
  void Count(const FaultyPort &port, Fault fault) {
    ++lives;
    if (fault == Fault::kNone) {
      callbacks += port.callbacks();
    } else {
      faults += port.reached() ? 1 : 0;
    }
  }
  uint64_t faults = 0, callbacks = 0, lives = 0;
};
Swept *const g_swept = static_cast<Swept *>(testing::AddGlobalTestEnvironment(new Swept));

struct Case {
  Fault fault;
  Lasting lasting;
  acorn_status status;  // of a call that meets it; ACORN_OK: none notices
};

/// A life from open to close. Every call that fails is made again once the port is mended.
class Life {
 public:
  Life(const AlignedBytes &file, acorn_options options, FaultyPort *port, acorn_status expected)
      : port_(port), expected_(expected) {
    const acorn_image image{file.data(), file.size()};
    options.struct_size = sizeof options;
    options.chunk_tokens = 4;
    options.context_tokens = 64;
    options.max_sessions = 2;
    EXPECT_EQ(acorn_plan(&plan_, nullptr, &image, &options, port->get()), kOk);
    block_ = AlignedBytes(std::vector<uint8_t>(plan_.block_bytes, 0xa5));
    EXPECT_EQ(acorn_model_open(&model_, nullptr, &image, &options, port->get(), block_.data(), block_.size()), kOk);
    rates_.resize(plan_.rates);
    size_t count = 0;
    EXPECT_EQ(acorn_model_rates(model_, rates_.data(), rates_.size(), &count), kOk);
  }

  uint64_t Run() {
    acorn_session *a = nullptr, *b = nullptr;
    EXPECT_EQ(acorn_session_open(&a, model_), kOk);
    EXPECT_EQ(acorn_session_open(&b, model_), kOk);
    const std::vector<int32_t> tokens = SomeTokens(kVocab, 16);
    Feed(a, {tokens.begin(), tokens.begin() + 10});
    AppendText(a, "turn on the lamp");
    Generate(a, 3);
    Feed(b, {tokens.begin() + 4, tokens.begin() + 11});
    std::vector<uint8_t> snapshot(acorn_session_snapshot_bytes(a));
    EXPECT_EQ(acorn_session_save(a, snapshot.data(), snapshot.size()), kOk);
    Hash(snapshot.data(), snapshot.size());
    EXPECT_EQ(acorn_session_rewind(a, 7), kOk);
    EXPECT_EQ(acorn_session_set_rate(a, rates_.back()), kOk);
    Feed(a, {tokens.begin(), tokens.begin() + 5});
    EXPECT_EQ(acorn_session_load(b, snapshot.data(), snapshot.size()), kOk);
    Generate(b, 3);
    acorn_session_close(a);
    EXPECT_EQ(acorn_session_open(&a, model_), kOk);
    Feed(a, {tokens.begin(), tokens.begin() + 3});
    acorn_session_close(b);
    port_->Retire();
    ExpectNoSlotLost(a, tokens);
    return digest_;
  }

 private:
  void Hash(const void *data, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) digest_ = (digest_ ^ static_cast<const uint8_t *>(data)[i]) * 0x100000001b3u;
  }
  void HashLogits(acorn_session *session) {
    const int32_t *logits = nullptr;
    ASSERT_EQ(acorn_session_logits(session, &logits), kOk);
    Hash(logits, kVocab * sizeof(int32_t));
  }

  // Whether to try again: once, after the port is mended.
  bool Again(acorn_status status) {
    acorn_expert_fault fault = {};
    EXPECT_EQ(acorn_model_expert_fault(model_, &fault), kOk);
    if (status == kOk) {
      EXPECT_EQ(fault.status, kOk);
      return false;
    }
    EXPECT_EQ(status, expected_);
    EXPECT_EQ(fault.status, status == ACORN_ERR_CANCELLED ? kOk : status);
    EXPECT_LT(++failures_, 4);
    port_->Mend();
    return status == expected_ && failures_ < 4;
  }

  void Feed(acorn_session *session, const std::vector<int32_t> &tokens) {
    port_->set_session(session);
    const size_t end = acorn_session_position(session) + tokens.size();
    for (acorn_status status = ~kOk; status != kOk;) {
      size_t left = end - acorn_session_position(session);
      if (left == 0) {  // they were taken in, and the call ended before their logits
        EXPECT_EQ(acorn_session_rewind(session, end - 1), kOk);
        left = 1;
      }
      status = acorn_session_prefill(session, tokens.data() + tokens.size() - left, left);
      if (!Again(status)) break;
    }
    EXPECT_EQ(acorn_session_position(session), end);
    HashLogits(session);
  }

  void AppendText(acorn_session *session, const std::string &text) {
    port_->set_session(session);
    const size_t begin = acorn_session_position(session);
    while (Again(acorn_session_append_text(session, text.data(), text.size(), ACORN_TEXT_CHAT))) {
      EXPECT_EQ(acorn_session_rewind(session, begin), kOk);
    }
    HashLogits(session);
  }

  void Generate(acorn_session *session, uint32_t count) {
    port_->set_session(session);
    acorn_generation generation = {};
    generation.struct_size = sizeof generation;
    generation.max_tokens = count;
    generation.sampling.struct_size = sizeof generation.sampling;
    generation.sampling.temperature_q16 = 65536;
    generation.sampling.seed = 5;
    for (acorn_status status = ~kOk; status != kOk;) {
      size_t accepted = 0;
      uint32_t reason = 0;
      status = acorn_session_generate(session, &reason, &accepted, &generation);
      generation.max_tokens -= static_cast<uint32_t>(accepted);
      if (!Again(status) || generation.max_tokens == 0) break;
    }
    Hash(acorn_session_tokens(session), acorn_session_position(session) * sizeof(int32_t));
    HashLogits(session);
  }

  // With a slot for each expert all are there after one pass; with fewer, what cannot get a slot would wait for ever.
  void ExpectNoSlotLost(acorn_session *session, const std::vector<int32_t> &tokens) {
    acorn_expert_stats before = {}, after = {};
    for (acorn_expert_stats *stats : {&before, &after}) {
      acorn_session_reset(session);
      acorn_status status = acorn_session_prefill(session, tokens.data(), tokens.size());
      EXPECT_EQ(status, kOk);
      EXPECT_EQ(acorn_model_expert_stats(model_, stats), kOk);
    }
    if (plan_.expert_slots == plan_.experts) {
      EXPECT_EQ(before.misses, after.misses);
    }
    HashLogits(session);
  }

  FaultyPort *port_;
  acorn_status expected_;
  int failures_ = 0;
  acorn_memory_plan plan_ = {};
  AlignedBytes block_;
  acorn_model *model_ = nullptr;
  std::vector<uint32_t> rates_;
  uint64_t digest_ = 0xcbf29ce484222325u;
};

void Sweep(const AlignedBytes &file, Reads reads, const acorn_options &options, const std::vector<Case> &cases) {
  FaultyPort undisturbed(file, reads, Fault::kNone, 1, Lasting::kOnce);
  const uint64_t digest = Life(file, options, &undisturbed, kOk).Run();
  ASSERT_FALSE(testing::Test::HasFailure());
  g_swept->Count(undisturbed, Fault::kNone);
  for (const Case &one : cases) {
    uint64_t number = 1;
    for (bool reached = true; reached; number += kStride) {
      FaultyPort port(file, reads, one.fault, number, one.lasting);
      ASSERT_EQ(Life(file, options, &port, one.status).Run(), digest)
          << "fault " << static_cast<int>(one.fault) << ", number " << number << ", lasting " << static_cast<int>(one.lasting);
      ASSERT_FALSE(testing::Test::HasFailure())
          << "fault " << static_cast<int>(one.fault) << ", number " << number << ", lasting " << static_cast<int>(one.lasting);
      g_swept->Count(port, one.fault);
      reached = port.reached();
    }
    const std::string name = std::to_string(static_cast<int>(one.fault)) + "_" + std::to_string(static_cast<int>(one.lasting));
    testing::Test::RecordProperty("fault_" + name, std::to_string(number - 1 - kStride));
  }
}

const std::vector<Case> &CasesOfReads() {
  static const std::vector<Case> cases = {
      {Fault::kReadError, Lasting::kOnce, ACORN_ERR_STORAGE},
      {Fault::kReadError, Lasting::kUntilMended, ACORN_ERR_STORAGE},
      {Fault::kReadShort, Lasting::kOnce, ACORN_ERR_STORAGE},
      {Fault::kReadShort, Lasting::kUntilMended, ACORN_ERR_STORAGE},
      {Fault::kReadDamaged, Lasting::kOnce, ACORN_ERR_DAMAGED},
      {Fault::kReadDamaged, Lasting::kUntilMended, ACORN_ERR_DAMAGED},
      {Fault::kReadLost, Lasting::kOnce, ACORN_ERR_STALLED},
      {Fault::kReadLost, Lasting::kUntilMended, ACORN_ERR_STALLED},
      {Fault::kSubmitFails, Lasting::kOnce, ACORN_ERR_STORAGE},
      {Fault::kSubmitFails, Lasting::kUntilMended, ACORN_ERR_STORAGE},
      {Fault::kSubmitFailsHalfway, Lasting::kOnce, ACORN_ERR_STORAGE},
      {Fault::kSubmitTakesNone, Lasting::kOnce, ACORN_ERR_STORAGE},
      {Fault::kSubmitTakesNone, Lasting::kUntilMended, ACORN_ERR_STORAGE},
      {Fault::kWaitFails, Lasting::kOnce, ACORN_ERR_STORAGE},
      {Fault::kWaitFails, Lasting::kUntilMended, ACORN_ERR_STORAGE},
      {Fault::kWaitFailsWithResults, Lasting::kOnce, ACORN_ERR_STORAGE},
      {Fault::kWaitReturnsEarly, Lasting::kOnce, ACORN_OK},
      {Fault::kCancelRefused, Lasting::kUntilMended, ACORN_OK},
      {Fault::kClockJumps, Lasting::kOnce, ACORN_ERR_STALLED},
      {Fault::kClockStands, Lasting::kUntilMended, ACORN_OK},
      {Fault::kCancelled, Lasting::kOnce, ACORN_ERR_CANCELLED},
  };
  return cases;
}

class PortFaults : public testing::TestWithParam<std::string> {};

// Nothing streams: all that can happen is that the clock does not go on, or that somebody does not want to wait.
TEST_P(PortFaults, AllResident) {
  Sweep(BuildModel(SpecNamed(GetParam())), Reads::kOneByOne, {},
        {{Fault::kClockJumps, Lasting::kOnce, ACORN_OK},
         {Fault::kClockStands, Lasting::kUntilMended, ACORN_OK},
         {Fault::kCancelled, Lasting::kOnce, ACORN_ERR_CANCELLED}});
}

INSTANTIATE_TEST_SUITE_P(Models, PortFaults,
                         testing::ValuesIn(kEmulated ? std::vector<std::string>{"elastic_state_space"}
                                                     : std::vector<std::string>{"elastic_dense", "elastic_state_space",
                                                                                "state_space_hybrid", "elastic_hybrid_experts"}),
                         [](const testing::TestParamInfo<std::string> &name) { return name.param; });

struct Cache {
  const char *name;
  uint32_t slots;  // 0: one for each expert
  uint32_t prefetch;
};
constexpr Cache kGate = {"three_slots_gate", 3, ACORN_PREFETCH_GATE};

class StreamingPortFaults : public testing::TestWithParam<std::tuple<std::string, Cache>> {
 protected:
  StreamingPortFaults() : spec_(SpecNamed(std::get<0>(GetParam()))), file_(BuildModel(spec_)) {
    const Cache &cache = std::get<1>(GetParam());
    const acorn_image image{file_.data(), file_.size()};
    acorn_memory_plan plan = {};
    EXPECT_EQ(acorn_plan(&plan, nullptr, &image, nullptr, nullptr), kOk);
    options_.expert_cache_bytes = (cache.slots == 0 ? plan.experts : cache.slots) * plan.expert_record_bytes;
    options_.expert_prefetch = cache.prefetch;
    options_.read_timeout_ms = 300;
  }

  ModelSpec spec_;
  AlignedBytes file_;
  acorn_options options_ = {};
};

TEST_P(StreamingPortFaults, ReadsBesideTheCaller) { Sweep(file_, Reads::kBeside, options_, CasesOfReads()); }

TEST_P(StreamingPortFaults, ReadsOneByOne) {
  Sweep(file_, Reads::kOneByOne, options_,
        {{Fault::kReadError, Lasting::kOnce, ACORN_ERR_STORAGE},
         {Fault::kReadError, Lasting::kUntilMended, ACORN_ERR_STORAGE},
         {Fault::kReadDamaged, Lasting::kOnce, ACORN_ERR_DAMAGED},
         {Fault::kReadDamaged, Lasting::kUntilMended, ACORN_ERR_DAMAGED},
         {Fault::kCancelled, Lasting::kOnce, ACORN_ERR_CANCELLED}});
}

INSTANTIATE_TEST_SUITE_P(Models, StreamingPortFaults,
                         testing::Combine(testing::ValuesIn(kEmulated ? std::vector<std::string>{"elastic_experts"}
                                                                      : std::vector<std::string>{"elastic_experts",
                                                                                                 "elastic_hybrid_experts"}),
                                          testing::ValuesIn(kEmulated ? std::vector<Cache>{kGate}
                                                                      : std::vector<Cache>{{"one_slot", 1, ACORN_PREFETCH_OFF},
                                                                                           kGate,
                                                                                           {"all_slots_path", 0, ACORN_PREFETCH_PATH}})),
                         [](const testing::TestParamInfo<std::tuple<std::string, Cache>> &one) {
                           return std::get<0>(one.param) + "_" + std::get<1>(one.param).name;
                         });

// Without a clock there is no deadline: that a read is lost is then the port's to say.
TEST(PortFaults, ALostReadWithoutAClock) {
  const AlignedBytes file = BuildModel(SpecNamed("elastic_experts"));
  acorn_memory_plan plan = {};
  const acorn_image image{file.data(), file.size()};
  ASSERT_EQ(acorn_plan(&plan, nullptr, &image, nullptr, nullptr), kOk);
  acorn_options options = {};
  options.expert_cache_bytes = 2 * plan.expert_record_bytes;
  uint64_t digest = 0;
  for (uint64_t number = 0;; number += number == 0 ? 1 : kStride) {
    FaultyPort port(file, Reads::kBeside, number == 0 ? Fault::kNone : Fault::kReadLost, number, Lasting::kOnce);
    port.get()->ticks = nullptr;
    port.get()->ticks_per_second = 0;
    const uint64_t found = Life(file, options, &port, ACORN_ERR_STORAGE).Run();
    if (number == 0) digest = found;
    g_swept->Count(port, number == 0 ? Fault::kNone : Fault::kReadLost);
    ASSERT_EQ(found, digest) << number;
    ASSERT_FALSE(HasFailure()) << number;
    if (number != 0 && !port.reached()) break;
  }
}

// The model file itself comes through the port's read: its header, then all of it.
TEST(PortFaults, AnImageThatIsRead) {
  const AlignedBytes file = BuildModel(SpecNamed("elastic_dense"));
  for (uint64_t number = 1;; ++number) {
    FaultyPort port(file, Reads::kOneByOne, Fault::kReadError, number, Lasting::kOnce);
    AlignedBytes memory(std::vector<uint8_t>(file.size()));
    acorn_image image = {};
    const acorn_status status = acorn_image_read(&image, nullptr, port.get(), memory.data(), memory.size());
    if (!port.reached()) {
      EXPECT_EQ(status, kOk);
      EXPECT_EQ(number, 3u);
      break;
    }
    EXPECT_EQ(status, static_cast<acorn_status>(ACORN_ERR_PORT));
    EXPECT_EQ(image.data, nullptr);
    ASSERT_EQ(acorn_image_read(&image, nullptr, port.get(), memory.data(), memory.size()), kOk);
    EXPECT_EQ(std::memcmp(image.data, file.data(), file.size()), 0);
  }
}

}  // namespace
}  // namespace acorn::test
