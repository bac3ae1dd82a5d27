// TextStream: the parts of a text as one normalised stream of bytes, cut into sections at special tokens. Holds a few
// hundred bytes of state however long the text is. For runtime/text only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "text/tokenizer.h"
#include "text/unicode.h"

namespace acorn {

class TextStream {
 public:
  TextStream(const Tokenizer &tokenizer, Span<const TextPart> parts, bool continues);

  /// Fill needs this much room to make progress.
  static constexpr size_t kMinRoom = 512;
  /// Appends bytes of the current section; returns how many. Stops when less than kMinRoom is left or the section ends.
  size_t Fill(uint8_t *out, size_t room);
  /// True when Fill has given the whole section.
  bool SectionDone() const { return section_done_; }
  /// Goes on to the next section. Returns false at the end of the text; else *token is the special token before it.
  bool NextSection(int32_t *token);

 private:
  // A combining sequence longer than this is composed in parts.
  static constexpr int kMaxSegment = 64;

  void FillCopied(uint8_t *out, size_t room, size_t *written);
  void FillNfc(uint8_t *out, size_t room, size_t *written);
  // Position of the next special token in the current markup part, or the part's end.
  size_t FindBoundary() const;
  void PushCodePoint(uint32_t code_point, uint8_t *out, size_t *written);
  void OrderAndCompose();
  void EmitSegment(uint8_t *out, size_t *written);

  const Tokenizer &tokenizer_;
  Span<const TextPart> parts_;
  size_t part_ = 0;
  size_t offset_ = 0;    // into parts_[part_].text
  size_t boundary_ = 0;  // where the plain run of the current part ends
  bool boundary_known_ = false;
  bool section_done_ = false;
  bool prefix_pending_ = false;
  int segment_size_ = 0;
  uint32_t segment_[kMaxSegment + kMaxDecomposition] = {};  // decomposed; a starter and what follows it
};

}  // namespace acorn
