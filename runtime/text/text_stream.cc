#include "text/text_stream.h"

#include "text/token_tables.h"

namespace acorn {

using tokenizer_layout::DummyPrefix;
using tokenizer_layout::Normalizer;

TextStream::TextStream(const Tokenizer &tokenizer, Span<const TextPart> parts, bool continues)
    : tokenizer_(tokenizer), parts_(parts) {
  prefix_pending_ = !continues && tokenizer.header->dummy_prefix != static_cast<uint32_t>(DummyPrefix::kNone);
}

size_t TextStream::FindBoundary() const {
  const TextPart &part = parts_[part_];
  const size_t bytes = part.text.size();
  if (part.kind != TextPart::Kind::kMarkup) return bytes;
  const uint8_t *text = reinterpret_cast<const uint8_t *>(part.text.data());
  for (size_t i = offset_; i < bytes; ++i) {
    if ((tokenizer_.markup_first[text[i] >> 3] >> (text[i] & 7) & 1) == 0) continue;
    size_t length;
    if (MatchMarkup(tokenizer_, text + i, bytes - i, &length) != kNoIndex) return i;
  }
  return bytes;
}

size_t TextStream::Fill(uint8_t *out, size_t room) {
  size_t written = 0;
  const bool nfc = tokenizer_.header->normalizer == static_cast<uint32_t>(Normalizer::kNfc);
  while (!section_done_ && room - written >= kMinRoom) {
    if (part_ == parts_.size()) {
      section_done_ = true;
      break;
    }
    if (parts_[part_].kind == TextPart::Kind::kToken) {
      section_done_ = true;
      break;
    }
    if (!boundary_known_) {
      boundary_ = FindBoundary();
      boundary_known_ = true;
    }
    if (offset_ == boundary_) {
      if (boundary_ < parts_[part_].text.size()) {
        section_done_ = true;
        break;
      }
      ++part_;
      offset_ = 0;
      boundary_known_ = false;
      continue;
    }
    if (prefix_pending_) {
      prefix_pending_ = false;
      out[written++] = ' ';
    }
    if (nfc) {
      FillNfc(out, room, &written);
    } else {
      FillCopied(out, room, &written);
    }
  }
  if (section_done_ && segment_size_ > 0) {
    OrderAndCompose();
    EmitSegment(out, &written);
  }
  return written;
}

void TextStream::FillCopied(uint8_t *out, size_t room, size_t *written) {
  const uint8_t *text = reinterpret_cast<const uint8_t *>(parts_[part_].text.data());
  const size_t left = boundary_ - offset_, space = room - *written;
  const size_t count = left < space ? left : space;
  if (tokenizer_.header->normalizer != static_cast<uint32_t>(Normalizer::kMetaspace)) {
    __builtin_memcpy(out + *written, text + offset_, count);
    offset_ += count;
    *written += count;
    return;
  }
  const size_t end = offset_ + count;
  while (offset_ < end) {
    const uint8_t byte = text[offset_];
    if (byte == 0xE2 && boundary_ - offset_ >= 3 && text[offset_ + 1] == 0x96 && text[offset_ + 2] == 0x81) {
      out[(*written)++] = ' ';  // U+2581
      offset_ += 3;
    } else {
      out[(*written)++] = byte;
      ++offset_;
    }
  }
}

void TextStream::FillNfc(uint8_t *out, size_t room, size_t *written) {
  const uint8_t *text = reinterpret_cast<const uint8_t *>(parts_[part_].text.data());
  while (offset_ < boundary_ && room - *written >= kMinRoom) {
    size_t length;
    const uint32_t code_point = DecodeUtf8(text + offset_, boundary_ - offset_, &length);
    if (code_point == kInvalidCodePoint) {  // kept as it is; nothing composes across it
      OrderAndCompose();
      EmitSegment(out, written);
      out[(*written)++] = text[offset_];
    } else {
      PushCodePoint(code_point, out, written);
    }
    offset_ += length;
  }
}

void TextStream::PushCodePoint(uint32_t code_point, uint8_t *out, size_t *written) {
  uint32_t mapped[kMaxDecomposition] = {code_point};
  const int count = code_point < 0xC0 ? 1 : Decompose(mapped, code_point);
  for (int i = 0; i < count; ++i) {
    if (CombiningClass(mapped[i]) == 0) {
      OrderAndCompose();
      if (segment_size_ == 1 && mapped[i] >= kFirstNfcRelevant) {
        const uint32_t composed = Compose(segment_[0], mapped[i]);
        if (composed != kInvalidCodePoint) {
          segment_[0] = composed;
          continue;
        }
      }
      EmitSegment(out, written);
    } else if (segment_size_ >= kMaxSegment) {
      OrderAndCompose();
      EmitSegment(out, written);
    }
    segment_[segment_size_++] = mapped[i];
  }
}

// Canonical ordering, then composition, of a starter and the marks after it (Unicode standard, D108 and D117).
void TextStream::OrderAndCompose() {
  if (segment_size_ <= 1) return;
  uint8_t classes[kMaxSegment + kMaxDecomposition];
  for (int i = 0; i < segment_size_; ++i) {
    const uint32_t code_point = segment_[i];
    const uint8_t combining = CombiningClass(code_point);
    int j = i;
    for (; j > 0 && combining != 0 && classes[j - 1] > combining; --j) {
      segment_[j] = segment_[j - 1];
      classes[j] = classes[j - 1];
    }
    segment_[j] = code_point;
    classes[j] = combining;
  }
  if (classes[0] != 0) return;  // no starter to compose with
  int kept = 1;
  uint8_t last_class = 0;  // of the last mark that was kept
  for (int i = 1; i < segment_size_; ++i) {
    const bool blocked = last_class >= classes[i];
    const uint32_t composed = blocked ? kInvalidCodePoint : Compose(segment_[0], segment_[i]);
    if (composed != kInvalidCodePoint) {
      segment_[0] = composed;
      continue;
    }
    last_class = classes[i];
    segment_[kept++] = segment_[i];
  }
  segment_size_ = kept;
}

void TextStream::EmitSegment(uint8_t *out, size_t *written) {
  for (int i = 0; i < segment_size_; ++i) *written += EncodeUtf8(out + *written, segment_[i]);
  segment_size_ = 0;
}

bool TextStream::NextSection(int32_t *token) {
  if (part_ == parts_.size()) return false;
  const TextPart &part = parts_[part_];
  if (part.kind == TextPart::Kind::kToken) {
    *token = part.token;
    ++part_;
    offset_ = 0;
  } else {
    size_t length = 0;
    const uint8_t *text = reinterpret_cast<const uint8_t *>(part.text.data());
    *token = static_cast<int32_t>(MatchMarkup(tokenizer_, text + offset_, part.text.size() - offset_, &length));
    offset_ += length;
  }
  boundary_known_ = false;
  section_done_ = false;
  prefix_pending_ = tokenizer_.header->dummy_prefix == static_cast<uint32_t>(DummyPrefix::kEvery);
  return true;
}

}  // namespace acorn
