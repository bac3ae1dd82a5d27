// Any ids through sound tokenizers of every kind, as a stream: whole characters in every piece, the same text however it comes, and
// ids outside the vocabulary are refused. An input is a byte for the kind, a byte for the options, then two bytes for each id.
#include "tests/fuzz/sound_tokenizers.h"

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
    const auto id = static_cast<int32_t>(input.Number(2)) - 2;
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
