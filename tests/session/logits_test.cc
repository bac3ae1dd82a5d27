// The second promise: the runtime's logits are the reference's, whatever the instruction set, threads and chunks.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/reference/reference_model.h"
#include "tests/support/model_builder.h"
#include "tests/support/model_session.h"
#include "tests/support/recorded_model.h"
#include "tests/support/thread_port.h"

namespace acorn::test {
namespace {

std::vector<int32_t> SomeTokens(uint32_t vocab_size, size_t count) {
  Random random(11);
  std::vector<int32_t> tokens(count);
  for (int32_t &token : tokens) token = static_cast<int32_t>(random.Between(0, vocab_size - 1));
  return tokens;
}

struct Running {
  uint32_t threads, chunk;
};
#if defined(ACORN_EMULATED)  // each run takes seconds there: one of each kind
constexpr Running kRuns[] = {{1, 1}, {1, 64}, {2, 7}};
#else
constexpr Running kRuns[] = {{1, 1}, {1, 7}, {1, 64}, {1, 512}, {2, 1}, {2, 7}, {2, 64}, {2, 512}, {3, 7}};
#endif

class SessionLogits : public testing::TestWithParam<ModelSpec> {};

// A file at one of its rates, against the reference's logits of the file `alone`.
void ExpectReference(const ModelSpec &spec, const AlignedBytes &file, uint32_t rate, const AlignedBytes &alone) {
  const std::vector<int32_t> tokens = SomeTokens(spec.vocab_size, spec.max_context);
  const std::vector<int32_t> expected =
      reference::ReferenceModel(std::vector<uint8_t>(alone.data(), alone.data() + alone.size())).Logits(tokens);
  for (const uint32_t features : FeatureLevels()) {
    for (const Running run : kRuns) {
      ThreadPort port(features, run.threads);
      acorn_options options = {};
      options.chunk_tokens = run.chunk;
      options.logit_rows = run.chunk == 7 ? 3 : 1;
      options.rate = rate;
      ModelSession session(file, options, port.get());
      ASSERT_EQ(session.status(), ACORN_OK) << acorn_status_text(session.status()) << " " << session.fault().section;
      const std::vector<int32_t> logits = session.Score(tokens);
      ASSERT_EQ(session.status(), ACORN_OK);
      ASSERT_EQ(logits.size(), expected.size());
      for (size_t i = 0; i < logits.size(); ++i) {
        ASSERT_EQ(logits[i], expected[i]) << "features " << features << " threads " << run.threads << " chunk " << run.chunk
                                          << " position " << i / spec.vocab_size << " id " << i % spec.vocab_size;
      }
      // Who asks for the logits of the last token alone gets them from fewer rows of the last layer.
      acorn_session_reset(session.session());
      for (size_t begin = 0, end = tokens.size() / 2; begin < tokens.size(); begin = end, end = tokens.size()) {
        ASSERT_EQ(acorn_session_prefill(session.session(), tokens.data() + begin, end - begin), ACORN_OK);
        const int32_t *last = nullptr;
        ASSERT_EQ(acorn_session_logits(session.session(), &last), ACORN_OK);
        for (size_t i = 0; i < spec.vocab_size; ++i) {
          ASSERT_EQ(last[i], expected[(end - 1) * spec.vocab_size + i])
              << "features " << features << " threads " << run.threads << " chunk " << run.chunk << " tokens " << end;
        }
      }
    }
  }
}

TEST_P(SessionLogits, EqualTheReference) {
  const AlignedBytes file = BuildModel(GetParam());
  ExpectReference(GetParam(), file, 0, file);
}

class ElasticLogits : public testing::TestWithParam<ModelSpec> {};

TEST_P(ElasticLogits, EqualTheReferenceAtEveryRate) {
  const ModelSpec &spec = GetParam();
  const AlignedBytes file = BuildModel(spec);
  ExpectReference(spec, file, 0, file);
  for (size_t i = 0; i < spec.profiles.size(); ++i) ExpectReference(spec, file, spec.profiles[i].rate, OneRateOf(file, i));
}

INSTANTIATE_TEST_SUITE_P(Specs, ElasticLogits, testing::ValuesIn(ElasticSpecs()),
                         [](const testing::TestParamInfo<ModelSpec> &spec) { return spec.param.name; });

INSTANTIATE_TEST_SUITE_P(Specs, SessionLogits, testing::ValuesIn(VariedSpecs()),
                         [](const testing::TestParamInfo<ModelSpec> &spec) { return spec.param.name; });

}  // namespace
}  // namespace acorn::test
