// The committed file of each format version, read by the reference and by the runtime; make_golden.cc tells what the lines
// of v<version>.digests mean.
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
  std::string kind;
  uint64_t digest = 0;
  std::string rest;

  std::vector<int32_t> Ids() const {
    std::istringstream words(rest);
    return std::vector<int32_t>(std::istream_iterator<int32_t>(words), {});
  }
  std::string Text() const {
    std::string text = rest;
    for (size_t at; (at = text.find("\\n")) != std::string::npos;) text.replace(at, 2, "\n");
    return text;
  }
};

std::string GoldenPath(const char *name) { return std::string(ACORN_SOURCE_DIR "/schema/golden/") + name; }

std::vector<Line> ReadLines(const char *name) {
  std::ifstream in(GoldenPath(name));
  std::vector<Line> lines;
  for (std::string text; std::getline(in, text);) {
    std::istringstream words(text);
    Line line;
    words >> line.kind >> std::hex >> line.digest;
    words.get();  // the space behind the digest
    std::getline(words, line.rest);
    lines.push_back(line);
  }
  return lines;
}

test::AlignedBytes ReadGolden(const char *name) {
  std::ifstream in(GoldenPath(name), std::ios::binary);
  return test::AlignedBytes(std::vector<uint8_t>(std::istreambuf_iterator<char>(in), {}));
}

TEST(GoldenV0, ReferenceGivesTheDigests) {
  const reference::ReferenceModel model = reference::ReferenceModel::Open(GoldenPath("v0.acorn"));
  size_t count = 0;
  for (const Line &line : ReadLines("v0.digests")) {
    if (line.kind != "logits") continue;
    const std::vector<int32_t> logits = model.Logits(line.Ids());
    EXPECT_EQ(reference::Digest(logits.data(), logits.size()), line.digest) << line.Ids().size() << " tokens";
    ++count;
  }
  EXPECT_EQ(count, 3u);
}

TEST(GoldenV0, RuntimeGivesTheDigests) {
  const test::AlignedBytes file = ReadGolden("v0.acorn");
  size_t count = 0;
  for (const Line &line : ReadLines("v0.digests")) {
    if (line.kind != "logits") continue;
    test::ModelSession session(file);
    ASSERT_EQ(session.status(), static_cast<acorn_status>(ACORN_OK));
    const std::vector<int32_t> logits = session.Score(line.Ids());
    ASSERT_EQ(session.status(), static_cast<acorn_status>(ACORN_OK));
    EXPECT_EQ(reference::Digest(logits.data(), logits.size()), line.digest) << line.Ids().size() << " tokens";
    ++count;
  }
  EXPECT_EQ(count, 3u);
}

TEST(GoldenV0, TextGivesTheIds) {
  const test::AlignedBytes file = ReadGolden("v0.acorn");
  test::ModelSession session(file);
  ASSERT_EQ(session.status(), static_cast<acorn_status>(ACORN_OK));
  size_t count = 0;
  for (const Line &line : ReadLines("v0.digests")) {
    if (line.kind == "logits") continue;
    const std::string text = line.Text();
    std::vector<int32_t> ids(512);
    size_t tokens = 0;
    ASSERT_EQ(acorn_tokenize(session.model(), ids.data(), ids.size(), &tokens, text.data(), text.size(),
                             line.kind == "chat" ? ACORN_TEXT_CHAT : 0),
              static_cast<acorn_status>(ACORN_OK));
    EXPECT_EQ(reference::Digest(ids.data(), tokens), line.digest) << line.kind << ": " << text;
    ++count;
  }
  EXPECT_EQ(count, 4u);
}

}  // namespace
}  // namespace acorn
