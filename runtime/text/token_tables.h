// Look-ups in the hash tables of a verified tokenizer segment. For runtime/text only.
#pragma once

#include "text/tokenizer.h"

namespace acorn {

constexpr uint32_t kNoIndex = 0xFFFFFFFFu;

/// The rank of the merge of two tokens, or kNoIndex.
inline uint32_t FindMerge(const Tokenizer &tokenizer, uint32_t left, uint32_t right) {
  namespace layout = tokenizer_layout;
  const uint32_t slot_count = static_cast<uint32_t>(tokenizer.merge_slots.size());
  const uint64_t hash = layout::HashPair(left, right);
  uint32_t position = layout::HomeSlot(hash, slot_count);
  const uint32_t tag = layout::PackSlot(hash, 0);
  for (uint32_t probe = 0; probe < layout::kMaxProbes; ++probe) {
    const uint32_t slot = tokenizer.merge_slots[position];
    if (slot == layout::kEmptySlot) return kNoIndex;
    if ((slot & ~layout::kIdMask) == tag) {
      const uint64_t merge = tokenizer.merges[layout::SlotIndex(slot)];
      if (layout::MergeLeft(merge) == left && layout::MergeRight(merge) == right) return layout::SlotIndex(slot);
    }
    if (++position == slot_count) position = 0;
  }
  return kNoIndex;
}

/// The token with this text, or kNoIndex. Only tokens that the compiler entered can be found.
inline uint32_t FindText(const Tokenizer &tokenizer, const uint8_t *text, size_t bytes) {
  namespace layout = tokenizer_layout;
  const uint32_t slot_count = static_cast<uint32_t>(tokenizer.text_slots.size());
  if (slot_count == 0 || bytes > tokenizer.header->max_token_bytes) return kNoIndex;
  const uint64_t hash = layout::HashText(text, bytes);
  uint32_t position = layout::HomeSlot(hash, slot_count);
  const uint32_t tag = layout::PackSlot(hash, 0);
  for (uint32_t probe = 0; probe < layout::kMaxProbes; ++probe) {
    const uint32_t slot = tokenizer.text_slots[position];
    if (slot == layout::kEmptySlot) return kNoIndex;
    if ((slot & ~layout::kIdMask) == tag) {
      const uint32_t id = layout::SlotIndex(slot);
      const uint32_t start = tokenizer.token_starts[id];
      if (tokenizer.token_starts[id + 1] - start == bytes && __builtin_memcmp(tokenizer.token_text + start, text, bytes) == 0) {
        return id;
      }
    }
    if (++position == slot_count) position = 0;
  }
  return kNoIndex;
}

/// The longest markup token that `text` starts with, or kNoIndex; *length is its bytes.
uint32_t MatchMarkup(const Tokenizer &tokenizer, const uint8_t *text, size_t bytes, size_t *length);

}  // namespace acorn
