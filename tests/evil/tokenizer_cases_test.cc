// The tokenizer's segment: tables that lead outside, and tables that are legal and mean no good.
#include <string>

#include "acorn_schema/tokenizer_layout.h"
#include "tests/evil/evil_file.h"

namespace acorn::test {
namespace {

namespace layout = tokenizer_layout;

/// A vocabulary of 256 bytes, then `merged` texts, then `markup`, then <s>. As FORMAT_TOKENIZER.md.
struct Words {
  struct Merge {
    uint32_t left, right, result;
  };
  std::vector<std::string> merged = {"ab", "abc"};
  std::vector<Merge> merges = {{'a', 'b', 256}, {256, 'c', 257}};
  std::vector<std::string> markup;  // special tokens before <s>
};

class TokenizerWriter {
 public:
  explicit TokenizerWriter(const Words &words) {
    std::vector<std::string> texts;
    for (int byte = 0; byte < 256; ++byte) texts.emplace_back(1, static_cast<char>(byte));
    texts.insert(texts.end(), words.merged.begin(), words.merged.end());
    const size_t first_special = texts.size();
    texts.insert(texts.end(), words.markup.begin(), words.markup.end());
    texts.emplace_back("<s>");
    header_.magic = layout::kMagic;
    header_.vocab_size = static_cast<uint32_t>(texts.size());
    header_.max_token_bytes = 16;
    for (const std::string &text : words.markup) header_.max_token_bytes = static_cast<uint32_t>(text.size());
    header_.bos_id = header_.eos_id = static_cast<int32_t>(texts.size() - 1);
    header_.unk_id = header_.pad_id = -1;
    bytes_.resize(sizeof header_);
    std::vector<uint32_t> starts = {0}, no_text(4, layout::kEmptySlot);
    std::vector<uint8_t> text;
    for (const std::string &word : texts) {
      text.insert(text.end(), word.begin(), word.end());
      starts.push_back(static_cast<uint32_t>(text.size()));
    }
    std::vector<int32_t> byte_ids(256);
    for (int byte = 0; byte < 256; ++byte) byte_ids[static_cast<size_t>(byte)] = byte;
    std::vector<uint64_t> merges;
    const uint32_t slots = layout::SlotCount(static_cast<uint32_t>(words.merges.size()));
    std::vector<uint32_t> merge_slots(slots, layout::kEmptySlot);
    for (const Words::Merge &merge : words.merges) {
      const uint64_t hash = layout::HashPair(merge.left, merge.right);
      uint32_t slot = layout::HomeSlot(hash, slots);
      while (merge_slots[slot] != layout::kEmptySlot) slot = (slot + 1) % slots;
      merge_slots[slot] = layout::PackSlot(hash, static_cast<uint32_t>(merges.size()));
      merges.push_back(layout::PackMerge(merge.left, merge.right, merge.result));
    }
    std::vector<layout::Special> specials;
    for (size_t id = first_special; id + 1 < texts.size(); ++id) {
      specials.push_back({static_cast<uint32_t>(id), layout::kSpecialMarkup});
    }
    specials.push_back(
        {static_cast<uint32_t>(texts.size() - 1), layout::kSpecialHidden | layout::kSpecialMarkup | layout::kSpecialStop});
    const std::vector<layout::ChatOp> user = {{static_cast<uint32_t>(layout::ChatOpKind::kContent), 0, 0},
                                              {static_cast<uint32_t>(layout::ChatOpKind::kText), 0, 4}};
    header_.token_starts = Add(starts);
    header_.token_text = Add(text);
    header_.byte_ids = Add(byte_ids);
    header_.merges = Add(merges);
    header_.merge_slots = Add(merge_slots);
    header_.ranks = Add(std::vector<uint32_t>());
    header_.text_slots = Add(no_text);
    header_.specials = Add(specials);
    const layout::Table ops = Add(user), none = {ops.offset, 0};
    std::vector<layout::Table> sections(layout::kChatSections, none);
    sections[static_cast<size_t>(layout::ChatSection::kUser)] = ops;
    header_.chat_sections = Add(sections);
    header_.chat_text = Add(std::vector<uint8_t>(8, '\n'));
    header_.segment_bytes = static_cast<uint32_t>(bytes_.size());
    std::memcpy(bytes_.data(), &header_, sizeof header_);
  }
  const Bytes &bytes() const { return bytes_; }

 private:
  template <typename T>
  layout::Table Add(const std::vector<T> &table) {
    const layout::Table place = {static_cast<uint32_t>(bytes_.size()), static_cast<uint32_t>(table.size())};
    bytes_.resize((bytes_.size() + table.size() * sizeof(T) + 7) / 8 * 8);
    if (!table.empty()) std::memcpy(bytes_.data() + place.offset, table.data(), table.size() * sizeof(T));
    return place;
  }

  layout::Header header_ = {};
  Bytes bytes_;
};

ModelSpec SpecWith(const Bytes &tokenizer) {
  ModelSpec spec;
  spec.name = "talking";
  spec.vocab_size = 300;
  spec.tokenizer = tokenizer;
  return spec;
}

layout::Header &HeaderOf(Bytes &segment) { return *reinterpret_cast<layout::Header *>(segment.data()); }
template <typename T>
T &Entry(Bytes &segment, const layout::Table &table, size_t index) {
  return reinterpret_cast<T *>(segment.data() + table.offset)[index];
}

struct Row {
  const char *name;
  uint64_t table, index;
  std::function<void(Bytes &, layout::Header &)> harm;
  acorn_status status = ACORN_ERR_INVALID;
};

constexpr uint64_t kHeader = UINT32_MAX;
enum : uint64_t { kStarts, kText, kByteIds, kMerges, kMergeSlots, kRanks, kTextSlots, kSpecials, kSections, kChatText };

void ExpectAllRefused(const std::vector<Row> &rows) {
  const Bytes healthy = TokenizerWriter(Words()).bytes();
  const AlignedBytes file = BuildModel(SpecWith(healthy));
  ExpectOpens("unharmed", file);
  const schema::ModelT model = *GraphOf(file);
  const schema::Segment &place = model.segments[model.tokenizer_segment];
  for (const Row &row : rows) {
    Bytes segment = healthy;
    row.harm(segment, HeaderOf(segment));
    AlignedBytes bad = file;
    std::copy(segment.begin(), segment.end(), bad.data() + place.offset());
    Reseal(&bad);
    ExpectRefused(std::string("tokenizer, ") + row.name, BytesOf(bad), {row.status, "tokenizer", row.table, row.index});
  }
}

TEST(EvilTokenizer, Header) {
  using H = layout::Header;
  ExpectAllRefused({
      {"magic", kHeader, 0, [](auto &, H &h) { h.magic ^= 1; }, ACORN_ERR_FOREIGN},
      {"version", kHeader, 0, [](auto &, H &h) { h.version = 1; }, ACORN_ERR_VERSION},
      {"version 2^32 - 1", kHeader, 0, [](auto &, H &h) { h.version = UINT32_MAX; }, ACORN_ERR_VERSION},
      {"longer than its segment", kHeader, 0, [](auto &, H &h) { h.segment_bytes += 8; }, ACORN_ERR_TRUNCATED},
      {"2^32 - 1 bytes long", kHeader, 0, [](auto &, H &h) { h.segment_bytes = UINT32_MAX; }, ACORN_ERR_TRUNCATED},
      {"shorter than its header", kStarts, 260, [](auto &, H &h) { h.segment_bytes = 8; }},
      {"unknown flags", kHeader, 0, [](auto &, H &h) { h.flags |= 8; }},
      {"symbols", kHeader, 0, [](auto &, H &h) { h.symbols = 2; }},
      {"symbols 2^32 - 1", kHeader, 0, [](auto &, H &h) { h.symbols = UINT32_MAX; }},
      {"merge rule", kHeader, 0, [](auto &, H &h) { h.merge_rule = 2; }},
      {"ranks of bytes", kHeader, 2, [](auto &, H &h) { h.merge_rule = 1; }},
      {"pre-tokenizer", kHeader, 0, [](auto &, H &h) { h.pre_tokenizer = 6; }},
      {"normalizer", kHeader, 0, [](auto &, H &h) { h.normalizer = 3; }},
      {"dummy prefix", kHeader, 0, [](auto &, H &h) { h.dummy_prefix = 3; }},
      {"no tokens", kHeader, 0, [](auto &, H &h) { h.vocab_size = 0; }},
      {"2^31 tokens", kHeader, 0, [](auto &, H &h) { h.vocab_size = 1u << 31; }},
      {"2^32 - 1 tokens", kHeader, 0, [](auto &, H &h) { h.vocab_size = UINT32_MAX; }},
      {"tokens longer than any", kHeader, 0, [](auto &, H &h) { h.max_token_bytes = 4097; }},
      {"tokens of 2^32 - 1 bytes", kHeader, 0, [](auto &, H &h) { h.max_token_bytes = UINT32_MAX; }},
      {"reserved", kHeader, 0, [](auto &, H &h) { h.reserved = 1; }},
      // CVE-2025-52566: a signed comparison that a negative number passes.
      {"bos -2", kHeader, 1, [](auto &, H &h) { h.bos_id = -2; }},
      {"eos -2^31", kHeader, 1, [](auto &, H &h) { h.eos_id = INT32_MIN; }},
      {"unk after the last", kHeader, 1, [](auto &, H &h) { h.unk_id = 259; }},
      {"pad 2^31 - 1", kHeader, 1, [](auto &, H &h) { h.pad_id = INT32_MAX; }},
  });
}

TEST(EvilTokenizer, Places) {
  using H = layout::Header;
  struct Place {
    const char *name;
    uint64_t table;
    layout::Table H::*member;
    bool counts;  // that its count may be anything
  };
  const std::vector<Place> places = {
      {"token starts", kStarts, &H::token_starts, false}, {"token text", kText, &H::token_text, true},
      {"byte ids", kByteIds, &H::byte_ids, false},        {"merges", kMerges, &H::merges, true},
      {"merge slots", kMergeSlots, &H::merge_slots, true}, {"ranks", kRanks, &H::ranks, false},
      {"text slots", kTextSlots, &H::text_slots, true},   {"specials", kSpecials, &H::specials, true},
      {"chat sections", kSections, &H::chat_sections, false}, {"chat text", kChatText, &H::chat_text, true},
  };
  const H good = *reinterpret_cast<const H *>(TokenizerWriter(Words()).bytes().data());
  for (const Place &place : places) {
    std::vector<std::string> names;
    std::vector<Row> rows;
    names.reserve(32);
    const auto add = [&](const std::string &how, uint64_t index, const std::function<void(layout::Table &)> &harm) {
      names.push_back(std::string(place.name) + " " + how);
      rows.push_back({names.back().c_str(), place.table, index, [=](Bytes &, H &h) { harm(h.*place.member); }});
    };
    const uint32_t count = (good.*place.member).count;
    add("askew", count, [](auto &t) { t.offset += 4; });
    add("in the header", count, [](auto &t) { t.offset = 136; });
    add("at 2^31", count, [](auto &t) { t.offset = 1u << 31; });
    add("at 2^32 - 8", count, [](auto &t) { t.offset = UINT32_MAX - 7; });
    for (const uint32_t other : {1u << 29, 1u << 31, UINT32_MAX}) {
      add("of " + std::to_string(other), other, [=](auto &t) { t.count = other; });
    }
    if (!place.counts) add("of one more", count + 1, [](auto &t) { ++t.count; });
    ExpectAllRefused(rows);
  }
}

TEST(EvilTokenizer, Entries) {
  using H = layout::Header;
  const auto starts = [](size_t index, uint32_t value) {
    return [=](Bytes &s, H &h) { Entry<uint32_t>(s, h.token_starts, index) = value; };
  };
  const auto byte_id = [](size_t index, int32_t value) {
    return [=](Bytes &s, H &h) { Entry<int32_t>(s, h.byte_ids, index) = value; };
  };
  const auto merge = [](uint32_t left, uint32_t right, uint32_t result) {
    return [=](Bytes &s, H &h) { Entry<uint64_t>(s, h.merges, 1) = layout::PackMerge(left, right, result); };
  };
  const auto special = [](uint32_t id, uint32_t flags) {
    return [=](Bytes &s, H &h) { Entry<layout::Special>(s, h.specials, 0) = {id, flags}; };
  };
  ExpectAllRefused({
      // CVE-2025-49847: the length of a token, cast to a narrower type. CVE-2020-15214: an order that is believed.
      {"token starts that fall", kStarts, 9, starts(10, 5)},
      {"a token of 2^31 bytes", kStarts, 99, starts(100, 0x80000063u)},
      {"a token that ends at 2^32 - 1", kStarts, 99, starts(100, UINT32_MAX)},
      {"a token longer than the longest", kStarts, 256, starts(257, 256 + 17)},
      {"text before the first token", kStarts, 0, starts(0, 1)},
      {"text behind the last token", kStarts, 259, [](Bytes &, H &h) { ++h.token_text.count; }},
      {"a last token past the text", kStarts, 259, [](Bytes &, H &h) { --h.token_text.count; }},
      // CVE-2020-15212: indices that say where is written to.
      {"byte id -2", kByteIds, 0, byte_id(0, -2)},
      {"byte id after the last", kByteIds, 255, byte_id(255, 259)},
      {"byte id -2^31", kByteIds, 128, byte_id(128, INT32_MIN)},
      {"byte id 2^31 - 1", kByteIds, 1, byte_id(1, INT32_MAX)},
      {"a merge of a token after the last", kMerges, 1, merge(259, 'c', 257)},
      {"a merge with the last id there can be", kMerges, 1, merge(256, layout::kIdMask, 257)},
      {"a merge to a token after the last", kMerges, 1, merge(256, 'c', 259)},
      {"a merge of all bits", kMerges, 0, [](Bytes &s, H &h) { Entry<uint64_t>(s, h.merges, 0) = UINT64_MAX; }},
      {"a slot of a merge after the last", kMergeSlots, 1, [](Bytes &s, H &h) { Entry<uint32_t>(s, h.merge_slots, 1) = 2; }},
      {"a slot of a text after the last", kTextSlots, 3, [](Bytes &s, H &h) { Entry<uint32_t>(s, h.text_slots, 3) = 259; }},
      {"no merge slots", kMergeSlots, 0, [](Bytes &, H &h) { h.merge_slots.count = 0; }},
      {"a special after the last token", kSpecials, 0, special(259, 0)},
      {"a special of 2^32 - 1", kSpecials, 0, special(UINT32_MAX, 0)},
      {"a special of unknown flags", kSpecials, 0, special(258, 8)},
      {"one special twice", kSpecials, 1,
       [](Bytes &s, H &h) {
         h.specials.count = 2;  // what lies behind is the first operation: id 2
         Entry<layout::Special>(s, h.specials, 1) = {258, 0};
       }},
      {"markup without a text", kSpecials, 0,
       [](Bytes &s, H &h) {
         Entry<uint32_t>(s, h.token_starts, 258) = h.token_text.count;
         Entry<uint32_t>(s, h.token_starts, 257) = h.token_text.count - 4;
       }},
  });
}

// Each place of a text with markup is compared with all of them.
TEST(EvilTokenizer, MoreMarkupThanThereMayBe) {
  Words words;
  words.markup.assign(16, std::string(4095, 'a'));
  ExpectOpens("markup of 64 KiB less 13 bytes", BuildModel(SpecWith(TokenizerWriter(words).bytes())));
  words.markup.assign(16, std::string(4096, 'a'));
  ExpectRefused("markup of 64 KiB and 3 bytes", BytesOf(BuildModel(SpecWith(TokenizerWriter(words).bytes()))),
                {ACORN_ERR_INVALID, "tokenizer", kSpecials, 16});
}

// CVE-2024-34359: a template that is a program. Here it is a list of at most 256 operations, each checked.
TEST(EvilTokenizer, ChatTemplates) {
  using H = layout::Header;
  const auto section = [](size_t index, uint32_t offset, uint32_t count) {
    return [=](Bytes &s, H &h) {
      auto &table = Entry<layout::Table>(s, h.chat_sections, index);
      table = {table.offset + offset, count};
    };
  };
  const auto op = [](uint32_t kind, uint32_t a, uint32_t b) {
    return [=](Bytes &s, H &h) { Entry<layout::ChatOp>(s, Entry<layout::Table>(s, h.chat_sections, 3), 1) = {kind, a, b}; };
  };
  ExpectAllRefused({
      {"257 operations", kSections, 0, section(0, 0, 257)},
      {"2^32 - 1 operations", kSections, 7, section(7, 0, UINT32_MAX)},
      {"operations askew", kSections, 2, section(3, 4, 2)},
      {"operations behind the end", kSections, 2, section(3, 1u << 30, 2)},
      {"operation 6", kSections, 3, op(6, 0, 0)},
      {"operation 2^32 - 1", kSections, 3, op(UINT32_MAX, 0, 0)},
      {"a token after the last", kSections, 3, op(0, 259, 0)},
      {"token 2^32 - 1", kSections, 3, op(0, UINT32_MAX, 0)},
      {"a text past the end", kSections, 3, op(1, 5, 4)},
      {"a text whose end wraps around", kSections, 3, op(1, UINT32_MAX - 3, 8)},
      {"a text of 2^32 - 1", kSections, 3, op(1, 0, UINT32_MAX)},
      {"a system message in a user's turn", kSections, 3, op(4, 0, 0)},
      {"a trimmed system message in a user's turn", kSections, 3, op(5, 0, 0)},
  });
}

TEST(EvilTokenizer, CutAtEveryTable) {
  const Bytes healthy = TokenizerWriter(Words()).bytes();
  for (size_t bytes = 0; bytes < healthy.size(); bytes += bytes < sizeof(layout::Header) ? 13 : 199) {
    const Bytes cut(healthy.begin(), healthy.begin() + static_cast<std::ptrdiff_t>(bytes));
    if (bytes == 0) continue;  // no tokenizer at all, for the one who builds the file
    ExpectRefused("a tokenizer of " + std::to_string(bytes) + " bytes", BytesOf(BuildModel(SpecWith(cut))),
                  {ACORN_ERR_TRUNCATED, "tokenizer", kHeader, 0});
  }
}

TEST(EvilTokenizer, MoreTokensThanTheModelHas) {
  ModelSpec spec = SpecWith(TokenizerWriter(Words()).bytes());
  spec.vocab_size = 258;
  ExpectRefused("a tokenizer of 259 tokens for a model of 258", BytesOf(BuildModel(spec)), {ACORN_ERR_INVALID, "tokenizer", 259, 0});
}

std::vector<int32_t> Encoded(acorn_model *model, const std::string &text) {
  std::vector<int32_t> ids(2 * text.size() + 16);
  size_t count = 0;
  EXPECT_EQ(acorn_tokenize(model, ids.data(), ids.size(), &count, text.data(), text.size(), 0), static_cast<acorn_status>(ACORN_OK));
  ids.resize(count);
  return ids;
}

// Merges that lead in circles are legal: each takes a symbol away, so that any text comes to an end.
TEST(EvilTokenizer, MergesInCircles) {
  Words words;
  words.merged = {"x", "y"};
  words.merges = {{'a', 'a', 'a'}, {'a', 'b', 256}, {256, 'a', 257}, {257, 'b', 'a'}, {257, 257, 256}};
  ModelSession session(BuildModel(SpecWith(TokenizerWriter(words).bytes())));
  ASSERT_EQ(session.status(), static_cast<acorn_status>(ACORN_OK));
  EXPECT_EQ(Encoded(session.model(), std::string(20000, 'a')).size(), 5u);  // pieces of 4,096 bytes
  std::string text;
  while (text.size() < 20000) text += "ab";
  const std::vector<int32_t> ids = Encoded(session.model(), text);
  EXPECT_LE(ids.size(), text.size());
  for (const int32_t id : ids) EXPECT_TRUE(id >= 0 && id < 259) << id;
}

bool IsUtf8(const std::string &text) {
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<uint8_t>(text[i]);
    const size_t more = byte < 0x80 ? 0 : byte < 0xc2 ? 9 : byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : byte < 0xf5 ? 3 : 9;
    if (more == 9 || i + more >= text.size()) return false;
    for (size_t k = 1; k <= more; ++k) {
      if ((static_cast<uint8_t>(text[i + k]) & 0xc0) != 0x80) return false;
    }
    i += more + 1;
  }
  return true;
}

// Tokens that are no characters, or parts of none: what a session gives out is UTF-8 all the same.
TEST(EvilTokenizer, TokensThatAreNoText) {
  Words words;
  words.merged.clear();
  words.merges.clear();
  for (int i = 0; i < 40; ++i) words.merged.push_back(i % 3 == 0 ? "\xff\xfe" : i % 3 == 1 ? "\xed\xa0\x80" : "\xf4\x90\x80\x80\xc0");
  ModelSession session(BuildModel(SpecWith(TokenizerWriter(words).bytes())));
  ASSERT_EQ(session.status(), static_cast<acorn_status>(ACORN_OK));
  for (uint64_t seed = 0; seed < 4; ++seed) {
    acorn_session_reset(session.session());
    const std::vector<int32_t> prompt = {'h', 'i', 256, 257, 258};
    ASSERT_EQ(acorn_session_prefill(session.session(), prompt.data(), prompt.size()), static_cast<acorn_status>(ACORN_OK));
    std::string text;
    acorn_generation generation = {};
    generation.struct_size = sizeof generation;
    generation.sampling.struct_size = sizeof generation.sampling;
    generation.sampling.temperature_q16 = 8 << 16;
    generation.sampling.seed = seed;
    generation.ctx = &text;
    generation.callback = [](void *ctx, int32_t, const char *bytes, size_t count) {
      static_cast<std::string *>(ctx)->append(bytes, count);
      return 0;
    };
    uint32_t reason = 0;
    size_t count = 0;
    const acorn_status status = acorn_session_generate(session.session(), &reason, &count, &generation);
    // A model may answer with an id that its tokenizer does not know.
    EXPECT_TRUE(status == ACORN_OK || status == ACORN_ERR_TOKEN) << acorn_status_text(status);
    EXPECT_TRUE(IsUtf8(text)) << seed;
  }
}

}  // namespace
}  // namespace acorn::test
