// The verifier of tokenizer segments. Every rule of FORMAT_TOKENIZER.md that memory safety or termination rests on is
// checked here, once; the rest of runtime/text relies on it.
#include "base/checked.h"
#include "text/tokenizer.h"

namespace acorn {
namespace {

namespace layout = tokenizer_layout;

// Header tables in their order, for faults.
enum TableIndex : uint32_t {
  kTokenStarts,
  kTokenText,
  kByteIds,
  kMerges,
  kMergeSlots,
  kRanks,
  kTextSlots,
  kSpecials,
  kChatSections,
  kChatText,
};

class Verifier {
 public:
  Verifier(Span<const uint8_t> segment, TokenizerFault *fault) : segment_(segment), fault_(fault) {}

  Status Run(Tokenizer *out) {
    if (segment_.data() == nullptr || reinterpret_cast<uintptr_t>(segment_.data()) % layout::kTableAlignment != 0) {
      return Status::kArgument;
    }
    if (segment_.size() < sizeof(layout::Header)) return Status::kTruncated;
    header_ = reinterpret_cast<const layout::Header *>(segment_.data());
    if (header_->magic != layout::kMagic) return Status::kForeign;
    if (header_->version != layout::kVersion) return Status::kVersion;
    if (header_->segment_bytes > segment_.size()) return Status::kTruncated;
    ACORN_TRY(CheckHeader());
    ACORN_TRY(CheckTables());
    ACORN_TRY(CheckTokens(out));
    ACORN_TRY(CheckMerges(out));
    ACORN_TRY(CheckSpecials(out));
    ACORN_TRY(CheckChat(out));
    out->header = header_;
    return Status::kOk;
  }

 private:
  Status Fail(uint32_t table, uint64_t index) {
    fault_->table = table;
    fault_->index = static_cast<uint32_t>(index);
    return Status::kInvalid;
  }
  template <typename T>
  const T *At(const layout::Table &table) const {
    return reinterpret_cast<const T *>(segment_.data() + table.offset);
  }
  bool IsToken(uint32_t id) const { return id < header_->vocab_size; }
  bool IsTokenOrNone(int32_t id) const { return id == -1 || (id >= 0 && IsToken(static_cast<uint32_t>(id))); }

  Status CheckHeader() {
    const layout::Header &h = *header_;
    constexpr uint32_t kKnownFlags = layout::kFlagAddBos | layout::kFlagAddEos | layout::kFlagWholePiece;
    const bool good = (h.flags & ~kKnownFlags) == 0 && h.symbols <= static_cast<uint32_t>(layout::Symbols::kCharacters) &&
                      h.merge_rule <= static_cast<uint32_t>(layout::MergeRule::kRanks) &&
                      h.pre_tokenizer <= static_cast<uint32_t>(layout::PreTokenizer::kSpaceRuns) &&
                      h.normalizer <= static_cast<uint32_t>(layout::Normalizer::kMetaspace) &&
                      h.dummy_prefix <= static_cast<uint32_t>(layout::DummyPrefix::kEvery) && h.vocab_size >= 1 &&
                      h.vocab_size <= layout::kMaxVocabulary && h.max_token_bytes <= layout::kMaxTokenBytes && h.reserved == 0;
    if (!good) return Fail(TokenizerFault::kHeader, 0);
    if (!IsTokenOrNone(h.bos_id) || !IsTokenOrNone(h.eos_id) || !IsTokenOrNone(h.unk_id) || !IsTokenOrNone(h.pad_id)) {
      return Fail(TokenizerFault::kHeader, 1);
    }
    // Dropped bytes would leave holes in the text that ranks are looked up by.
    if (h.merge_rule == static_cast<uint32_t>(layout::MergeRule::kRanks) &&
        h.symbols != static_cast<uint32_t>(layout::Symbols::kCharacters)) {
      return Fail(TokenizerFault::kHeader, 2);
    }
    return Status::kOk;
  }

  Status CheckTable(uint32_t index, const layout::Table &table, uint64_t element_bytes, uint64_t min_count,
                    uint64_t max_count) {
    if (table.count < min_count || table.count > max_count || table.offset % layout::kTableAlignment != 0 ||
        table.offset < sizeof(layout::Header) ||
        !RangeInside(table.offset, table.count * element_bytes, header_->segment_bytes)) {
      return Fail(index, table.count);
    }
    return Status::kOk;
  }

  Status CheckTables() {
    const layout::Header &h = *header_;
    const bool ranks = h.merge_rule == static_cast<uint32_t>(layout::MergeRule::kRanks);
    constexpr uint64_t kAny = UINT32_MAX;
    const uint64_t vocab = h.vocab_size;
    ACORN_TRY(CheckTable(kTokenStarts, h.token_starts, 4, vocab + 1, vocab + 1));
    ACORN_TRY(CheckTable(kTokenText, h.token_text, 1, 0, kAny));
    ACORN_TRY(CheckTable(kByteIds, h.byte_ids, 4, 256, 256));
    ACORN_TRY(CheckTable(kMerges, h.merges, 8, 0, ranks ? 0 : layout::kMaxMerges));
    ACORN_TRY(CheckTable(kMergeSlots, h.merge_slots, 4, ranks ? 0 : 1, ranks ? 0 : kAny));
    ACORN_TRY(CheckTable(kRanks, h.ranks, 4, ranks ? vocab : 0, ranks ? vocab : 0));
    ACORN_TRY(CheckTable(kTextSlots, h.text_slots, 4, ranks ? 1 : 0, kAny));
    ACORN_TRY(CheckTable(kSpecials, h.specials, sizeof(layout::Special), 0, layout::kMaxSpecials));
    if (h.chat_sections.count != 0) {
      ACORN_TRY(
          CheckTable(kChatSections, h.chat_sections, sizeof(layout::Table), layout::kChatSections, layout::kChatSections));
    }
    return CheckTable(kChatText, h.chat_text, 1, 0, kAny);
  }

  Status CheckTokens(Tokenizer *out) {
    const layout::Header &h = *header_;
    const uint32_t *starts = At<uint32_t>(h.token_starts);
    if (starts[0] != 0) return Fail(kTokenStarts, 0);
    for (uint32_t id = 0; id < h.vocab_size; ++id) {
      if (starts[id + 1] < starts[id] || starts[id + 1] - starts[id] > h.max_token_bytes) return Fail(kTokenStarts, id);
    }
    if (starts[h.vocab_size] != h.token_text.count) return Fail(kTokenStarts, h.vocab_size);
    const int32_t *byte_ids = At<int32_t>(h.byte_ids);
    for (uint32_t byte = 0; byte < 256; ++byte) {
      if (!IsTokenOrNone(byte_ids[byte])) return Fail(kByteIds, byte);
    }
    const Span<const uint32_t> text_slots(At<uint32_t>(h.text_slots), h.text_slots.count);
    for (size_t i = 0; i < text_slots.size(); ++i) {
      if (text_slots[i] != layout::kEmptySlot && !IsToken(layout::SlotIndex(text_slots[i]))) return Fail(kTextSlots, i);
    }
    out->token_starts = starts;
    out->token_text = At<uint8_t>(h.token_text);
    out->byte_ids = byte_ids;
    out->text_slots = text_slots;
    return Status::kOk;
  }

  Status CheckMerges(Tokenizer *out) {
    const layout::Header &h = *header_;
    const Span<const uint64_t> merges(At<uint64_t>(h.merges), h.merges.count);
    for (size_t i = 0; i < merges.size(); ++i) {
      const bool good = IsToken(layout::MergeLeft(merges[i])) && IsToken(layout::MergeRight(merges[i])) &&
                        IsToken(layout::MergeResult(merges[i]));
      if (!good) return Fail(kMerges, i);
    }
    const Span<const uint32_t> slots(At<uint32_t>(h.merge_slots), h.merge_slots.count);
    for (size_t i = 0; i < slots.size(); ++i) {
      if (slots[i] != layout::kEmptySlot && layout::SlotIndex(slots[i]) >= merges.size()) return Fail(kMergeSlots, i);
    }
    out->merges = merges;
    out->merge_slots = slots;
    out->ranks = h.ranks.count != 0 ? At<uint32_t>(h.ranks) : nullptr;  // any value is a rank
    return Status::kOk;
  }

  Status CheckSpecials(Tokenizer *out) {
    const layout::Header &h = *header_;
    constexpr uint32_t kKnownFlags = layout::kSpecialHidden | layout::kSpecialMarkup | layout::kSpecialStop;
    const Span<const layout::Special> specials(At<layout::Special>(h.specials), h.specials.count);
    for (uint8_t &bits : out->markup_first) bits = 0;
    uint32_t markup_bytes = 0;
    for (size_t i = 0; i < specials.size(); ++i) {
      const layout::Special &special = specials[i];
      if (!IsToken(special.id) || (special.flags & ~kKnownFlags) != 0) return Fail(kSpecials, i);
      if (i > 0 && special.id <= specials[i - 1].id) return Fail(kSpecials, i);
      if ((special.flags & layout::kSpecialMarkup) == 0) continue;
      const uint32_t start = out->token_starts[special.id];
      const uint32_t bytes = out->token_starts[special.id + 1] - start;  // at most kMaxTokenBytes
      markup_bytes += bytes;
      if (bytes == 0 || markup_bytes > layout::kMaxMarkupBytes) return Fail(kSpecials, i);
      const uint8_t first = out->token_text[start];
      out->markup_first[first >> 3] = static_cast<uint8_t>(out->markup_first[first >> 3] | 1u << (first & 7));
    }
    out->specials = specials;
    return Status::kOk;
  }

  // Which contents an operation of a section may name.
  static bool IsLegal(uint32_t section, layout::ChatOpKind kind) {
    using layout::ChatSection;
    switch (kind) {
      case layout::ChatOpKind::kToken:
      case layout::ChatOpKind::kText:
        return true;
      case layout::ChatOpKind::kContent:
      case layout::ChatOpKind::kContentTrimmed:
        return section == static_cast<uint32_t>(ChatSection::kSystem) || section == static_cast<uint32_t>(ChatSection::kUser) ||
               section == static_cast<uint32_t>(ChatSection::kUserWithSystem) ||
               section == static_cast<uint32_t>(ChatSection::kAssistant);
      case layout::ChatOpKind::kSystem:
      case layout::ChatOpKind::kSystemTrimmed:
        return section == static_cast<uint32_t>(ChatSection::kUserWithSystem);
    }
    return false;
  }

  Status CheckChat(Tokenizer *out) {
    const layout::Header &h = *header_;
    out->chat_sections = nullptr;
    out->chat_text = nullptr;
    if (h.chat_sections.count == 0) return Status::kOk;
    const layout::Table *sections = At<layout::Table>(h.chat_sections);
    uint64_t total = 0;
    for (uint32_t section = 0; section < layout::kChatSections; ++section) {
      total += sections[section].count;
      if (total > layout::kMaxChatOps) return Fail(kChatSections, section);
      ACORN_TRY(CheckTable(kChatSections, sections[section], sizeof(layout::ChatOp), 0, layout::kMaxChatOps));
      const layout::ChatOp *ops = At<layout::ChatOp>(sections[section]);
      for (uint32_t i = 0; i < sections[section].count; ++i) {
        const auto kind = static_cast<layout::ChatOpKind>(ops[i].kind);
        bool good = IsLegal(section, kind);
        if (kind == layout::ChatOpKind::kToken) good = IsToken(ops[i].a);
        if (kind == layout::ChatOpKind::kText) good = RangeInside(ops[i].a, ops[i].b, h.chat_text.count);
        if (!good) return Fail(kChatSections, section);
      }
    }
    out->chat_sections = sections;
    out->chat_text = At<uint8_t>(h.chat_text);
    return Status::kOk;
  }

  Span<const uint8_t> segment_;
  TokenizerFault *fault_;
  const layout::Header *header_ = nullptr;
};

}  // namespace

Status OpenTokenizer(Tokenizer *out, Span<const uint8_t> segment, TokenizerFault *fault) {
  *fault = TokenizerFault();
  Tokenizer tokenizer;
  ACORN_TRY(Verifier(segment, fault).Run(&tokenizer));
  *out = tokenizer;
  return Status::kOk;
}

Status OpenTokenizer(Tokenizer *out, Span<const uint8_t> segment) {
  TokenizerFault fault;
  return OpenTokenizer(out, segment, &fault);
}

}  // namespace acorn
