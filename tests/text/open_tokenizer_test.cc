// The verifier of tokenizer segments: what it refuses, and that nothing it accepts can lead outside.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>

#include "tests/support/guarded_buffer.h"
#include "tests/support/opened_tokenizer.h"
#include "tests/support/shared_data.h"

namespace acorn::test {
namespace {

namespace layout = tokenizer_layout;

std::vector<uint8_t> SmallSegment() {
  compiler::TokenizerModel model = compiler::ReadTokenizerJson(DataPath("text/tokenizer.json"), "", "", {});
  model.flags |= layout::kFlagWholePiece;
  model.jinja =
      "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}{% else %}"
      "<|assistant|>{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}";
  model.bos_id = model.eos_id = 0;
  compiler::FinishTokenizer(&model, {}, "small");
  EXPECT_EQ(model.chat.shape, "plain");
  return compiler::BuildTokenizerSegment(model);
}

layout::Header &HeaderOf(std::vector<uint8_t> &segment) { return *reinterpret_cast<layout::Header *>(segment.data()); }

template <typename T>
T *TableOf(std::vector<uint8_t> &segment, const layout::Table &table) {
  return reinterpret_cast<T *>(segment.data() + table.offset);
}

Status Open(const std::vector<uint8_t> &segment, TokenizerFault *fault) {
  Tokenizer tokenizer;
  return OpenTokenizer(&tokenizer, Span<const uint8_t>(segment.data(), segment.size()), fault);
}

TEST(Open, AcceptsWhatTheCompilerWrites) {
  TokenizerFault fault;
  std::vector<uint8_t> segment = SmallSegment();
  EXPECT_EQ(Open(segment, &fault), Status::kOk);
  segment.resize(segment.size() + 4096);  // a segment of the file may be padded
  EXPECT_EQ(Open(segment, &fault), Status::kOk);
}

TEST(Open, RefusesEachBrokenRule) {
  using Break = std::function<void(std::vector<uint8_t> &)>;
  struct Case {
    const char *name;
    Break change;
    Status status;
    uint32_t table;
  };
  constexpr uint32_t kHeader = TokenizerFault::kHeader;
  const std::vector<Case> cases = {
      {"magic", [](auto &s) { HeaderOf(s).magic ^= 1; }, Status::kForeign, kHeader},
      {"version", [](auto &s) { HeaderOf(s).version = 9; }, Status::kVersion, kHeader},
      {"size", [](auto &s) { HeaderOf(s).segment_bytes += 8; }, Status::kTruncated, kHeader},
      {"flags", [](auto &s) { HeaderOf(s).flags |= 1u << 30; }, Status::kInvalid, kHeader},
      {"symbols", [](auto &s) { HeaderOf(s).symbols = 2; }, Status::kInvalid, kHeader},
      {"merge_rule", [](auto &s) { HeaderOf(s).merge_rule = 2; }, Status::kInvalid, kHeader},
      {"ranks_by_bytes", [](auto &s) { HeaderOf(s).merge_rule = 1; }, Status::kInvalid, kHeader},
      {"pre_tokenizer", [](auto &s) { HeaderOf(s).pre_tokenizer = 6; }, Status::kInvalid, kHeader},
      {"normalizer", [](auto &s) { HeaderOf(s).normalizer = 3; }, Status::kInvalid, kHeader},
      {"dummy_prefix", [](auto &s) { HeaderOf(s).dummy_prefix = 3; }, Status::kInvalid, kHeader},
      {"no_tokens", [](auto &s) { HeaderOf(s).vocab_size = 0; }, Status::kInvalid, kHeader},
      {"many_tokens", [](auto &s) { HeaderOf(s).vocab_size = 0xFFFFFFFF; }, Status::kInvalid, kHeader},
      {"bos", [](auto &s) { HeaderOf(s).bos_id = static_cast<int32_t>(HeaderOf(s).vocab_size); }, Status::kInvalid, kHeader},
      {"unk", [](auto &s) { HeaderOf(s).unk_id = -2; }, Status::kInvalid, kHeader},
      {"starts_count", [](auto &s) { --HeaderOf(s).token_starts.count; }, Status::kInvalid, 0},
      {"starts_offset", [](auto &s) { HeaderOf(s).token_starts.offset = 0xFFFFFFF8; }, Status::kInvalid, 0},
      {"starts_misaligned", [](auto &s) { HeaderOf(s).token_starts.offset += 4; }, Status::kInvalid, 0},
      {"starts_in_header", [](auto &s) { HeaderOf(s).token_starts.offset = 8; }, Status::kInvalid, 0},
      {"starts_descend", [](auto &s) { TableOf<uint32_t>(s, HeaderOf(s).token_starts)[5] = 0; }, Status::kInvalid, 0},
      {"starts_end", [](auto &s) { --HeaderOf(s).token_text.count; }, Status::kInvalid, 0},
      {"long_token", [](auto &s) { HeaderOf(s).max_token_bytes = 1; }, Status::kInvalid, 0},
      {"text_past_end", [](auto &s) { HeaderOf(s).token_text.count = 0x7FFFFFFF; }, Status::kInvalid, 1},
      {"byte_ids", [](auto &s) { TableOf<int32_t>(s, HeaderOf(s).byte_ids)[255] = -5; }, Status::kInvalid, 2},
      {"merge_id", [](auto &s) { TableOf<uint64_t>(s, HeaderOf(s).merges)[3] = ~uint64_t{0}; }, Status::kInvalid, 3},
      {"merges_count", [](auto &s) { HeaderOf(s).merges.count = 0x20000000; }, Status::kInvalid, 3},
      {"merge_slot", [](auto &s) { TableOf<uint32_t>(s, HeaderOf(s).merge_slots)[0] = 0x1FFFFE; }, Status::kInvalid, 4},
      {"no_merge_slots", [](auto &s) { HeaderOf(s).merge_slots.count = 0; }, Status::kInvalid, 4},
      {"ranks", [](auto &s) { HeaderOf(s).ranks.count = 1; }, Status::kInvalid, 5},
      {"text_slot", [](auto &s) { TableOf<uint32_t>(s, HeaderOf(s).text_slots)[0] = 0x1FFFFE; }, Status::kInvalid, 6},
      {"special_id", [](auto &s) { TableOf<layout::Special>(s, HeaderOf(s).specials)[0].id = 1u << 20; }, Status::kInvalid, 7},
      {"special_flags", [](auto &s) { TableOf<layout::Special>(s, HeaderOf(s).specials)[1].flags = 64; }, Status::kInvalid, 7},
      {"special_order", [](auto &s) { TableOf<layout::Special>(s, HeaderOf(s).specials)[1].id = 0; }, Status::kInvalid, 7},
      {"chat_count", [](auto &s) { HeaderOf(s).chat_sections.count = 3; }, Status::kInvalid, 8},
      {"chat_ops", [](auto &s) { TableOf<layout::Table>(s, HeaderOf(s).chat_sections)[0].count = 300; }, Status::kInvalid, 8},
      {"chat_op_kind",
       [](auto &s) {
         const layout::Table &user = TableOf<layout::Table>(s, HeaderOf(s).chat_sections)[3];
         TableOf<layout::ChatOp>(s, user)[0].kind = 6;
       },
       Status::kInvalid, 8},
      {"chat_token",
       [](auto &s) {
         const layout::Table &user = TableOf<layout::Table>(s, HeaderOf(s).chat_sections)[3];
         TableOf<layout::ChatOp>(s, user)[0].a = 1u << 20;
       },
       Status::kInvalid, 8},
      {"chat_system_elsewhere",
       [](auto &s) {
         const layout::Table &user = TableOf<layout::Table>(s, HeaderOf(s).chat_sections)[3];
         TableOf<layout::ChatOp>(s, user)[1].kind = 4;
       },
       Status::kInvalid, 8},
  };
  for (const Case &broken : cases) {
    std::vector<uint8_t> segment = SmallSegment();
    broken.change(segment);
    TokenizerFault fault;
    EXPECT_EQ(Open(segment, &fault), broken.status) << broken.name;
    EXPECT_EQ(fault.table, broken.table) << broken.name;
  }
}

TEST(Open, RefusesATruncatedOrMisalignedSegment) {
  const std::vector<uint8_t> segment = SmallSegment();
  for (size_t bytes = 0; bytes < segment.size(); bytes += 1 + bytes / 7) {
    TokenizerFault fault;
    EXPECT_EQ(Open(std::vector<uint8_t>(segment.begin(), segment.begin() + static_cast<std::ptrdiff_t>(bytes)), &fault),
              bytes == 0 ? Status::kArgument : Status::kTruncated)
        << bytes;
  }
  std::vector<uint8_t> shifted(segment.size() + 1);
  std::memcpy(shifted.data() + 1, segment.data(), segment.size());
  Tokenizer tokenizer;
  EXPECT_EQ(OpenTokenizer(&tokenizer, Span<const uint8_t>(shifted.data() + 1, segment.size())), Status::kArgument);
}

// Damage at random places: whatever is still accepted encodes, decodes and renders inside its buffers.
TEST(Open, DamagedSegmentsStayInside) {
  const std::vector<uint8_t> good = SmallSegment();
  std::mt19937 random(6);
  const std::string text = "turn off the <|user|> lamp in the kitchen e\xCC\x81  12";
  int accepted = 0;
  for (int i = 0; i < 4000; ++i) {
    GuardedBuffer<uint64_t> segment(good.size() / 8);
    uint8_t *bytes = reinterpret_cast<uint8_t *>(segment.data());
    std::memcpy(bytes, good.data(), good.size());
    const int changes = 1 + static_cast<int>(random() % 4);
    for (int j = 0; j < changes; ++j) {
      const size_t limit = random() % 2 == 0 ? sizeof(layout::Header) : good.size();
      bytes[random() % limit] = static_cast<uint8_t>(random());
    }
    Tokenizer tokenizer;
    if (OpenTokenizer(&tokenizer, Span<const uint8_t>(bytes, good.size())) != Status::kOk) continue;
    ++accepted;
    std::vector<int32_t> ids(4096);
    std::vector<uint8_t> work(kMaxEncodeWorkBytes);
    size_t count = 0;
    EncodeOptions options;
    options.markup = true;
    ASSERT_EQ(Encode(tokenizer, OpenedTokenizer::Chars(text), options, Span<int32_t>(ids.data(), ids.size()), &count,
                     Span<uint8_t>(work.data(), work.size())),
              Status::kOk);
    Detokenizer state;
    std::vector<char> out(MaxAppendBytes(tokenizer));
    size_t written = 0;
    for (size_t j = 0; j < count; ++j) {
      ASSERT_EQ(Append(tokenizer, &state, ids[j], Span<char>(out.data(), out.size()), &written), Status::kOk);
    }
    ChatMessage message;
    message.content = OpenedTokenizer::Chars(text);
    const Status status = RenderChat(tokenizer, Span<const ChatMessage>(&message, 1), {}, Span<int32_t>(ids.data(), ids.size()),
                                     &count, Span<uint8_t>(work.data(), work.size()));
    ASSERT_TRUE(status == Status::kOk || status == Status::kText) << static_cast<uint32_t>(status);
  }
  EXPECT_GT(accepted, 100);
}

}  // namespace
}  // namespace acorn::test
