#include "text/piece_encoder.h"

#include "text/token_tables.h"
#include "text/unicode.h"

namespace acorn {
namespace {

// Up to this many symbols a scan of all pairs for each merge is faster than a heap.
constexpr uint32_t kScanLimit = 24;

}  // namespace

void PieceEncoder::Encode(const uint8_t *text, size_t bytes, IdSink *sink) {
  if (bytes == 0) return;
  if ((tokenizer_.header->flags & tokenizer_layout::kFlagWholePiece) != 0) {
    const uint32_t id = FindText(tokenizer_, text, bytes);
    if (id != kNoIndex) {
      sink->Put(static_cast<int32_t>(id));
      return;
    }
  }
  text_ = text;
  bytes_ = bytes;
  Split();
  if (count_ == 0) return;
  if (count_ <= kScanLimit) {
    MergeByScan();
  } else {
    MergeByHeap();
  }
  for (uint32_t i = 0; i != kNone; i = symbols_[i].next) {
    if (symbols_[i].id != kNoIndex) {
      sink->Put(static_cast<int32_t>(symbols_[i].id));
    } else {
      EmitFallback(symbols_[i], sink);
    }
  }
}

void PieceEncoder::Split() {
  const bool by_bytes = tokenizer_.header->symbols == static_cast<uint32_t>(tokenizer_layout::Symbols::kBytes);
  count_ = 0;
  for (size_t start = 0; start < bytes_;) {
    size_t length = 1;
    uint32_t id;
    if (by_bytes) {
      int32_t byte_id = tokenizer_.byte_ids[text_[start]];
      if (byte_id < 0) byte_id = tokenizer_.header->unk_id;
      if (byte_id < 0) {  // a byte without a token is dropped; its neighbours become neighbours
        ++start;
        continue;
      }
      id = static_cast<uint32_t>(byte_id);
    } else {
      DecodeUtf8(text_ + start, bytes_ - start, &length);
      id = FindText(tokenizer_, text_ + start, length);
    }
    symbols_[count_] = {id,
                        kNoIndex,
                        static_cast<uint16_t>(count_ - 1),
                        static_cast<uint16_t>(count_ + 1),
                        static_cast<uint16_t>(start),
                        static_cast<uint16_t>(length),
                        kNone};
    ++count_;
    start += length;
  }
  if (count_ == 0) return;
  symbols_[0].previous = kNone;
  symbols_[count_ - 1].next = kNone;
  for (uint32_t i = 0; i < count_; ++i) SetRank(static_cast<uint16_t>(i));
}

void PieceEncoder::SetRank(uint16_t index) {
  Symbol &symbol = symbols_[index];
  symbol.rank = kNoIndex;
  if (symbol.next == kNone) return;
  const Symbol &next = symbols_[symbol.next];
  if (tokenizer_.header->merge_rule == static_cast<uint32_t>(tokenizer_layout::MergeRule::kPairs)) {
    if (symbol.id != kNoIndex && next.id != kNoIndex) symbol.rank = FindMerge(tokenizer_, symbol.id, next.id);
    return;
  }
  const uint32_t id = FindText(tokenizer_, text_ + symbol.start, size_t{symbol.bytes} + next.bytes);
  if (id != kNoIndex) symbol.rank = tokenizer_.ranks[id];
}

// Joins `left` with its next symbol. The ranks of the pairs around it are the caller's to renew.
void PieceEncoder::Merge(uint16_t left) {
  Symbol &symbol = symbols_[left];
  const Symbol &next = symbols_[symbol.next];
  if (tokenizer_.header->merge_rule == static_cast<uint32_t>(tokenizer_layout::MergeRule::kPairs)) {
    symbol.id = tokenizer_layout::MergeResult(tokenizer_.merges[symbol.rank]);
  } else {
    symbol.id = FindText(tokenizer_, text_ + symbol.start, size_t{symbol.bytes} + next.bytes);
  }
  symbol.bytes = static_cast<uint16_t>(symbol.bytes + next.bytes);
  symbol.next = next.next;
  if (symbol.next != kNone) symbols_[symbol.next].previous = left;
}

void PieceEncoder::MergeByScan() {
  for (;;) {
    uint16_t best = kNone;
    uint32_t best_rank = kNoIndex;
    for (uint16_t i = 0; i != kNone; i = symbols_[i].next) {
      if (symbols_[i].rank < best_rank) {
        best_rank = symbols_[i].rank;
        best = i;
      }
    }
    if (best == kNone) return;
    Merge(best);
    SetRank(best);
    if (symbols_[best].previous != kNone) SetRank(symbols_[best].previous);
  }
}

bool PieceEncoder::Before(uint16_t a, uint16_t b) const {
  return symbols_[a].rank < symbols_[b].rank || (symbols_[a].rank == symbols_[b].rank && a < b);
}

void PieceEncoder::SiftUp(uint32_t slot) {
  const uint16_t symbol = heap_[slot];
  while (slot > 0) {
    const uint32_t parent = (slot - 1) / 2;
    if (!Before(symbol, heap_[parent])) break;
    heap_[slot] = heap_[parent];
    symbols_[heap_[slot]].heap_slot = static_cast<uint16_t>(slot);
    slot = parent;
  }
  heap_[slot] = symbol;
  symbols_[symbol].heap_slot = static_cast<uint16_t>(slot);
}

void PieceEncoder::SiftDown(uint32_t slot) {
  const uint16_t symbol = heap_[slot];
  for (;;) {
    uint32_t child = slot * 2 + 1;
    if (child >= heap_size_) break;
    if (child + 1 < heap_size_ && Before(heap_[child + 1], heap_[child])) ++child;
    if (!Before(heap_[child], symbol)) break;
    heap_[slot] = heap_[child];
    symbols_[heap_[slot]].heap_slot = static_cast<uint16_t>(slot);
    slot = child;
  }
  heap_[slot] = symbol;
  symbols_[symbol].heap_slot = static_cast<uint16_t>(slot);
}

// Brings the heap in line with the symbol's rank: enters, moves or removes its pair.
void PieceEncoder::Update(uint16_t index) {
  Symbol &symbol = symbols_[index];
  const uint16_t slot = symbol.heap_slot;
  if (slot == kNone) {
    if (symbol.rank == kNoIndex) return;
    heap_[heap_size_] = index;
    SiftUp(heap_size_++);
    return;
  }
  if (symbol.rank != kNoIndex) {
    SiftUp(slot);
    SiftDown(symbol.heap_slot);
    return;
  }
  symbol.heap_slot = kNone;
  const uint16_t last = heap_[--heap_size_];
  if (slot == heap_size_) return;
  heap_[slot] = last;
  SiftUp(slot);
  SiftDown(symbols_[last].heap_slot);
}

void PieceEncoder::MergeByHeap() {
  heap_size_ = 0;
  for (uint32_t i = 0; i < count_; ++i) {
    if (symbols_[i].rank == kNoIndex) continue;
    symbols_[i].heap_slot = static_cast<uint16_t>(heap_size_);
    heap_[heap_size_++] = static_cast<uint16_t>(i);
  }
  for (uint32_t slot = heap_size_ / 2; slot > 0; --slot) SiftDown(slot - 1);
  while (heap_size_ > 0) {
    const uint16_t best = heap_[0];
    const uint16_t gone = symbols_[best].next;
    Merge(best);
    symbols_[gone].rank = kNoIndex;
    Update(gone);
    SetRank(best);
    Update(best);
    const uint16_t previous = symbols_[best].previous;
    if (previous != kNone) {
      SetRank(previous);
      Update(previous);
    }
  }
}

// Text that is no token: its bytes, or the unknown token where a byte has none.
void PieceEncoder::EmitFallback(const Symbol &symbol, IdSink *sink) const {
  const uint8_t *text = text_ + symbol.start;
  for (uint32_t i = 0; i < symbol.bytes; ++i) {
    if (tokenizer_.byte_ids[text[i]] >= 0) continue;
    if (tokenizer_.header->unk_id >= 0) sink->Put(tokenizer_.header->unk_id);
    return;
  }
  for (uint32_t i = 0; i < symbol.bytes; ++i) sink->Put(tokenizer_.byte_ids[text[i]]);
}

}  // namespace acorn
