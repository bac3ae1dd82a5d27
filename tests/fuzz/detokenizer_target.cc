// Any ids through sound tokenizers of every kind, as a stream: whole characters in every piece, the same text however it comes, and
// ids outside the vocabulary are refused. An input is a byte for the kind, a byte for the options, then two bytes for each id.
#include "tests/fuzz/sound_tokenizers.h"

namespace acorn::fuzz {
namespace {

using RawIds = std::vector<uint16_t>;
constexpr uint16_t kFirstId = 2;  // what stands for id 0: those below are -2 and -1

/// One of the vocabulary, one beside its ends, a special token (they are the last), or any.
uint16_t SomeId(Chooser *chooser, uint32_t vocab_size) {
  switch (chooser->Below(4)) {
    case 0: return static_cast<uint16_t>(kFirstId + chooser->Below(vocab_size));
    case 1: return static_cast<uint16_t>(kFirstId + vocab_size - 3 + chooser->Below(6));
    case 2: return static_cast<uint16_t>(chooser->Below(2 * kFirstId));
    default: return static_cast<uint16_t>(chooser->Bits());
  }
}

/// The tokens of the bytes of a character, or of its first ones.
RawIds SomeCharacter(Chooser *chooser) {
  constexpr std::string_view kCharacters[] = {"\xc3\xa9",         "\xe2\x96\x81", "\xe4\xbd\xa0",
                                              "\xf0\x9f\x9a\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80"};
  const std::string_view bytes = kCharacters[chooser->Below(std::size(kCharacters))];
  RawIds ids;
  for (const char byte : bytes.substr(0, 1 + chooser->Below(bytes.size()))) {
    ids.push_back(static_cast<uint16_t>(kFirstId + static_cast<uint8_t>(byte)));
  }
  return ids;
}

void ChangeIds(Chooser *chooser, uint32_t vocab_size, RawIds *ids) {
  const auto place = [&](size_t count) { return ids->begin() + static_cast<int64_t>(chooser->Below(count)); };
  const uint64_t change = ids->empty() ? 0 : chooser->Below(7);
  if (change < 2) {
    const RawIds added = change == 0 ? RawIds{SomeId(chooser, vocab_size)} : SomeCharacter(chooser);
    ids->insert(place(ids->size() + 1), added.begin(), added.end());
    return;
  }
  const auto at = place(ids->size()), other = place(ids->size());
  switch (change) {
    case 2: *at = static_cast<uint16_t>(chooser->Number(*at, sizeof *at)); break;
    case 3: *at = SomeId(chooser, vocab_size); break;
    case 4: std::swap(*at, *other); break;
    case 5: ids->erase(std::min(at, other), std::max(at, other) + 1); break;
    default: {
      const RawIds again(std::min(at, other), std::max(at, other) + 1);
      ids->insert(place(ids->size() + 1), again.begin(), again.end());
    }
  }
}

}  // namespace
}  // namespace acorn::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace acorn;
  using namespace acorn::fuzz;
  InputReader input(data, size);
  const Tokenizer &tokenizer = TokenizerOf(input.Number(1));
  const uint64_t options = input.Number(1);
  Detokenizer state;
  state.at_start = options & 1;
  state.show_specials = options >> 1 & 1;
  Ids ids;
  while (!input.rest().empty()) {
    const auto id = static_cast<int32_t>(input.Number(2)) - kFirstId;
    if (id >= 0 && static_cast<uint32_t>(id) < VocabSize(tokenizer)) {
      ids.push_back(id);
      continue;
    }
    char out[64];
    size_t count = 0;
    Detokenizer other = state;
    Require(Append(tokenizer, &other, id, Span<char>(out, sizeof out), &count) == Status::kToken, "an id outside the vocabulary");
  }
  const std::string text = DecodeAll(tokenizer, ids, state);
  Require(IsUtf8(text), "a whole text is UTF-8");
  // A copy of the state anywhere is a place to go on from.
  const ExactBytes buffer(MaxAppendBytes(tokenizer), 8);
  const Span<char> out(reinterpret_cast<char *>(buffer.data()), buffer.size());
  std::string begin;
  const size_t half = ids.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    size_t count = 0;
    Require(Append(tokenizer, &state, ids[i], out, &count) == Status::kOk, "a token of the vocabulary");
    begin.append(out.data(), count);
  }
  const Ids rest(ids.begin() + static_cast<int64_t>(half), ids.end());
  Require(begin + DecodeAll(tokenizer, rest, state) == text, "a stream goes on from a copy of its state");
  return 0;
}

/// Whole ids, within the vocabulary and beyond; seldom the kind and the options.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
  using namespace acorn::fuzz;
  constexpr size_t kHead = 2;
  Chooser chooser(seed);
  if (size < kHead || chooser.OneIn(32)) return LLVMFuzzerMutate(data, size, max_size);
  if (chooser.OneIn(16)) {
    data[chooser.Below(kHead)] = static_cast<uint8_t>(chooser.Bits());
    return size;
  }
  RawIds ids((size - kHead) / sizeof(uint16_t));
  std::copy_n(data + kHead, ids.size() * sizeof(uint16_t), reinterpret_cast<uint8_t *>(ids.data()));
  const uint32_t vocab_size = acorn::VocabSize(TokenizerOf(data[0]));
  for (uint64_t left = 1 + chooser.Below(4); left != 0; --left) ChangeIds(&chooser, vocab_size, &ids);
  ids.resize(std::min(ids.size(), (max_size - kHead) / sizeof(uint16_t)));
  std::copy_n(reinterpret_cast<const uint8_t *>(ids.data()), ids.size() * sizeof(uint16_t), data + kHead);
  return kHead + ids.size() * sizeof(uint16_t);
}
