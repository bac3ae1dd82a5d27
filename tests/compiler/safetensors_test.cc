#include "import/safetensors.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/compiler/expect_error.h"
#include "tests/support/temp_folder.h"

namespace acorn::compiler {
namespace {

constexpr ExitCode kBad = ExitCode::kBadModel;

std::string Length(uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i) & 255);
  return bytes;
}

class Safetensors : public testing::Test {
 protected:
  std::map<std::string, SafetensorsEntry> Parse(const std::string &bytes) {
    const MappedFile file(folder_.Write("x.safetensors", bytes));
    return ParseSafetensors(file);
  }
  std::map<std::string, SafetensorsEntry> ParseHeader(const std::string &header, size_t data_bytes) {
    return Parse(Length(header.size()) + header + std::string(data_bytes, '\0'));
  }

  test::TempFolder folder_;
};

TEST_F(Safetensors, ReadsEntries) {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},"c":{"dtype":"I64","shape":[0],"data_offsets":[26,26]}})";
  const auto entries = ParseHeader(header, 26);
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries.at("a").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(entries.at("a").offset_bytes, 8 + header.size());
  EXPECT_EQ(entries.at("b").size_bytes, 2u);
  EXPECT_TRUE(entries.at("b").shape.empty());
  EXPECT_EQ(SafetensorsType(entries.at("b"), "b", "x"), ElementType::kBF16);
}

TEST_F(Safetensors, RefusesForeignAndTruncated) {
  EXPECT_ERROR(Parse(""), kBad, "no safetensors file");
  EXPECT_ERROR(Parse("1234567"), kBad, "no safetensors file");
  EXPECT_ERROR(Parse(Length(3) + "{}"), kBad, "does not fit the file");
  EXPECT_ERROR(Parse(Length(~uint64_t{0}) + "{}"), kBad, "does not fit the file");
  EXPECT_ERROR(Parse(Length(kMaxSafetensorsHeaderBytes + 1) + "{}"), kBad, "does not fit the file");
  EXPECT_ERROR(Parse(Length(4) + "{\"a\""), kBad, "no valid JSON at byte");
  EXPECT_ERROR(Parse(Length(2) + "[]"), kBad, "no JSON object");
}

TEST_F(Safetensors, RefusesEveryTruncation) {
  const std::string header = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const std::string whole = Length(header.size()) + header + std::string(8, '\1');
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(Parse(whole.substr(0, size)), Error) << "truncated to " << size << " bytes";
  }
  EXPECT_EQ(Parse(whole).size(), 1u);
}

TEST_F(Safetensors, RefusesOffsets) {
  EXPECT_ERROR(ParseHeader(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7), kBad, "tensor a");
  EXPECT_ERROR(ParseHeader(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8), kBad, "does not fit");
  EXPECT_ERROR(ParseHeader(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})", 8), kBad, "pair of offsets");
  EXPECT_ERROR(ParseHeader(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}})", 8), kBad,
               "does not fit");
  EXPECT_ERROR(ParseHeader(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8), kBad, "pair of offsets");
  EXPECT_ERROR(ParseHeader(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                           R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                           12),
               kBad, "overlap");
}

TEST_F(Safetensors, RefusesShapes) {
  EXPECT_ERROR(ParseHeader(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8), kBad, "need 12 bytes");
  EXPECT_ERROR(ParseHeader(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,8]}})", 8), kBad,
               "out of range");
  EXPECT_ERROR(ParseHeader(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8), kBad, "shape");
  EXPECT_ERROR(ParseHeader(R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", 8), kBad, "shape is no array");
}

TEST_F(Safetensors, RefusesTypes) {
  EXPECT_ERROR(ParseHeader(R"({"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}})", 8), kBad, "unknown dtype Q4");
  EXPECT_ERROR(ParseHeader(R"({"a":{"dtype":7,"shape":[2],"data_offsets":[0,8]}})", 8), kBad, "dtype is no string");
  EXPECT_ERROR(ParseHeader(R"({"a":5})", 8), kBad, "no object");
  const auto entries = ParseHeader(R"({"a":{"dtype":"I8","shape":[8],"data_offsets":[0,8]}})", 8);
  EXPECT_ERROR(SafetensorsType(entries.at("a"), "a", "x"), kBad, "dtype I8 is not supported");
}

}  // namespace
}  // namespace acorn::compiler
