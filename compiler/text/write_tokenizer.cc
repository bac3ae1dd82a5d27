#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "text/tokenizer_model.h"

namespace acorn::compiler {
namespace {

namespace layout = tokenizer_layout;

// Collects the tables behind the header.
class SegmentWriter {
 public:
  SegmentWriter() : bytes_(sizeof(layout::Header)) {}

  template <typename T>
  layout::Table Add(const std::vector<T> &elements) {
    return AddBytes(elements.data(), elements.size() * sizeof(T), elements.size());
  }
  layout::Table AddText(const std::string &text) { return AddBytes(text.data(), text.size(), text.size()); }
  std::vector<uint8_t> Finish(layout::Header header) {
    Align();
    header.segment_bytes = static_cast<uint32_t>(bytes_.size());
    std::memcpy(bytes_.data(), &header, sizeof header);
    return std::move(bytes_);
  }

 private:
  void Align() { bytes_.resize((bytes_.size() + layout::kTableAlignment - 1) & ~size_t{layout::kTableAlignment - 1}); }
  layout::Table AddBytes(const void *data, size_t size, size_t count) {
    Align();
    const size_t offset = bytes_.size();
    if (offset + size > UINT32_MAX / 2) throw Error(ExitCode::kBadModel, "tokenizer: more than 2 GiB of tables");
    const auto *first = static_cast<const uint8_t *>(data);
    if (size > 0) bytes_.insert(bytes_.end(), first, first + size);
    return {static_cast<uint32_t>(offset), static_cast<uint32_t>(count)};
  }

  std::vector<uint8_t> bytes_;
};

// A hash table of slots for hashes[i] -> indices[i], larger than usual where some key would lie too far from its home.
std::vector<uint32_t> BuildSlots(const std::vector<uint64_t> &hashes, const std::vector<uint32_t> &indices) {
  uint32_t slot_count = layout::SlotCount(static_cast<uint32_t>(hashes.size()));
  for (;;) {
    std::vector<uint32_t> slots(slot_count, layout::kEmptySlot);
    bool fits = true;
    for (size_t i = 0; i < hashes.size() && fits; ++i) {
      uint32_t position = layout::HomeSlot(hashes[i], slot_count);
      uint32_t probe = 0;
      for (; probe < layout::kMaxProbes && slots[position] != layout::kEmptySlot; ++probe) {
        if (++position == slot_count) position = 0;
      }
      fits = probe < layout::kMaxProbes;
      if (fits) slots[position] = layout::PackSlot(hashes[i], indices[i]);
    }
    if (fits) return slots;
    slot_count += slot_count / 4;
  }
}

uint64_t HashOf(const std::string &text) {
  return layout::HashText(reinterpret_cast<const uint8_t *>(text.data()), text.size());
}

std::vector<uint32_t> BuildTextSlots(const TokenizerModel &model) {
  std::vector<uint64_t> hashes;
  std::vector<uint32_t> ids;
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    const SourceToken &token = model.tokens[id];
    if (!token.findable || token.text.empty()) continue;
    hashes.push_back(HashOf(token.text));
    ids.push_back(static_cast<uint32_t>(id));
  }
  return BuildSlots(hashes, ids);
}

// The chat sections and their texts; equal texts are stored once.
void AddChat(const CompiledChat &chat, SegmentWriter *writer, layout::Header *header) {
  if (chat.shape.empty()) return;
  std::string text;
  std::vector<layout::Table> sections;
  for (const std::vector<CompiledChatOp> &section : chat.sections) {
    std::vector<layout::ChatOp> ops;
    for (const CompiledChatOp &op : section) {
      layout::ChatOp stored{static_cast<uint32_t>(op.kind), op.token, 0};
      if (op.kind == layout::ChatOpKind::kText) {
        size_t offset = text.find(op.text);
        if (offset == std::string::npos) {
          offset = text.size();
          text += op.text;
        }
        stored.a = static_cast<uint32_t>(offset);
        stored.b = static_cast<uint32_t>(op.text.size());
      }
      ops.push_back(stored);
    }
    sections.push_back(writer->Add(ops));
  }
  header->chat_sections = writer->Add(sections);
  header->chat_text = writer->AddText(text);
}

}  // namespace

std::vector<uint8_t> BuildTokenizerSegment(const TokenizerModel &model) {
  if (model.tokens.empty() || model.tokens.size() > layout::kMaxVocabulary || model.merges.size() > layout::kMaxMerges) {
    throw Error(ExitCode::kBadModel, "tokenizer: " + std::to_string(model.tokens.size()) + " tokens and " +
                                         std::to_string(model.merges.size()) + " merges are more than a model file holds");
  }
  SegmentWriter writer;
  layout::Header header{};
  header.magic = layout::kMagic;
  header.version = layout::kVersion;
  header.flags = model.flags;
  header.symbols = static_cast<uint32_t>(model.symbols);
  header.merge_rule = static_cast<uint32_t>(model.merge_rule);
  header.pre_tokenizer = static_cast<uint32_t>(model.pre_tokenizer);
  header.normalizer = static_cast<uint32_t>(model.normalizer);
  header.dummy_prefix = static_cast<uint32_t>(model.dummy_prefix);
  header.vocab_size = static_cast<uint32_t>(model.tokens.size());
  header.bos_id = model.bos_id;
  header.eos_id = model.eos_id;
  header.unk_id = model.unk_id;
  header.pad_id = model.pad_id;

  const bool ranks = model.merge_rule == layout::MergeRule::kRanks;
  std::vector<uint32_t> starts = {0}, token_ranks;
  std::string text;
  std::vector<layout::Special> specials;
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    const SourceToken &token = model.tokens[id];
    if (token.text.size() > layout::kMaxTokenBytes) {
      throw Error(ExitCode::kBadModel, "tokenizer: token " + std::to_string(id) + " has " + std::to_string(token.text.size()) +
                                           " bytes, more than " + std::to_string(layout::kMaxTokenBytes));
    }
    text += token.text;
    starts.push_back(static_cast<uint32_t>(text.size()));
    header.max_token_bytes = std::max(header.max_token_bytes, static_cast<uint32_t>(token.text.size()));
    if (token.special_flags != 0) specials.push_back({static_cast<uint32_t>(id), token.special_flags});
    if (ranks) token_ranks.push_back(token.rank);
  }
  size_t markup_bytes = 0;
  for (const layout::Special &special : specials) {
    if ((special.flags & layout::kSpecialMarkup) != 0) markup_bytes += starts[special.id + 1] - starts[special.id];
  }
  if (markup_bytes > layout::kMaxMarkupBytes) {
    throw Error(ExitCode::kBadModel, "tokenizer: special tokens with " + std::to_string(markup_bytes) +
                                         " bytes of text, more than " + std::to_string(layout::kMaxMarkupBytes));
  }
  if (specials.size() > layout::kMaxSpecials) {
    throw Error(ExitCode::kBadModel, "tokenizer: " + std::to_string(specials.size()) + " special tokens, more than " +
                                         std::to_string(layout::kMaxSpecials));
  }
  header.token_starts = writer.Add(starts);
  header.token_text = writer.AddText(text);
  header.byte_ids = writer.Add(std::vector<int32_t>(model.byte_ids.begin(), model.byte_ids.end()));

  std::vector<uint64_t> merges, merge_hashes;
  std::vector<uint32_t> merge_ranks;
  for (size_t rank = 0; rank < model.merges.size(); ++rank) {
    const SourceMerge &merge = model.merges[rank];
    merges.push_back(layout::PackMerge(merge.left, merge.right, merge.result));
    merge_hashes.push_back(layout::HashPair(merge.left, merge.right));
    merge_ranks.push_back(static_cast<uint32_t>(rank));
  }
  header.merges = writer.Add(merges);
  header.merge_slots = writer.Add(ranks ? std::vector<uint32_t>() : BuildSlots(merge_hashes, merge_ranks));
  header.ranks = writer.Add(token_ranks);
  const bool needs_text =
      ranks || model.symbols == layout::Symbols::kCharacters || (model.flags & layout::kFlagWholePiece) != 0;
  header.text_slots = writer.Add(needs_text ? BuildTextSlots(model) : std::vector<uint32_t>());
  header.specials = writer.Add(specials);
  header.chat_text = writer.AddText({});
  AddChat(model.chat, &writer, &header);
  return writer.Finish(header);
}

}  // namespace acorn::compiler
