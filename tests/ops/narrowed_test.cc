// Operators over a part of what a file stores: the bits of a file that holds nothing else, for every instruction set of this machine,
// any chunk and any number of threads.
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/host_features.h"
#include "tests/support/model_builder.h"
#include "tests/support/model_session.h"
#include "tests/support/thread_port.h"

namespace acorn::test {
namespace {

struct Running {
  uint32_t threads, chunk;
};
constexpr Running kRuns[] = {{1, 1}, {1, 64}, {3, 7}};

class Narrowed : public testing::TestWithParam<ModelSpec> {};

TEST_P(Narrowed, EqualsAFileOfNothingElse) {
  ModelSpec spec = GetParam();
  spec.widened = false;
  const AlignedBytes narrow = BuildModel(spec);
  spec.widened = true;
  const AlignedBytes wide = BuildModel(spec);
  Random random(11);
  EXPECT_GT(wide.size(), narrow.size());
  std::vector<int32_t> tokens(spec.max_context / 2);
  for (int32_t &token : tokens) token = static_cast<int32_t>(random.Between(0, spec.vocab_size - 1));
  const std::vector<int32_t> expected = ModelSession(narrow).Score(tokens);
  ASSERT_EQ(expected.size(), tokens.size() * spec.vocab_size);
  for (const uint32_t features : FeatureLevels()) {
    for (const Running run : kRuns) {
      ThreadPort port(features, run.threads);
      acorn_options options = {};
      options.chunk_tokens = run.chunk;
      ModelSession session(wide, options, port.get());
      ASSERT_EQ(session.status(), ACORN_OK) << acorn_status_text(session.status()) << " " << session.fault().section;
      const std::vector<int32_t> logits = session.Score(tokens);
      ASSERT_EQ(logits.size(), expected.size());
      for (size_t i = 0; i < logits.size(); ++i) {
        ASSERT_EQ(logits[i], expected[i]) << "features " << features << " threads " << run.threads << " chunk " << run.chunk
                                          << " position " << i / spec.vocab_size << " id " << i % spec.vocab_size;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Specs, Narrowed, testing::ValuesIn(VariedSpecs()),
                         [](const testing::TestParamInfo<ModelSpec> &spec) { return spec.param.name; });

}  // namespace
}  // namespace acorn::test
