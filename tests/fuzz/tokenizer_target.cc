// A tokenizer segment by anybody, and any text. An input is a part, the text, then the segment.
#include "acorn_schema/tokenizer_layout.h"
#include "tests/fuzz/text_checks.h"

namespace acorn::fuzz {
namespace {

namespace layout = tokenizer_layout;

void RunTokenizer(const Tokenizer &tokenizer, std::string_view text) {
  Ids ids;
  for (const bool markup : {false, true}) {
    EncodeOptions options;
    options.markup = options.bos = markup;
    options.continues = text.size() % 2 != 0;
    ids = EncodeAll(tokenizer, text, options);
    Detokenizer state;
    state.at_start = !options.continues;
    state.show_specials = markup;
    DecodeAll(tokenizer, ids, state);
  }
  // Any ids, not only those that a text becomes.
  for (const char byte : text) ids.push_back(static_cast<int32_t>(static_cast<uint8_t>(byte) * 7919u % VocabSize(tokenizer)));
  DecodeAll(tokenizer, ids, {});
  const std::string_view first = text.substr(0, text.size() / 2), second = text.substr(first.size());
  const std::vector<ChatMessage> messages = {
      {ChatRole::kSystem, Chars(first)}, {ChatRole::kUser, Chars(second)}, {ChatRole::kAssistant, Chars(first)}};
  for (size_t begin = 0; begin < messages.size(); ++begin) {
    ChatOptions options;
    options.place = static_cast<ChatPlace>(begin);
    const auto from = messages.begin() + static_cast<int64_t>(begin);
    RenderAll(tokenizer, std::vector<ChatMessage>(begin == 2 ? messages.begin() + 1 : from, messages.end()), options);
  }
  RenderAll(tokenizer, messages, {});
}

struct Place {
  layout::Table layout::Header::*table;
  size_t element_bytes;
};
constexpr Place kPlaces[] = {
    {&layout::Header::token_starts, 4}, {&layout::Header::token_text, 1}, {&layout::Header::byte_ids, 4},
    {&layout::Header::merges, 8},       {&layout::Header::merge_slots, 4}, {&layout::Header::ranks, 4},
    {&layout::Header::text_slots, 4},   {&layout::Header::specials, 4},    {&layout::Header::chat_sections, 4},
    {&layout::Header::chat_text, 1},
};

/// A number of the header, or of one of the tables that it names.
void ChangeSegment(Chooser *chooser, uint8_t *segment, size_t size) {
  layout::Header header;
  std::memcpy(&header, segment, sizeof header);
  if (chooser->OneIn(4)) {
    chooser->ChangeNumber(segment + 12 + 4 * chooser->Below((sizeof header - 12) / 4), 4);  // behind magic, version and size
    return;
  }
  const Place &place = kPlaces[chooser->Below(std::size(kPlaces))];
  layout::Table table = header.*place.table;
  size_t element_bytes = place.element_bytes;
  if (place.table == &layout::Header::chat_sections && chooser->OneIn(2) && table.count != 0 && table.offset <= size - 64) {
    // An operation of a section.
    std::memcpy(&table, segment + table.offset + 8 * chooser->Below(8), sizeof table);
    table.count *= 3;
  }
  if (table.count == 0 || table.offset > size || element_bytes > size - table.offset) return;
  const uint64_t count = std::min<uint64_t>(table.count, (size - table.offset) / element_bytes);
  chooser->ChangeNumber(segment + table.offset + chooser->Below(count) * element_bytes, element_bytes);
}

}  // namespace
}  // namespace acorn::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace acorn;
  using namespace acorn::fuzz;
  InputReader input(data, size);
  const std::string_view text = input.Part(), rest = input.rest();
  const ExactBytes segment(reinterpret_cast<const uint8_t *>(rest.data()), rest.size(), 8);
  Tokenizer tokenizer;
  TokenizerFault fault;
  if (OpenTokenizer(&tokenizer, Span<const uint8_t>(segment.data(), segment.size()), &fault) != Status::kOk) {
    Require(tokenizer.header == nullptr, "a refused segment leaves no tokenizer");
    return 0;
  }
  RunTokenizer(tokenizer, text.substr(0, 20000));
  return 0;
}

/// The text by libFuzzer's changes, the segment by its fields: its length is kept, and its magic, version and size are right.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
  using namespace acorn::fuzz;
  Chooser chooser(seed);
  InputReader input(data, size);
  std::string text(input.Part()), segment(input.rest());
  if (segment.size() < sizeof(layout::Header) || chooser.OneIn(32)) return LLVMFuzzerMutate(data, size, max_size);
  if (chooser.OneIn(2)) {
    constexpr size_t kLongestText = 9000;  // two pieces and a part of one
    const size_t text_size = std::min(text.size(), kLongestText);
    text.resize(kLongestText);
    text.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t *>(text.data()), text_size, kLongestText));
  } else {
    for (uint64_t i = 0; i <= chooser.Below(3); ++i) {
      ChangeSegment(&chooser, reinterpret_cast<uint8_t *>(segment.data()), segment.size());
    }
  }
  std::string changed;
  PutPart(&changed, text);
  changed += segment;
  if (changed.size() > max_size) return size;
  std::copy(changed.begin(), changed.end(), data);
  return changed.size();
}
