// Ids to text: whole characters only, replacement of ill-formed bytes, special tokens, buffers.
#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include "tests/support/opened_tokenizer.h"
#include "tests/support/shared_data.h"

namespace acorn::test {
namespace {

class DetokenizerTest : public testing::Test {
 protected:
  DetokenizerTest() : tokenizer_(compiler::ReadTokenizerJson(DataPath("text/tokenizer.json"), "", "", {})) {}

  // What Append gives for one byte.
  std::string Byte(Detokenizer *state, unsigned char byte) {
    char out[16];
    size_t count = 0;
    const int32_t id = tokenizer_.get().byte_ids[byte];
    EXPECT_GE(id, 0);
    EXPECT_EQ(Append(tokenizer_.get(), state, id, Span<char>(out, sizeof out), &count), Status::kOk);
    return std::string(out, count);
  }
  std::string Bytes(const std::string &bytes) {
    Ids ids;
    for (const char byte : bytes) ids.push_back(tokenizer_.get().byte_ids[static_cast<unsigned char>(byte)]);
    return tokenizer_.Decode(ids);
  }

  OpenedTokenizer tokenizer_;
};

TEST_F(DetokenizerTest, GivesWholeCharactersOnly) {
  Detokenizer state;
  EXPECT_EQ(Byte(&state, 0xF0), "");
  EXPECT_EQ(Byte(&state, 0x9F), "");
  EXPECT_EQ(Byte(&state, 0x9A), "");
  EXPECT_EQ(Byte(&state, 0x80), "\xF0\x9F\x9A\x80");
  EXPECT_EQ(Byte(&state, 'a'), "a");
}

// Expected texts: the examples of table 3-8 of the Unicode standard and the WHATWG decoder.
TEST_F(DetokenizerTest, ReplacesMaximalIllFormedParts) {
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(Bytes("\xC3"), bad);
  EXPECT_EQ(Bytes("\xC3("), bad + "(");
  EXPECT_EQ(Bytes("\xE1\x80"), bad);
  EXPECT_EQ(Bytes("\xF0\x9F\x9A"), bad);
  EXPECT_EQ(Bytes("\xF0\x9F\x9Ax"), bad + "x");
  EXPECT_EQ(Bytes("\x80\x80"), bad + bad);
  EXPECT_EQ(Bytes("\xE0\x80\x80"), bad + bad + bad);
  EXPECT_EQ(Bytes("\xED\xA0\x80"), bad + bad + bad);
  EXPECT_EQ(Bytes("\xF4\x90\x80\x80"), bad + bad + bad + bad);
  EXPECT_EQ(Bytes("\xF1\x80\xC3\xA9"), bad + "\xC3\xA9");
  EXPECT_EQ(Bytes("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), bad + bad + bad + bad + "A");
}

TEST_F(DetokenizerTest, SpecialTokensAreHiddenUnlessAsked) {
  const Ids ids = tokenizer_.EncodeMarkup("<|user|>hi<|endoftext|>");
  EXPECT_EQ(tokenizer_.Decode(ids), "hi");
  Detokenizer state;
  state.show_specials = 1;
  EXPECT_EQ(tokenizer_.Decode(ids, state), "<|user|>hi<|endoftext|>");
}

TEST_F(DetokenizerTest, AFullBufferChangesNothing) {
  const Tokenizer &tokenizer = tokenizer_.get();
  Detokenizer state;
  Byte(&state, 0xC3);
  char out[8] = "xxxxxxx";
  size_t count = 0;
  const int32_t id = tokenizer.byte_ids[0xA9];
  EXPECT_EQ(Append(tokenizer, &state, id, Span<char>(out, 1), &count), Status::kBuffer);
  EXPECT_EQ(count, 2u);
  EXPECT_STREQ(out, "xxxxxxx");
  EXPECT_EQ(Append(tokenizer, &state, id, Span<char>(out, 2), &count), Status::kOk);
  EXPECT_EQ(std::string(out, 2), "\xC3\xA9");
  EXPECT_EQ(Append(tokenizer, &state, -1, Span<char>(out, 8), &count), Status::kToken);
  EXPECT_EQ(Append(tokenizer, &state, static_cast<int32_t>(VocabSize(tokenizer)), Span<char>(out, 8), &count), Status::kToken);
  Byte(&state, 0xE1);
  EXPECT_EQ(Flush(&state, Span<char>(out, 2), &count), Status::kBuffer);
  EXPECT_EQ(Flush(&state, Span<char>(out, 3), &count), Status::kOk);
  EXPECT_EQ(Flush(&state, Span<char>(out, 0), &count), Status::kOk);
  EXPECT_EQ(count, 0u);
}

}  // namespace
}  // namespace acorn::test
