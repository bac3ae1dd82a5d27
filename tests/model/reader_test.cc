// Bad files: each gives its status, section and offset, and nothing else happens.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "acorn_schema/file.h"
#include "tests/support/model_builder.h"
#include "tests/support/model_session.h"

namespace acorn::test {
namespace {

AlignedBytes File() { return BuildModel(VariedSpecs().front()); }

// Opens `file`; expects a fault of this status in this section.
void ExpectFault(const AlignedBytes &file, acorn_status status, const char *section) {
  ModelSession session(file);
  EXPECT_EQ(session.status(), status) << acorn_status_text(session.status());
  EXPECT_EQ(session.fault().status, status);
  EXPECT_STREQ(session.fault().section, section);
}

AlignedBytes Cut(const AlignedBytes &file, size_t bytes) {
  return AlignedBytes(std::vector<uint8_t>(file.data(), file.data() + bytes));
}

TEST(Reader, ForeignFiles) {
  ExpectFault(AlignedBytes(std::vector<uint8_t>(4096, 0)), ACORN_ERR_FOREIGN, "header");
  ExpectFault(AlignedBytes(std::vector<uint8_t>(3, 'A')), ACORN_ERR_FOREIGN, "header");
  AlignedBytes file = File();
  std::memcpy(file.data(), "GGUF", 4);
  ExpectFault(file, ACORN_ERR_FOREIGN, "header");
}

TEST(Reader, AnotherVersion) {
  AlignedBytes file = File();
  file.data()[kHeaderVersion] = 9;
  Reseal(&file);
  ExpectFault(file, ACORN_ERR_VERSION, "header");
}

TEST(Reader, EveryTruncation) {
  const AlignedBytes file = File();
  for (size_t bytes = 0; bytes < file.size(); bytes += bytes < 4096 ? 61 : 4093) {
    ModelSession session(Cut(file, bytes));
    EXPECT_EQ(session.status(), static_cast<acorn_status>(bytes < 8 ? ACORN_ERR_FOREIGN : ACORN_ERR_TRUNCATED)) << bytes;
  }
}

TEST(Reader, TrailingBytes) {
  const AlignedBytes file = File();
  std::vector<uint8_t> longer(file.data(), file.data() + file.size());
  longer.push_back(0);
  ExpectFault(AlignedBytes(longer), ACORN_ERR_INVALID, "header");
}

TEST(Reader, DamageInHeaderGraphAndConstants) {
  const AlignedBytes file = File();
  for (size_t at = 8; at < kHeaderBytes; ++at) {
    AlignedBytes bad = file;
    bad.data()[at] ^= 0x10;
    EXPECT_NE(ModelSession(bad).status(), ACORN_OK) << at;
  }
  AlignedBytes bad = file;
  bad.data()[kHeaderBytes + 100] ^= 1;
  ExpectFault(bad, ACORN_ERR_DAMAGED, "graph");
  bad = file;
  bad.data()[kSegmentAlignment * 1] ^= 1;  // the first segment: constants
  ExpectFault(bad, ACORN_ERR_DAMAGED, "segment");
}

TEST(Reader, DamagedWeightsAreFoundOnRequest) {
  AlignedBytes file = File();
  file.data()[file.size() - 1] ^= 1;
  acorn_options options = {};
  options.flags = ACORN_OPEN_CHECK_WEIGHTS;
  ModelSession session(file, options);
  EXPECT_EQ(session.status(), ACORN_ERR_DAMAGED);
  EXPECT_STREQ(session.fault().section, "segment");
}

// Whatever a resealed flip of the graph makes of a model: a status, or a model that runs without touching what is not its own.
void FlipGraphBytes(const AlignedBytes &file, uint64_t step) {
  const uint64_t graph = LoadLittle64(file.data() + kHeaderGraphBytes);
  const std::vector<int32_t> tokens = {1, 2, 3};
  size_t refused = 0;
  for (uint64_t at = 0; at < graph; at += step) {
    for (const uint8_t mask : {uint8_t{0x01}, uint8_t{0x80}, uint8_t{0xff}}) {
      AlignedBytes bad = file;
      bad.data()[kHeaderBytes + at] ^= mask;
      // The flatbuffer's checksum is made right again; segments may not be found any more, so not theirs.
      const uint64_t sum = Checksum(bad.data() + kHeaderBytes, graph);
      for (int i = 0; i < 8; ++i) bad.data()[kHeaderGraphChecksum + i] = static_cast<uint8_t>(sum >> (8 * i));
      const uint64_t header = Checksum(bad.data(), kHeaderChecksum);
      for (int i = 0; i < 8; ++i) bad.data()[kHeaderChecksum + i] = static_cast<uint8_t>(header >> (8 * i));
      acorn_options options = {};
      options.context_tokens = 8;
      ModelSession session(bad, options);
      refused += session.status() != ACORN_OK;
      session.Score(tokens);
    }
  }
  EXPECT_GT(refused, 3 * graph / step / 10);
}

TEST(Reader, FlippedGraphBytesNeverBreakAnything) { FlipGraphBytes(File(), 3); }

TEST(Reader, FlippedBytesOfAProfileNeverBreakAnything) {
  for (const char *name : {"profile_w4g32", "profile_state_space"}) {
    for (const ModelSpec &spec : VariedSpecs()) {
      if (spec.name == name) FlipGraphBytes(BuildModel(spec), 11);
    }
  }
}

}  // namespace
}  // namespace acorn::test
