// acorn verify: every part of a file is gone over, and the first that is bad is named.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "acorn_schema/checksum_stream.h"
#include "acorn_schema/file.h"
#include "tests/support/model_builder.h"
#include "tests/support/subprocess.h"

namespace acorn::test {
namespace {

using Words = std::vector<std::string>;

TEST(ChecksumStream, EqualsTheChecksumOfTheWhole) {
  std::vector<uint8_t> data(64 * 40 + 5);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 37 + i / 251);
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{8}, size_t{13}, size_t{640}, data.size()}) {
    for (const size_t piece : {size_t{8}, size_t{64}, size_t{192}, size_t{4096}}) {
      ChecksumStream stream;
      for (size_t at = 0; at < bytes; at += piece) stream.Add(data.data() + at, std::min(piece, bytes - at));
      EXPECT_EQ(stream.End(), Checksum(data.data(), bytes)) << bytes << " by " << piece;
      if (bytes % 64 != 0 || piece % 64 != 0) continue;
      WideChecksumStream wide;
      for (size_t at = 0; at < bytes; at += piece) wide.Add(data.data() + at, std::min(piece, bytes - at));
      EXPECT_EQ(wide.End(), WideChecksum(data.data(), bytes)) << bytes << " by " << piece;
    }
  }
}

/// A model of two layers with experts, some of whose records are larger than a piece that is read.
class Verify : public testing::Test {
 protected:
  void SetUp() override {
#if defined(ACORN_EMULATED)
    GTEST_SKIP() << "an emulated program cannot start another one";
#endif
    for (const ModelSpec &spec : VariedSpecs()) {
      if (spec.experts != 0 && spec_.experts == 0) spec_ = spec;
    }
    spec_.expert_ffn = 16384, spec_.experts = 3, spec_.layers = 2, spec_.expert_slices.clear();
    spec_.expert_weights.resize(1);
    file_ = BuildModel(spec_);
  }

  std::string Write(const std::vector<uint8_t> &bytes) const {
    return folder_.Write("m.acorn", std::string(bytes.begin(), bytes.end()));
  }
  std::vector<uint8_t> Bytes() const { return std::vector<uint8_t>(file_.data(), file_.data() + file_.size()); }
  static Outcome Run(const std::string &path, const Words &more = {}) {
    Words words = {ACORN_PROGRAM, "verify", path};
    words.insert(words.end(), more.begin(), more.end());
    return RunProgram(words);
  }
  /// The file with one bit of a byte flipped is refused with these texts on the standard error.
  void ExpectFlipNamed(uint64_t offset, const Words &texts) const {
    std::vector<uint8_t> bytes = Bytes();
    bytes[offset] ^= 16;
    ExpectNamed(bytes, texts);
  }
  void ExpectNamed(const std::vector<uint8_t> &bytes, const Words &texts) const {
    const Outcome outcome = Run(Write(bytes));
    EXPECT_EQ(outcome.code, 3) << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_NE(outcome.out.find("  bad\n"), std::string::npos) << outcome.out;
    for (const std::string &text : texts) EXPECT_NE(outcome.err.find(text), std::string::npos) << text << " in " << outcome.err;
  }

  ModelSpec spec_;
  AlignedBytes file_;
  TempFolder folder_;
};

TEST_F(Verify, AGoodFile) {
  const std::string path = Write(Bytes());
  const Outcome table = Run(path);
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_EQ(table.err, "");
  EXPECT_EQ(table.out.find("bad"), std::string::npos);
  for (const char *text : {"header ", "graph ", "segment 0 ", "constants", "weights", "experts", "3 records  ok\n"}) {
    EXPECT_NE(table.out.find(text), std::string::npos) << text << " in " << table.out;
  }
  const Outcome json = Run(path, {"--json"});
  EXPECT_EQ(json.code, 0);
  EXPECT_EQ(json.out.find("{\"ok\": true, \"file_bytes\": " + std::to_string(file_.size())), 0u) << json.out;
  EXPECT_EQ(std::count(json.out.begin(), json.out.end(), '\n'), 1);
}

TEST_F(Verify, EachPartIsGoneOver) {
  const uint64_t experts = LoadLittle64(file_.data() + kHeaderExperts);
  ExpectFlipNamed(0, {"not an Acorn file", "section header"});
  ExpectFlipNamed(20, {"damaged", "section header", "offset 56"});
  ExpectFlipNamed(100, {"damaged", "section graph", "offset 64"});
  ExpectFlipNamed(kSegmentAlignment, {"damaged", "section segment, index 0, offset 16384"});
  ExpectFlipNamed(experts, {"damaged", "section expert, index 0, offset " + std::to_string(experts)});
  // The last byte of the last record that counts, far from its first.
  std::vector<uint8_t> bytes = Bytes();
  size_t last = bytes.size() - 1;
  while (bytes[last] == 0) --last;
  ExpectFlipNamed(last, {"damaged", "section expert, index 2"});
  // Damage in two places: both are marked, the first is named.
  bytes[kSegmentAlignment] ^= 1;
  bytes[last] ^= 1;
  ExpectNamed(bytes, {"section segment, index 0"});
  const Outcome json = Run(Write(bytes), {"--json"});
  EXPECT_EQ(json.code, 3);
  EXPECT_NE(json.out.find("\"fault\": {\"error\": \"the file is damaged: a checksum does not match\", \"section\": \"segment\", "
                          "\"index\": 0, \"offset\": 16384}"),
            std::string::npos)
      << json.out;
  EXPECT_EQ(json.out.find("{\"ok\": false"), 0u);
  size_t bad = 0;
  for (size_t at = 0; (at = json.out.find("\"ok\": false}", at)) != std::string::npos; ++at) ++bad;
  EXPECT_EQ(bad, 2u);
}

TEST_F(Verify, FilesOfAnotherLength) {
  std::vector<uint8_t> bytes = Bytes();
  bytes.push_back(0);
  ExpectNamed(bytes, {"breaks a rule", "section header", "offset 16"});
  // What a shorter one still has is gone over.
  bytes.resize(file_.size() / 2);
  const Outcome half = Run(Write(bytes));
  EXPECT_EQ(half.code, 3);
  EXPECT_NE(half.err.find("shorter than it says (section header, index 0, offset " + std::to_string(bytes.size())), std::string::npos);
  EXPECT_NE(half.out.find("constants"), std::string::npos);
  for (const size_t size : {0, 7, 63, 64, 100}) {
    bytes.resize(size);
    ExpectNamed(bytes, {"section header"});
  }
}

TEST_F(Verify, FilesThatCannotBeRead) {
  const Outcome absent = Run(folder_.File("absent"));
  EXPECT_EQ(absent.code, 5);
  EXPECT_NE(absent.err.find("absent: No such file"), std::string::npos) << absent.err;
  const Outcome folder = Run(folder_.path());
  EXPECT_EQ(folder.code, 5);
  EXPECT_NE(folder.err.find("not a regular file"), std::string::npos) << folder.err;
  const Outcome nothing = RunProgram({ACORN_PROGRAM, "verify"});
  EXPECT_EQ(nothing.code, 2);
}

}  // namespace
}  // namespace acorn::test
