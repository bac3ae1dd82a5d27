// The committed Unicode tables against utf8proc, every code point, and normalisation through the encoder.
#include "text/unicode.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "tests/support/opened_tokenizer.h"

namespace acorn::test {
namespace {

constexpr uint32_t kCodePoints = 0x110000;

bool IsSurrogate(uint32_t c) { return c >= 0xD800 && c < 0xE000; }

// The tables are Unicode 15.0's. A newer library knows code points that were not assigned then.
bool AssignedLater(uint32_t c) {
  return std::string(utf8proc_unicode_version()) != "15.0.0" && ClassOf(c) == CodePointClass::kOther && CombiningClass(c) == 0;
}

TEST(Unicode, ClassesOfEveryCodePoint) {
  for (uint32_t c = 0; c < kCodePoints; ++c) {
    const std::string category = utf8proc_category_string(static_cast<utf8proc_int32_t>(c));
    CodePointClass expected = CodePointClass::kOther;
    if (category[0] == 'L') expected = CodePointClass::kLetter;
    if (category[0] == 'N') expected = CodePointClass::kNumber;
    if (category[0] == 'Z' || (c >= 9 && c <= 13) || c == 0x85) expected = CodePointClass::kSpace;
    if (ClassOf(c) != expected && AssignedLater(c)) continue;
    ASSERT_EQ(ClassOf(c), expected) << std::hex << c;
  }
  EXPECT_EQ(ClassOf(kInvalidCodePoint), CodePointClass::kOther);
}

TEST(Unicode, DecompositionAndClassOfEveryCodePoint) {
  for (uint32_t c = 0; c < kCodePoints; ++c) {
    if (IsSurrogate(c) || AssignedLater(c)) continue;
    const auto code_point = static_cast<utf8proc_int32_t>(c);
    ASSERT_EQ(CombiningClass(c), utf8proc_get_property(code_point)->combining_class) << std::hex << c;
    utf8proc_int32_t expected[16];
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(code_point, expected, 16, static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE), nullptr);
    uint32_t actual[kMaxDecomposition];
    ASSERT_EQ(Decompose(actual, c), count) << std::hex << c;
    for (utf8proc_ssize_t i = 0; i < count; ++i) ASSERT_EQ(actual[i], static_cast<uint32_t>(expected[i])) << std::hex << c;
  }
}

TEST(Unicode, Utf8ThereAndBack) {
  for (uint32_t c = 0; c < kCodePoints; ++c) {
    if (IsSurrogate(c)) continue;
    uint8_t bytes[kMaxUtf8Bytes];
    const size_t count = EncodeUtf8(bytes, c);
    size_t length;
    ASSERT_EQ(DecodeUtf8(bytes, count, &length), c);
    ASSERT_EQ(length, count);
    if (count > 1) {
      ASSERT_EQ(DecodeUtf8(bytes, count - 1, &length), kInvalidCodePoint);
      ASSERT_EQ(length, 1u);
    }
  }
  for (const char *bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xFF"}) {
    size_t length;
    EXPECT_EQ(DecodeUtf8(reinterpret_cast<const uint8_t *>(bad), std::char_traits<char>::length(bad), &length),
              kInvalidCodePoint);
  }
}

// A tokenizer whose tokens are the bytes, so that ids are the normalised text.
compiler::TokenizerModel ByteModel() {
  compiler::TokenizerModel model;
  for (int byte = 0; byte < 256; ++byte) {
    compiler::SourceToken token;
    token.text = std::string(1, static_cast<char>(byte));
    model.byte_ids[static_cast<size_t>(byte)] = byte;
    model.tokens.push_back(token);
  }
  model.normalizer = tokenizer_layout::Normalizer::kNfc;
  model.pre_tokenizer = tokenizer_layout::PreTokenizer::kQwen2;
  return model;
}

std::string Nfc(const std::string &text) {
  utf8proc_uint8_t *normalised = nullptr;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const utf8proc_ssize_t size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t *>(text.data()),
                                             static_cast<utf8proc_ssize_t>(text.size()), &normalised, options);
  EXPECT_GE(size, 0);
  const std::string result(reinterpret_cast<const char *>(normalised), static_cast<size_t>(size));
  std::free(normalised);
  return result;
}

std::string AsText(const Ids &ids) { return std::string(ids.begin(), ids.end()); }

void Append(std::string *text, uint32_t code_point) {
  uint8_t bytes[kMaxUtf8Bytes];
  text->append(reinterpret_cast<const char *>(bytes), EncodeUtf8(bytes, code_point));
}

TEST(Nfc, EveryCodePoint) {
  const OpenedTokenizer tokenizer(ByteModel());
  for (uint32_t first = 0; first < kCodePoints; first += 64) {
    if (IsSurrogate(first)) continue;
    std::string text;
    for (uint32_t c = first; c < first + 64; ++c) {
      Append(&text, c);
      text += '.';
    }
    ASSERT_EQ(AsText(tokenizer.Encode(text)), Nfc(text)) << std::hex << first;
  }
}

TEST(Nfc, RandomSequences) {
  const OpenedTokenizer tokenizer(ByteModel());
  std::mt19937 random(5);
  const std::vector<std::pair<uint32_t, uint32_t>> ranges = {
      {0x20, 0x7F},     {0xC0, 0x250},    {0x300, 0x370},   {0x300, 0x330},     {0x900, 0xE00},     {0x1100, 0x1200},
      {0xAC00, 0xAC40}, {0x1E00, 0x2000}, {0xFB1D, 0xFB50}, {0x1D15E, 0x1D16F}, {0x2F800, 0x2F840}, {0x11099, 0x110BB}};
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    const size_t length = 1 + random() % 20;
    for (size_t j = 0; j < length; ++j) {
      const auto [low, high] = ranges[random() % ranges.size()];
      Append(&text, low + random() % (high - low));
    }
    ASSERT_EQ(AsText(tokenizer.Encode(text)), Nfc(text)) << "sequence " << i << ": " << text;
  }
}

}  // namespace
}  // namespace acorn::test
