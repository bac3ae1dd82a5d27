#include "text/unicode.h"

#include "base/debug.h"

namespace acorn {
namespace {

#include "text/unicode_classes.inc"
#include "text/unicode_nfc.inc"

// Hangul syllables are composed by arithmetic (Unicode standard, section 3.12).
constexpr uint32_t kHangulS = 0xAC00, kHangulL = 0x1100, kHangulV = 0x1161, kHangulT = 0x11A7;
constexpr uint32_t kHangulLCount = 19, kHangulVCount = 21, kHangulTCount = 28;
constexpr uint32_t kHangulSCount = kHangulLCount * kHangulVCount * kHangulTCount;

// The entry of kDecompositions for a code point, or null.
const uint32_t *FindDecomposition(uint32_t code_point) {
  uint32_t low = 0, high = kDecompositionsCount / 3;
  while (low < high) {
    const uint32_t middle = (low + high) / 2;
    const uint32_t *entry = kDecompositions + middle * 3;
    if (entry[0] == code_point) return entry;
    if (entry[0] < code_point) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return nullptr;
}

}  // namespace

CodePointClass ClassOf(uint32_t code_point) {
  const uint32_t top = code_point >> 11;
  if (top >= kClassTopCount) return CodePointClass::kOther;
  const uint32_t block = kClassMiddle[kClassTop[top] * 16u + (code_point >> 7 & 15)];
  const uint32_t word = kClassWords[block * 8 + (code_point >> 4 & 7)];
  return static_cast<CodePointClass>(word >> (code_point & 15) * 2 & 3);
}

int ContinueUtf8(const uint8_t *prefix, size_t prefix_bytes, uint8_t byte) {
  if (prefix_bytes == 0) {
    if (byte < 0x80) return 1;
    return byte >= 0xC2 && byte <= 0xF4 ? 0 : -1;
  }
  if (!IsUtf8Continuation(byte)) return -1;
  const uint8_t lead = prefix[0];
  if (prefix_bytes == 1) {  // no overlong forms, no surrogates, nothing past U+10FFFF
    if ((lead == 0xE0 && byte < 0xA0) || (lead == 0xED && byte > 0x9F)) return -1;
    if ((lead == 0xF0 && byte < 0x90) || (lead == 0xF4 && byte > 0x8F)) return -1;
  }
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  return prefix_bytes + 1 == length ? 1 : 0;
}

uint32_t DecodeUtf8(const uint8_t *text, size_t bytes, size_t *length) {
  *length = 1;
  if (text[0] < 0x80) return text[0];
  for (size_t i = 0; i < kMaxUtf8Bytes && i < bytes; ++i) {
    const int state = ContinueUtf8(text, i, text[i]);
    if (state < 0) return kInvalidCodePoint;
    if (state > 0) {
      *length = i + 1;
      uint32_t code_point = text[0] & (0x7Fu >> (i + 1));
      for (size_t j = 1; j <= i; ++j) code_point = code_point << 6 | (text[j] & 0x3F);
      return code_point;
    }
  }
  return kInvalidCodePoint;
}

size_t EncodeUtf8(uint8_t *out, uint32_t code_point) {
  ACORN_DCHECK(code_point <= 0x10FFFF);
  if (code_point < 0x80) {
    out[0] = static_cast<uint8_t>(code_point);
    return 1;
  }
  const size_t length = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
  for (size_t i = length - 1; i > 0; --i) {
    out[i] = static_cast<uint8_t>(0x80 | (code_point & 0x3F));
    code_point >>= 6;
  }
  out[0] = static_cast<uint8_t>((0xF00u >> length & 0xFF) | code_point);
  return length;
}

uint8_t CombiningClass(uint32_t code_point) {
  if (code_point < kFirstNfcRelevant) return 0;
  uint32_t low = 0, high = kMarksCount / 2;
  while (low < high) {
    const uint32_t middle = (low + high) / 2;
    const uint32_t *range = kMarks + middle * 2;
    if (code_point > range[1]) {
      low = middle + 1;
    } else if (code_point < range[0] >> 8) {
      high = middle;
    } else {
      return static_cast<uint8_t>(range[0] & 0xFF);
    }
  }
  return 0;
}

int Decompose(uint32_t out[kMaxDecomposition], uint32_t code_point) {
  if (code_point - kHangulS < kHangulSCount) {
    const uint32_t index = code_point - kHangulS;
    out[0] = kHangulL + index / (kHangulVCount * kHangulTCount);
    out[1] = kHangulV + index / kHangulTCount % kHangulVCount;
    if (index % kHangulTCount == 0) return 2;
    out[2] = kHangulT + index % kHangulTCount;
    return 3;
  }
  // Only the first of a pair decomposes further: collect the seconds from the end.
  uint32_t seconds[kMaxDecomposition];
  int count = 0;
  while (const uint32_t *entry = FindDecomposition(code_point)) {
    code_point = entry[1];
    if (entry[2] != 0) {
      ACORN_DCHECK(count < kMaxDecomposition - 1);
      seconds[count++] = entry[2];
    }
  }
  out[0] = code_point;
  for (int i = 0; i < count; ++i) out[1 + i] = seconds[count - 1 - i];
  return count + 1;
}

uint32_t Compose(uint32_t first, uint32_t second) {
  if (first - kHangulL < kHangulLCount && second - kHangulV < kHangulVCount) {
    return kHangulS + ((first - kHangulL) * kHangulVCount + (second - kHangulV)) * kHangulTCount;
  }
  if (first - kHangulS < kHangulSCount && (first - kHangulS) % kHangulTCount == 0 && second > kHangulT &&
      second < kHangulT + kHangulTCount) {
    return first + (second - kHangulT);
  }
  uint32_t low = 0, high = kCompositionsCount;
  while (low < high) {
    const uint32_t middle = (low + high) / 2;
    const uint32_t *entry = kDecompositions + kCompositions[middle] * 3u;
    if (entry[1] == first && entry[2] == second) return entry[0];
    if (entry[1] < first || (entry[1] == first && entry[2] < second)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return kInvalidCodePoint;
}

}  // namespace acorn
