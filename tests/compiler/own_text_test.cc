// Text that a quantised model writes for its own training.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/parallel.h"
#include "quantize/own_text.h"
#include "tests/compiler/expect_error.h"
#include "tests/compiler/train/small_model.h"
#include "tests/support/shared_data.h"
#include "tests/support/temp_folder.h"

namespace acorn::compiler {
namespace {

class OwnTexts : public testing::Test {
 protected:
  OwnTexts() : source_(OpenSourceModel(test::DataPath("small_llama"))), model_(QuantizeSmall(*source_, {})) {}

  std::vector<int32_t> Write(int64_t windows, uint64_t seed) {
    return OwnText(model_, source_->config(), SomeWindows(source_->config()), windows, seed, folder_.File("scratch"));
  }

  test::TempFolder folder_;
  std::unique_ptr<SourceModel> source_;
  QuantizedModel model_;
};

TEST_F(OwnTexts, AreWholeWindowsWithoutEnds) {
  const std::vector<int32_t> ids = Write(5, 3);
  ASSERT_EQ(ids.size(), 5u * 64);
  const ModelConfig &config = source_->config();
  for (const int32_t id : ids) {
    EXPECT_GE(id, 0);
    EXPECT_LT(id, config.vocab);
  }
  // Prompts may hold an end, as these random ones do; what is written does not: 6 tokens at most of a text are its prompt.
  size_t ends = 0;
  for (const int32_t id : ids) ends += static_cast<size_t>(std::count(config.eos_ids.begin(), config.eos_ids.end(), id));
  EXPECT_LT(ends, ids.size() / 8);
  EXPECT_FALSE(test::PathExists(folder_.File("scratch")));
}

TEST_F(OwnTexts, SomeSayTheirFirstHalfAgain) {
  constexpr size_t kWindow = 64, kPiece = 12;  // the shortest
  const std::vector<int32_t> ids = Write(12, 3);
  int again = 0;
  for (size_t first = 0; first < ids.size(); first += kWindow) {
    const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(first), middle = begin + kWindow / 2;
    again += std::search(begin, middle, middle, middle + kPiece) != middle ? 1 : 0;
  }
  EXPECT_GT(again, 1);
  EXPECT_LT(again, 11);
}

TEST_F(OwnTexts, DependOnTheSeedAndOnNothingElse) {
  const std::vector<int32_t> one = Write(4, 7);
  SetThreadCount(1);
  const std::vector<int32_t> alone = Write(4, 7);
  SetThreadCount(0);
  EXPECT_EQ(one, alone);
  const std::vector<int32_t> more = Write(6, 7);
  EXPECT_TRUE(std::equal(one.begin(), one.end(), more.begin()));
  EXPECT_NE(Write(4, 8), one);
}

// Models that reach further than a cache: what they write here need not.
TEST_F(OwnTexts, DoNotDependOnTheModelsContext) {
  ModelConfig config = source_->config();
  config.max_context = 1 << 20;
  EXPECT_EQ(OwnText(model_, config, SomeWindows(config), 1, 7, folder_.File("scratch")), Write(1, 7));
}

TEST_F(OwnTexts, ScratchThatCannotBeWritten) {
  EXPECT_ERROR(OwnText(model_, source_->config(), SomeWindows(source_->config()), 1, 0, folder_.File("absent/scratch")),
               ExitCode::kIo, "cannot write");
}

}  // namespace
}  // namespace acorn::compiler
