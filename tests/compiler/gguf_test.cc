#include "import/gguf.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "tests/compiler/expect_error.h"
#include "tests/support/allocations.h"
#include "tests/support/temp_folder.h"
#include "text/tokenizer_model.h"

namespace acorn::compiler {
namespace {

constexpr ExitCode kBad = ExitCode::kBadModel;

std::string Le(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 255);
  return out;
}

std::string Str(const std::string &text) { return Le(text.size(), 8) + text; }

std::string Key(const std::string &key, GgufType type) { return Str(key) + Le(static_cast<uint32_t>(type), 4); }

std::string Array(GgufType type, uint64_t count) { return Le(static_cast<uint32_t>(type), 4) + Le(count, 8); }

// dims as the file stores them: innermost first.
std::string Tensor(const std::string &name, const std::vector<uint64_t> &dims, uint32_t type, uint64_t offset) {
  std::string out = Str(name) + Le(dims.size(), 4);
  for (const uint64_t dim : dims) out += Le(dim, 8);
  return out + Le(type, 4) + Le(offset, 8);
}

struct Parts {
  uint32_t version = 3;
  std::vector<std::string> keys;
  std::vector<std::string> tensors;
  size_t data_bytes = 0;
};

std::string Build(const Parts &parts) {
  std::string out = "GGUF" + Le(parts.version, 4) + Le(parts.tensors.size(), 8) + Le(parts.keys.size(), 8);
  for (const std::string &key : parts.keys) out += key;
  for (const std::string &tensor : parts.tensors) out += tensor;
  out.resize((out.size() + 31) / 32 * 32, '\0');
  return out + std::string(parts.data_bytes, '\0');
}

Parts Example() {
  Parts parts;
  parts.keys = {
      Key("name", GgufType::kString) + Str("x"),
      Key("small", GgufType::kInt8) + Le(0xfb, 1),
      Key("large", GgufType::kUint64) + Le(uint64_t{1} << 40, 8),
      Key("yes", GgufType::kBool) + Le(1, 1),
      Key("half", GgufType::kFloat32) + Le(0x3f000000, 4),
      Key("tokens", GgufType::kArray) + Array(GgufType::kString, 2) + Str("a") + Str(""),
      Key("types", GgufType::kArray) + Array(GgufType::kInt32, 2) + Le(0xffffffff, 4) + Le(6, 4),
      Key("scores", GgufType::kArray) + Array(GgufType::kFloat32, 1) + Le(0x40000000, 4),
  };
  parts.tensors = {Tensor("w", {64, 3}, 2, 0), Tensor("n", {5}, 0, 128)};
  parts.data_bytes = 128 + 20;
  return parts;
}

class Gguf : public testing::Test {
 protected:
  GgufFile Open(const std::string &bytes) { return GgufFile(folder_.Write("x.gguf", bytes)); }
  void OpenAndClose(const Parts &parts) { Open(Build(parts)); }

  test::TempFolder folder_;
};

TEST_F(Gguf, ReadsValuesAndTensors) {
  for (const uint32_t version : {2u, 3u}) {
    Parts parts = Example();
    parts.version = version;
    const GgufFile file(folder_.Write("y.gguf", Build(parts)));
    EXPECT_TRUE(GgufFile::IsGguf(file.path()));
    EXPECT_EQ(file.FindString("name"), "x");
    EXPECT_EQ(file.FindInteger("small"), -5);
    EXPECT_EQ(file.FindInteger("large"), int64_t{1} << 40);
    EXPECT_EQ(file.FindBool("yes"), true);
    EXPECT_EQ(file.FindReal("half"), 0.5);
    EXPECT_EQ(file.FindReal("small"), -5.0);
    EXPECT_EQ(file.FindInteger("absent"), std::nullopt);
    ASSERT_NE(file.FindStrings("tokens"), nullptr);
    EXPECT_EQ(file.FindStrings("tokens")->at(0), "a");
    EXPECT_EQ(*file.FindIntegers("types"), (std::vector<int64_t>{-1, 6}));
    EXPECT_EQ(*file.FindReals("scores"), (std::vector<double>{2.0}));
    const GgufTensor *tensor = file.FindTensor("w");
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->shape, (std::vector<int64_t>{3, 64}));
    EXPECT_EQ(tensor->type, ElementType::kQ4_0);
    EXPECT_EQ(tensor->size_bytes, 3u * 2 * 18);
    EXPECT_EQ(tensor->offset_bytes % 32, 0u);
    EXPECT_EQ(file.FindTensor("n")->offset_bytes, tensor->offset_bytes + 128);
    EXPECT_ERROR(file.FindString("small"), kBad, "small is no string");
    EXPECT_ERROR(file.FindInteger("half"), kBad, "half is no integer");
    EXPECT_ERROR(file.FindStrings("types"), kBad, "types is no array of strings");
  }
}

// CVE-2024-32878: what was not read yet was freed when a file ended too early.
TEST_F(Gguf, RefusesEveryTruncation) {
  const std::string whole = Build(Example());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(Open(whole.substr(0, size)), Error) << "truncated to " << size << " bytes";
  }
}

// No byte of the head may bring the parser down, whatever it holds.
TEST_F(Gguf, SurvivesEveryDamagedByte) {
  const std::string whole = Build(Example());
  for (size_t at = 0; at < whole.size() - 148; ++at) {
    for (const int bits : {0x01, 0x80}) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ bits);
      try {
        Open(damaged);
      } catch (const Error &fault) {
        EXPECT_EQ(fault.code(), kBad);
      }
    }
  }
}

// CVE-2024-21802, -21825, -21836, -23496, -23605: counts and lengths as the file gives them; ggml's issue 1516: memory for as many.
// Nothing is asked for before the file has it: what a refusal takes goes with the file's size.
TEST_F(Gguf, RefusesCountsThatTheFileCannotHold) {
  const std::string whole = Build(Example());
  const std::string path = folder_.Write("x.gguf", whole);
  constexpr size_t kTensorCount = 8, kKeyCount = 16;
  const size_t string_length = 24, tokens = whole.find("tokens") + 6 + 8, name = whole.find("w", tokens) - 8;
  for (const size_t at : {kTensorCount, kKeyCount, string_length, tokens, name}) {
    for (const int bits : {31, 32, 61, 63, 64}) {
      for (const uint64_t less : {0, 1}) {
        const uint64_t count = (bits == 64 ? 0 : uint64_t{1} << bits) - less;
        if (count == 0) continue;
        std::string bad = whole;
        bad.replace(at, 8, Le(count, 8));
        folder_.Write("x.gguf", bad);
        const test::AllocationCount allocations;
        try {
          const GgufFile file(path);
          ADD_FAILURE() << count << " at " << at << " is taken";
        } catch (const Error &fault) {
          EXPECT_EQ(fault.code(), kBad);
        }
        EXPECT_LT(allocations.bytes(), 1u << 17) << count << " at " << at;
      }
    }
  }
}

TEST_F(Gguf, RefusesVersionsAndTypes) {
  Parts parts;
  parts.version = 1;
  EXPECT_ERROR(OpenAndClose(parts), kBad, "version 1 is not supported");
  parts.version = 3 << 24;
  EXPECT_ERROR(OpenAndClose(parts), kBad, "little endian");
  EXPECT_ERROR(Open("GGML1234"), kBad, "not a GGUF file");
  parts = Parts();
  parts.keys = {Key("k", static_cast<GgufType>(13)) + Le(0, 8)};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "metadata k: unknown type 13");
  parts.keys = {Key("k", GgufType::kArray) + Array(GgufType::kArray, 1) + Le(0, 8)};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "array of type 9");
  parts.keys = {Key("k", GgufType::kArray) + Array(GgufType::kUint8, ~uint64_t{0})};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "does not fit the file");
  parts.keys = {Key("k", GgufType::kString) + Le(~uint64_t{0}, 8)};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "metadata k at offset");
  parts.keys = {Key("k", GgufType::kUint8) + "1", Key("k", GgufType::kUint8) + "1"};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "k is given twice");
  // llama.cpp's pull request 24263: a name of no letters, which an assert looked at. Here it is a name that nobody asks for.
  parts.keys = {Key("", GgufType::kUint8) + "1"};
  EXPECT_EQ(Open(Build(parts)).FindInteger(""), '1');
  // llama.cpp's pull request 26318: an alignment that a sum wraps around by, or that is no number.
  for (const uint64_t alignment : {uint64_t{24}, uint64_t{0}, uint64_t{1} << 21, uint64_t{1} << 63, ~uint64_t{0}}) {
    parts.keys = {Key("general.alignment", GgufType::kUint64) + Le(alignment, 8)};
    EXPECT_ERROR(OpenAndClose(parts), kBad, "no power of two");
  }
  parts.keys = {Key("general.alignment", GgufType::kString) + Str("32")};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "general.alignment is no integer");
  parts.keys = {Key("general.alignment", GgufType::kFloat32) + Le(0x42000000, 4)};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "general.alignment is no integer");
}

TEST_F(Gguf, RefusesTensors) {
  Parts parts;
  parts.data_bytes = 256;
  parts.tensors = {Tensor("w", {64}, 10, 0)};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "tensor w: type 10 is not supported; known are F32");
  // CVE-2024-42477: a type that is looked up as it comes.
  for (const uint32_t type : {255u, 1u << 31, ~0u}) {
    parts.tensors = {Tensor("w", {64}, type, 0)};
    EXPECT_ERROR(OpenAndClose(parts), kBad, "type " + std::to_string(type) + " is not supported");
  }
  parts.tensors = {Tensor("w", {63}, 2, 0)};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "no whole Q4_0 blocks");
  parts.tensors = {Tensor("w", {64, 2}, 0, 0)};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "does not fit");
  parts.tensors = {Tensor("w", {8}, 0, 8)};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "not aligned");
  parts.tensors = {Tensor("w", {8}, 0, ~uint64_t{31})};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "does not fit");
  parts.tensors = {Tensor("w", {uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0)};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "out of range");
  // llama.cpp's pull request 24263: a dimension of 0, and a division by it.
  for (const std::vector<uint64_t> &dims : {std::vector<uint64_t>{0}, {4, 0}, {1, 0}, {1, 2, 0, 4}, {4, ~uint64_t{0}}}) {
    parts.tensors = {Tensor("w", dims, 0, 0)};
    EXPECT_ERROR(OpenAndClose(parts), kBad, "out of range");
  }
  // openvino.genai's pull request 4170: more dimensions than places for them, looked at by an assert.
  parts.tensors = {Tensor("w", {1, 1, 1, 1, 1}, 0, 0)};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "5 dimensions");
  parts.tensors = {Tensor("w", std::vector<uint64_t>(9, 1), 0, 0)};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "9 dimensions");
  for (const uint32_t count : {0u, 1u << 31, ~0u}) {
    parts.tensors = {Str("w") + Le(count, 4)};
    EXPECT_ERROR(OpenAndClose(parts), kBad, std::to_string(count) + " dimensions");
  }
  parts.tensors = {Tensor("w", {16}, 0, 0), Tensor("v", {16}, 0, 32)};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "tensors w and v overlap");
  parts.tensors = {Tensor("w", {8}, 0, 0), Tensor("w", {8}, 0, 32)};
  EXPECT_ERROR(OpenAndClose(parts), kBad, "w is given twice");
}

// llama.cpp's pull request 26690: arrays read as if their elements were of the type that is wanted.
TEST_F(Gguf, RefusesArraysOfOtherElements) {
  const auto read = [&](const std::string &scores, const std::string &types) {
    Parts parts;
    parts.keys = {Key("tokenizer.ggml.model", GgufType::kString) + Str("llama"),
                  Key("tokenizer.ggml.tokens", GgufType::kArray) + Array(GgufType::kString, 2) + Str("a") + Str("b"),
                  Key("tokenizer.ggml.scores", GgufType::kArray) + scores,
                  Key("tokenizer.ggml.token_type", GgufType::kArray) + types};
    return ReadGgufTokenizer(Open(Build(parts)), {});
  };
  const std::string scores = Array(GgufType::kFloat32, 2) + Le(0, 8), types = Array(GgufType::kInt32, 2) + Le(1, 4) + Le(1, 4);
  EXPECT_EQ(read(scores, types).tokens.size(), 2u);
  EXPECT_ERROR(read(Array(GgufType::kUint8, 2) + "ab", types), kBad, "scores is no array of floats");
  EXPECT_ERROR(read(scores, Array(GgufType::kFloat32, 2) + Le(0, 8)), kBad, "token_type is no array of integers");
  EXPECT_ERROR(read(scores, Array(GgufType::kString, 2) + Str("") + Str("")), kBad, "token_type is no array of integers");
  // Narrower ones are read as wide as they are.
  EXPECT_EQ(read(scores, Array(GgufType::kUint8, 2) + "\1\1").tokens.size(), 2u);
  EXPECT_ERROR(read(scores, Array(GgufType::kInt32, 1) + Le(1, 4)), kBad, "token_type");
}

// Sorting by a number that is none has no end that is right.
TEST_F(Gguf, RefusesScoresThatAreNoNumbers) {
  Parts parts;
  const auto read = [&](GgufType type, const std::string &scores) {
    parts.keys = {Key("tokenizer.ggml.model", GgufType::kString) + Str("llama"),
                  Key("tokenizer.ggml.tokens", GgufType::kArray) + Array(GgufType::kString, 2) + Str("a") + Str("b"),
                  Key("tokenizer.ggml.scores", GgufType::kArray) + Array(type, 2) + scores};
    return ReadGgufTokenizer(Open(Build(parts)), {});
  };
  EXPECT_EQ(read(GgufType::kFloat32, Le(0x3f800000, 4) + Le(0xbf800000, 4)).tokens.size(), 2u);
  EXPECT_ERROR(read(GgufType::kFloat32, Le(0x3f800000, 4) + Le(0x7fc00000, 4)), kBad, "scores: element 1 is no number");
  EXPECT_ERROR(read(GgufType::kFloat32, Le(0xff800000, 4) + Le(0, 4)), kBad, "scores: element 0 is no number");
  EXPECT_ERROR(read(GgufType::kFloat64, Le(0x7fe0000000000000, 8) + Le(0, 8)), kBad, "scores: element 0 is no number");
}

}  // namespace
}  // namespace acorn::compiler
