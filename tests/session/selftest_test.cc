// The self-test: what a run of the portable kernels computed is what every kernel, thread count, chunk and context computes, and
// what the independent reference says; a step that computes wrongly is the one that is reported.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "tests/reference/reference_model.h"
#include "tests/support/recorded_model.h"
#include "tests/support/thread_port.h"

namespace acorn::test {
namespace {

constexpr acorn_status kOk = ACORN_OK;

acorn_selftest_report SelfTest(const AlignedBytes &file, acorn_options options = {}, const acorn_port *port = nullptr) {
  acorn_selftest_report report = {};
  options.flags |= ACORN_OPEN_TRACE;
  ModelSession session(file, options, port);
  EXPECT_EQ(session.status(), kOk) << session.fault().section << " " << session.fault().index;
  if (session.status() != kOk) return report;
  EXPECT_EQ(acorn_session_selftest(session.session(), &report), kOk);
  EXPECT_EQ(acorn_session_position(session.session()), 0u);
  return report;
}

TEST(SelfTest, ACancelBeforeItEndsIt) {
  acorn_options options = {};
  options.flags = ACORN_OPEN_TRACE;
  ModelSession session(Recorded(BuildModel(ModelSpec())), options);
  ASSERT_EQ(session.status(), kOk);
  acorn_selftest_report report = {};
  acorn_session_cancel(session.session());
  EXPECT_EQ(acorn_session_selftest(session.session(), &report), static_cast<acorn_status>(ACORN_ERR_CANCELLED));
  EXPECT_EQ(acorn_session_selftest(session.session(), &report), kOk);
  EXPECT_EQ(report.passed, 1u);
}

struct Running {
  uint32_t threads, chunk;
};
#if defined(ACORN_EMULATED)  // each run takes seconds there: one of each kind
constexpr Running kRuns[] = {{1, 1}, {2, 7}, {3, 64}};
#else
constexpr Running kRuns[] = {{1, 1}, {1, 7}, {1, 64}, {2, 1}, {2, 7}, {2, 64}, {3, 1}, {3, 7}, {3, 64}};
#endif

class SelfTests : public testing::TestWithParam<ModelSpec> {};

TEST_P(SelfTests, PassEverywhere) {
  const AlignedBytes file = Recorded(BuildModel(GetParam()));
  const acorn_selftest_report first = SelfTest(file);
  for (const uint32_t features : FeatureLevels()) {
    for (const Running run : kRuns) {
      ThreadPort port(features, run.threads);
      acorn_options options = {};
      options.chunk_tokens = run.chunk;
      options.context_tokens = run.chunk == 7 ? 15 : 0;
      options.logit_rows = run.threads;
      const acorn_selftest_report report = SelfTest(file, options, port.get());
      EXPECT_EQ(report.passed, 1u) << "features " << features << " threads " << run.threads << " chunk " << run.chunk << ": step "
                                   << report.step << " " << report.op << " " << report.kernel;
      EXPECT_EQ(report.tokens, 15u);
      EXPECT_EQ(report.digest, first.digest);
      EXPECT_EQ(report.ids_digest, first.ids_digest);
    }
  }
}

// The rows [begin, end) of what a step wrote.
uint64_t DigestRows(const reference::StepTrace &step, size_t begin, size_t end) {
  return reference::Digest(step.data.data() + begin * step.width, (end - begin) * step.width);
}

// The digests of a file's run, and of its self-test, by the independent reference.
void ExpectTheReferences(const AlignedBytes &file) {
  const schema::ReferenceRunT run = *GraphOf(file)->reference_run;
  std::vector<int32_t> tokens = run.prompt;
  tokens.insert(tokens.end(), run.generated.begin(), run.generated.end());
  const size_t prompt = run.prompt.size(), all = tokens.size();
  const reference::ReferenceModel model(std::vector<uint8_t>(file.data(), file.data() + file.size()));
  size_t step = 0;
  const std::vector<int32_t> logits = model.Logits(tokens, [&](const reference::StepTrace &trace) {
    const bool head = std::string(trace.list) == "head";  // runs for the rows whose logits are wanted
    const std::string name = std::string(trace.list) + " " + std::to_string(trace.index) + " " + trace.op;
    EXPECT_EQ(run.prefill[step], DigestRows(trace, head ? prompt - 1 : 0, prompt)) << name;
    EXPECT_EQ(run.decode[step], DigestRows(trace, prompt, all)) << name;
    ++step;
  });
  EXPECT_EQ(step, run.prefill.size());
  // Those that were not drawn are the likeliest.
  const size_t vocab = model.vocab_size();
  for (size_t i = 0; i < run.generated.size() - run.sampled; ++i) {
    const auto begin = logits.begin() + static_cast<int64_t>((prompt - 1 + i) * vocab);
    EXPECT_EQ(run.generated[i], std::max_element(begin, begin + static_cast<int64_t>(vocab)) - begin);
  }
  const acorn_selftest_report report = SelfTest(file);
  EXPECT_EQ(report.digest, reference::Digest(logits.data() + (prompt - 1) * vocab, (all - prompt + 1) * vocab));
  EXPECT_EQ(report.ids_digest, reference::Digest(run.generated.data(), run.generated.size()));
}

TEST_P(SelfTests, AreTheReferences) { ExpectTheReferences(Recorded(BuildModel(GetParam()))); }

INSTANTIATE_TEST_SUITE_P(Specs, SelfTests, testing::ValuesIn(VariedSpecs()),
                         [](const testing::TestParamInfo<ModelSpec> &spec) { return spec.param.name; });

TEST(HomeModel, ItsReferenceRunIsTheReferences) {
  std::ifstream in(ACORN_SOURCE_DIR "/examples/models/home.acorn", std::ios::binary);
  ExpectTheReferences(AlignedBytes(std::vector<uint8_t>(std::istreambuf_iterator<char>(in), {})));
}

ModelSpec Spec() {
  ModelSpec spec;
  spec.layers = 3;
  spec.qk_norm = true;
  spec.prefix_rows = 1;
  return spec;
}

// The first multiplier of a step, where it has its own.
const schema::Ref *MultiplierOf(const schema::Step &step) {
  switch (step.op_type()) {
    case schema::Op::Embedding: return step.op_as_Embedding()->multipliers();
    case schema::Op::Linear: return step.op_as_Linear()->multipliers();
    case schema::Op::Rotate: return step.op_as_Rotate()->multipliers();
    case schema::Op::Append: return step.op_as_Append()->v_multipliers();
    default: return nullptr;
  }
}

TEST(SelfTest, AWrongMultiplierIsFoundWhereItIs) {
  const AlignedBytes file = Recorded(BuildModel(Spec()));
  const schema::Model &model = *schema::GetModel(file.data() + kHeaderBytes);
  uint32_t index = 0, tried = 0;
  int32_t layer = -1;
  const auto look = [&](const schema::Step &step, bool head) {
    const schema::Ref *ref = MultiplierOf(step);
    if (step.op_type() == schema::Op::RmsNorm && index == 1) layer = 0;
    if (ref != nullptr) {
      AlignedBytes bad = file;
      uint8_t *multiplier = bad.data() + model.segments()->Get(ref->segment())->offset() + ref->offset();
      // Channel 0, or all of them where one row may not meet it: an eighth less moves every sum that is not small.
      const size_t channels = step.op_type() == schema::Op::Embedding ? ref->bytes() / 4 : 1;
      for (size_t i = 0; i < channels; ++i) {
        const uint32_t value = LoadLittle32(multiplier + 4 * i), less = value - value / 8;
        for (size_t byte = 0; byte < 4; ++byte) multiplier[4 * i + byte] = static_cast<uint8_t>(less >> (8 * byte));
      }
      Reseal(&bad);
      const acorn_selftest_report report = SelfTest(bad);
      EXPECT_EQ(report.passed, 0u) << index;
      EXPECT_EQ(report.phase, static_cast<uint32_t>(ACORN_PHASE_PREFILL)) << index;
      EXPECT_EQ(report.step, index);
      EXPECT_EQ(report.layer, head ? -1 : layer) << index;
      EXPECT_STREQ(report.op, schema::EnumNameOp(step.op_type())) << index;
      EXPECT_NE(report.expected, report.actual) << index;
      ++tried;
    }
    ++index;
  };
  // Behind the second addition of a layer the next one starts.
  uint32_t additions = 0;
  for (const schema::Step *step : *model.body()) {
    look(*step, false);
    if (step->op_type() == schema::Op::Add && ++additions % 2 == 0) ++layer;
  }
  for (const schema::Step *step : *model.head()) look(*step, true);
  EXPECT_EQ(tried, 1 + 3 * 7 + 1u);
}

// The digests of a file changed one by one: that step is named, in that phase, with both digests.
TEST(SelfTest, EveryStepIsCompared) {
  const AlignedBytes file = Recorded(BuildModel(Spec()));
  const std::unique_ptr<schema::ModelT> graph = GraphOf(file);
  for (const uint32_t phase : {ACORN_PHASE_PREFILL, ACORN_PHASE_DECODE}) {
    for (size_t step = 0; step < graph->reference_run->prefill.size(); ++step) {
      schema::ModelT changed = *graph;
      uint64_t &digest = (phase == ACORN_PHASE_PREFILL ? changed.reference_run->prefill : changed.reference_run->decode)[step];
      const uint64_t right = digest;
      digest ^= uint64_t{1} << (step % 64);
      const uint64_t wrong = digest;
      const acorn_selftest_report report = SelfTest(WithGraph(file, changed));
      EXPECT_EQ(report.passed, 0u);
      EXPECT_EQ(report.phase, phase);
      EXPECT_EQ(report.step, step);
      EXPECT_EQ(report.expected, wrong);
      EXPECT_EQ(report.actual, right);
    }
  }
}

TEST(SelfTest, AnotherChoiceIsTheSamplers) {
  const AlignedBytes file = Recorded(BuildModel(Spec()), 9, 40);
  schema::ModelT changed = *GraphOf(file);
  changed.reference_run->seed += 1;  // other draws, the same ids fed
  const acorn_selftest_report report = SelfTest(WithGraph(file, changed));
  EXPECT_EQ(report.phase, static_cast<uint32_t>(ACORN_PHASE_SAMPLE));
  EXPECT_GE(report.step, changed.reference_run->generated.size() - changed.reference_run->sampled);
  EXPECT_EQ(report.expected, static_cast<uint64_t>(changed.reference_run->generated[report.step]));
  EXPECT_NE(report.actual, report.expected);
  EXPECT_STREQ(report.op, "Sampler");
}

TEST(SelfTest, NeedsATraceARunAndRoom) {
  const AlignedBytes bare = BuildModel(Spec()), file = Recorded(bare);
  acorn_selftest_report report = {};
  ModelSession untraced(file);
  EXPECT_EQ(acorn_session_selftest(untraced.session(), &report), static_cast<acorn_status>(ACORN_ERR_STATE));
  EXPECT_EQ(untraced.plan().reference_tokens, 15u);
  acorn_trace_row row = {};
  EXPECT_EQ(acorn_model_trace(untraced.model(), &row, 0), static_cast<acorn_status>(ACORN_ERR_STATE));
  acorn_options options = {};
  options.flags = ACORN_OPEN_TRACE;
  ModelSession without(bare, options);
  EXPECT_EQ(acorn_session_selftest(without.session(), &report), static_cast<acorn_status>(ACORN_ERR_STATE));
  EXPECT_EQ(without.plan().reference_tokens, 0u);
  options.context_tokens = 14;
  ModelSession small(file, options);
  EXPECT_EQ(acorn_session_selftest(small.session(), &report), static_cast<acorn_status>(ACORN_ERR_CONTEXT_FULL));
  EXPECT_EQ(acorn_session_position(small.session()), 0u);
  EXPECT_EQ(acorn_session_selftest(small.session(), nullptr), static_cast<acorn_status>(ACORN_ERR_ARGUMENT));
}

TEST(SelfTest, ALogitHookDoesNotDisturbIt) {
  acorn_options options = {};
  options.flags = ACORN_OPEN_TRACE;
  ModelSession session(Recorded(BuildModel(Spec())), options);
  const auto spoil = [](void *, int32_t *logits, size_t vocab_size) { std::fill(logits, logits + vocab_size, 0); };
  acorn_session_set_logit_hook(session.session(), spoil, nullptr);
  acorn_selftest_report report = {};
  ASSERT_EQ(acorn_session_selftest(session.session(), &report), kOk);
  EXPECT_EQ(report.passed, 1u);
}

TEST(SelfTest, NoDialAndNoHookDisturbsIt) {
  ModelSpec spec;
  spec.name = "sparse";
  spec.experts = 4;
  spec.expert_weights = {{WeightFormat::kW4G32, Layout::kC4}};
  acorn_options options = {};
  options.flags = ACORN_OPEN_TRACE;
  options.drop_experts_q16 = 0x8000;  // of two chosen ones the lesser goes
  ModelSession session(Recorded(BuildModel(spec)), options);
  ASSERT_EQ(session.status(), kOk);
  int calls = 0;
  const auto count = [](void *ctx, uint32_t, const acorn_route *, size_t, size_t) { ++*static_cast<int *>(ctx); };
  acorn_session_set_routing_hook(session.session(), count, &calls);
  acorn_selftest_report report = {};
  ASSERT_EQ(acorn_session_selftest(session.session(), &report), kOk);
  EXPECT_EQ(report.passed, 1u);
  EXPECT_EQ(calls, 0);
  const int32_t token = 1;
  ASSERT_EQ(acorn_session_prefill(session.session(), &token, 1), kOk);
  EXPECT_GT(calls, 0);
}

// A trace of one's own: the same for any chunks, and its rows name layers and kernels.
TEST(Trace, IsOfTheTokensAlone) {
  const AlignedBytes file = BuildModel(Spec());
  const std::vector<int32_t> tokens = {5, 9, 1, 33, 2, 7, 7, 12, 40, 3};
  std::vector<std::vector<uint64_t>> traces;
  for (const uint32_t chunk : {1u, 3u, 64u}) {
    acorn_options options = {};
    options.chunk_tokens = chunk;
    options.flags = ACORN_OPEN_TRACE | ACORN_OPEN_PROFILE;
    ModelSession session(file, options);
    session.Score({60, 61});
    acorn_session_reset(session.session());
    acorn_model_trace_reset(session.model());
    session.Score(tokens);
    std::vector<uint64_t> digests;
    acorn_trace_row row = {};
    int32_t layer = -1;
    for (size_t i = 0; acorn_model_trace(session.model(), &row, i) == kOk; ++i) {
      digests.push_back(row.digest);
      EXPECT_TRUE(row.layer == layer || row.layer == layer + 1 || row.layer == -1);
      layer = row.layer;
      EXPECT_NE(std::string(row.kernel).find('/'), std::string::npos);
    }
    EXPECT_EQ(digests.size(), GraphOf(file)->body.size() + GraphOf(file)->head.size());
    traces.push_back(digests);
  }
  for (const auto &trace : traces) EXPECT_EQ(trace, traces.front());
}

TEST(Record, RefusesWhatIsNoRun) {
  acorn_options options = {};
  options.flags = ACORN_OPEN_TRACE;
  ModelSession session(BuildModel(Spec()), options);
  std::vector<int32_t> prompt = {1, 2, 3}, generated(4);
  std::vector<uint64_t> prefill(200), decode(200);
  acorn_reference_run good = {};
  good.struct_size = sizeof good;
  good.prompt_count = 3;
  good.generated_count = 4;
  good.temperature_q16 = 65536;
  good.steps = 200;
  good.prompt = prompt.data();
  good.generated = generated.data();
  good.prefill_digests = prefill.data();
  good.decode_digests = decode.data();
  const auto record = [&](const std::function<void(acorn_reference_run *)> &change) {
    acorn_reference_run run = good;
    change(&run);
    return acorn_session_record(session.session(), &run);
  };
  EXPECT_EQ(record([](acorn_reference_run *) {}), kOk);
  const acorn_status argument = ACORN_ERR_ARGUMENT;
  EXPECT_EQ(record([](acorn_reference_run *run) { run->struct_size = 8; }), argument);
  EXPECT_EQ(record([](acorn_reference_run *run) { run->prompt_count = 0; }), argument);
  EXPECT_EQ(record([](acorn_reference_run *run) { run->generated_count = 0; }), argument);
  EXPECT_EQ(record([](acorn_reference_run *run) { run->generated_count = UINT32_MAX; }), argument);
  EXPECT_EQ(record([](acorn_reference_run *run) { run->sampled_count = 5; }), argument);
  EXPECT_EQ(record([](acorn_reference_run *run) { run->temperature_q16 = 0; }), argument);
  EXPECT_EQ(record([](acorn_reference_run *run) { run->temperature_q16 = (100u << 16) + 1; }), argument);
  EXPECT_EQ(record([](acorn_reference_run *run) { run->steps = 10; }), static_cast<acorn_status>(ACORN_ERR_BUFFER));
  prompt[1] = -1;
  EXPECT_EQ(record([](acorn_reference_run *) {}), static_cast<acorn_status>(ACORN_ERR_TOKEN));
}

}  // namespace
}  // namespace acorn::test
