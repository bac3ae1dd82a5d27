// The second promise: the runtime's logits are the reference's, whatever the instruction set, threads and chunks.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/reference/reference_model.h"
#include "tests/support/model_builder.h"
#include "tests/support/model_session.h"
#include "tests/support/thread_port.h"

namespace acorn::test {
namespace {

std::vector<int32_t> SomeTokens(uint32_t vocab_size, size_t count) {
  Random random(11);
  std::vector<int32_t> tokens(count);
  for (int32_t &token : tokens) token = static_cast<int32_t>(random.Between(0, vocab_size - 1));
  return tokens;
}

class SessionLogits : public testing::TestWithParam<ModelSpec> {};

TEST_P(SessionLogits, EqualTheReference) {
  const AlignedBytes file = BuildModel(GetParam());
  const std::vector<int32_t> tokens = SomeTokens(GetParam().vocab_size, GetParam().max_context);
  const std::vector<int32_t> expected =
      reference::ReferenceModel(std::vector<uint8_t>(file.data(), file.data() + file.size())).Logits(tokens);
  for (const uint32_t features : FeatureLevels()) {
    for (const uint32_t threads : {1u, 2u, 3u}) {
      for (const uint32_t chunk : {1u, 7u, 64u, 512u}) {
        if (threads == 3 && chunk != 7) continue;
        const ThreadPort port(features, threads);
        acorn_options options = {};
        options.chunk_tokens = chunk;
        options.logit_rows = chunk == 7 ? 3 : 1;
        ModelSession session(file, options, port.get());
        ASSERT_EQ(session.status(), ACORN_OK) << acorn_status_text(session.status()) << " " << session.fault().section;
        const std::vector<int32_t> logits = session.Score(tokens);
        ASSERT_EQ(session.status(), ACORN_OK);
        ASSERT_EQ(logits.size(), expected.size());
        for (size_t i = 0; i < logits.size(); ++i) {
          ASSERT_EQ(logits[i], expected[i]) << "features " << features << " threads " << threads << " chunk " << chunk
                                            << " position " << i / GetParam().vocab_size << " id " << i % GetParam().vocab_size;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Specs, SessionLogits, testing::ValuesIn(VariedSpecs()),
                         [](const testing::TestParamInfo<ModelSpec> &spec) { return spec.param.name; });

}  // namespace
}  // namespace acorn::test
