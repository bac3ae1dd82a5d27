// Reference runs that break a rule of FORMAT.md: refused when the file is opened, so that a self-test has nothing to fear.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/recorded_model.h"

namespace acorn::test {
namespace {

struct Case {
  const char *name;
  uint64_t index;
  std::function<void(schema::ReferenceRunT *)> harm;
};

TEST(EvilReferenceRun, EveryRuleIsChecked) {
  ModelSpec spec;
  const AlignedBytes file = Recorded(BuildModel(spec));
  const schema::ModelT healthy = *GraphOf(file);
  const auto vocab = static_cast<int32_t>(spec.vocab_size);
  const uint64_t steps = healthy.body.size() + healthy.head.size();
  using Run = schema::ReferenceRunT;
  const std::vector<Case> cases = {
      {"no prompt", 0, [](Run *run) { run->prompt.clear(); }},
      {"nothing generated", 0, [](Run *run) { run->generated.clear(); }},
      {"longer than the context", 0, [&](Run *run) { run->prompt.resize(spec.max_context - run->generated.size() + 1); }},
      {"longer than any run", 0, [](Run *run) { run->generated.resize(70000); }},
      {"prompt id past the vocabulary", 2, [=](Run *run) { run->prompt[2] = vocab; }},
      {"negative prompt id", 8, [](Run *run) { run->prompt[8] = -1; }},
      {"generated id past the vocabulary", 9, [](Run *run) { run->generated[0] = INT32_MAX; }},
      {"negative generated id", 14, [](Run *run) { run->generated[5] = INT32_MIN; }},
      {"more drawn than generated", 0, [](Run *run) { run->sampled = 7; }},
      {"drawn without temperature", 0, [](Run *run) { run->temperature_q16 = 0; }},
      {"too hot", 0, [](Run *run) { run->temperature_q16 = (100u << 16) + 1; }},
      {"a digest too few", steps - 1, [](Run *run) { run->prefill.pop_back(); }},
      {"a digest too many", steps + 1, [](Run *run) { run->decode.push_back(1); }},
      {"no digests", 0, [](Run *run) { run->decode.clear(); }},
  };
  for (const Case &harm : cases) {
    schema::ModelT model = healthy;
    harm.harm(model.reference_run.get());
    ModelSession session(WithGraph(file, model));
    EXPECT_EQ(session.status(), static_cast<acorn_status>(ACORN_ERR_INVALID)) << harm.name;
    EXPECT_STREQ(session.fault().section, "reference") << harm.name;
    EXPECT_EQ(session.fault().index, harm.index) << harm.name;
  }
  EXPECT_EQ(ModelSession(WithGraph(file, healthy)).status(), static_cast<acorn_status>(ACORN_OK));
}

// The digests of a phase may lie anywhere in the graph; at an address that is no multiple of 8 they are refused.
TEST(EvilReferenceRun, DigestsLieStraight) {
  const AlignedBytes file = Recorded(BuildModel(ModelSpec()));
  const uint64_t begin = GraphOf(file)->segments.front().offset();
  for (const size_t askew : {0, 4}) {
    std::vector<uint8_t> bytes(file.data(), file.data() + file.size());
    const schema::ReferenceRun *run = schema::GetModel(bytes.data() + kHeaderBytes)->reference_run();
    const auto *table = reinterpret_cast<const flatbuffers::Table *>(run);
    uint8_t *field = const_cast<uint8_t *>(reinterpret_cast<const uint8_t *>(table)) +
                     table->GetOptionalFieldOffset(schema::ReferenceRun::VT_PREFILL);
    // A copy behind the graph: the length, then the digests at 0 or 4 modulo 8.
    const size_t graph_end = kHeaderBytes + LoadLittle64(bytes.data() + kHeaderGraphBytes);
    const size_t copy = (graph_end + 7) / 8 * 8 + 4 + askew;
    const size_t copy_bytes = 4 + 8 * run->prefill()->size();
    ASSERT_LE(copy + copy_bytes, begin);
    std::memcpy(bytes.data() + copy, reinterpret_cast<const uint8_t *>(run->prefill()), copy_bytes);
    const auto distance = static_cast<uint32_t>(bytes.data() + copy - field);
    std::memcpy(field, &distance, sizeof distance);
    WriteHeader(bytes.data(), bytes.size(), copy + copy_bytes - kHeaderBytes);
    ModelSession session{AlignedBytes(bytes)};
    EXPECT_EQ(session.status(), static_cast<acorn_status>(askew == 0 ? ACORN_OK : ACORN_ERR_INVALID)) << askew;
    if (askew != 0) {
      EXPECT_STREQ(session.fault().section, "reference");
    }
  }
}

// A run that fills the context to its last token is legal.
TEST(EvilReferenceRun, AWholeContextIsLegal) {
  ModelSpec spec;
  acorn_options options = {};
  options.flags = ACORN_OPEN_TRACE;
  ModelSession session(Recorded(BuildModel(spec), spec.max_context - 2, 2), options);
  ASSERT_EQ(session.status(), static_cast<acorn_status>(ACORN_OK));
  acorn_selftest_report report = {};
  ASSERT_EQ(acorn_session_selftest(session.session(), &report), static_cast<acorn_status>(ACORN_OK));
  EXPECT_EQ(report.passed, 1u);
}

}  // namespace
}  // namespace acorn::test
