// The committed file of each format version, read by the reference and by the runtime: lines of v<version>.digests are a
// digest over the logits of every position, then the tokens.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "tests/reference/reference_model.h"
#include "tests/support/model_session.h"

namespace acorn {
namespace {

struct Line {
  uint64_t digest = 0;
  std::vector<int32_t> tokens;
};

std::string GoldenPath(const char *name) { return std::string(ACORN_SOURCE_DIR "/schema/golden/") + name; }

std::vector<Line> ReadLines() {
  std::ifstream in(GoldenPath("v0.digests"));
  std::vector<Line> lines;
  for (std::string text; std::getline(in, text);) {
    std::istringstream words(text);
    Line line;
    words >> std::hex >> line.digest >> std::dec;
    line.tokens.assign(std::istream_iterator<int32_t>(words), {});
    lines.push_back(line);
  }
  return lines;
}

TEST(GoldenV0, ReferenceGivesTheDigests) {
  const reference::ReferenceModel model = reference::ReferenceModel::Open(GoldenPath("v0.acorn"));
  const std::vector<Line> lines = ReadLines();
  ASSERT_EQ(lines.size(), 3u);
  for (const Line &line : lines) {
    const std::vector<int32_t> logits = model.Logits(line.tokens);
    EXPECT_EQ(reference::Digest(logits.data(), logits.size()), line.digest) << line.tokens.size() << " tokens";
  }
}

TEST(GoldenV0, RuntimeGivesTheDigests) {
  std::ifstream in(GoldenPath("v0.acorn"), std::ios::binary);
  const test::AlignedBytes file(std::vector<uint8_t>(std::istreambuf_iterator<char>(in), {}));
  const std::vector<Line> lines = ReadLines();
  ASSERT_EQ(lines.size(), 3u);
  for (const Line &line : lines) {
    test::ModelSession session(file);
    ASSERT_EQ(session.status(), ACORN_OK);
    const std::vector<int32_t> logits = session.Score(line.tokens);
    ASSERT_EQ(session.status(), ACORN_OK);
    EXPECT_EQ(reference::Digest(logits.data(), logits.size()), line.digest) << line.tokens.size() << " tokens";
  }
}

}  // namespace
}  // namespace acorn
