// PieceEncoder: byte-pair encoding of one pre-token, for both kinds of symbols and both merge rules.
//   symbols = bytes or characters;  while some neighbours can merge: merge the pair of the lowest rank, leftmost first
// O(n log n) with a heap of the pairs. For runtime/text only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "text/tokenizer.h"

namespace acorn {

/// Where ids go: counts on when `out` is full, so that the caller learns the need.
struct IdSink {
  Span<int32_t> out;
  size_t count = 0;
  void Put(int32_t id) {
    if (count < out.size()) out[count] = id;
    ++count;
  }
};

class PieceEncoder {
 public:
  /// Bytes and alignment of the buffer for pieces of up to `piece_bytes` bytes.
  static constexpr size_t WorkBytes(size_t piece_bytes) { return piece_bytes * (sizeof(Symbol) + sizeof(uint16_t)); }

  /// work holds WorkBytes(piece_bytes), aligned to 8;  piece_bytes <= kMaxPieceBytes
  PieceEncoder(const Tokenizer &tokenizer, uint8_t *work, size_t piece_bytes)
      : tokenizer_(tokenizer),
        symbols_(reinterpret_cast<Symbol *>(work)),
        heap_(reinterpret_cast<uint16_t *>(work + piece_bytes * sizeof(Symbol))) {}

  void Encode(const uint8_t *text, size_t bytes, IdSink *sink);

 private:
  static constexpr uint16_t kNone = 0xFFFF;

  struct Symbol {
    uint32_t id;              // kNoIndex: not a token
    uint32_t rank;            // of the pair with the next symbol; kNoIndex: no merge
    uint16_t previous, next;  // kNone: none
    uint16_t start, bytes;    // in the piece
    uint16_t heap_slot;       // of the pair with the next symbol; kNone: not in the heap
  };

  void Split();
  void SetRank(uint16_t symbol);
  void Merge(uint16_t left);
  void MergeByScan();
  void MergeByHeap();
  bool Before(uint16_t a, uint16_t b) const;
  void SiftUp(uint32_t slot);
  void SiftDown(uint32_t slot);
  void Update(uint16_t symbol);
  void EmitFallback(const Symbol &symbol, IdSink *sink) const;

  const Tokenizer &tokenizer_;
  Symbol *symbols_;
  uint16_t *heap_;
  const uint8_t *text_ = nullptr;
  size_t bytes_ = 0;
  uint32_t count_ = 0;  // symbols at the start
  uint32_t heap_size_ = 0;
};

}  // namespace acorn
