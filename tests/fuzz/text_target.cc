// Any text through sound tokenizers of every kind: nothing of it is lost, and where it is cut into parts changes no id. An input is a
// byte for the kind, a byte for the cut, then the text.
#include "tests/fuzz/sound_tokenizers.h"

namespace acorn::fuzz {
namespace {

/// What the bytes of a text's tokens are, where nothing is composed.
std::string Normalised(const TokenizerKind &kind, std::string_view text) {
  std::string result = text.empty() || kind.prefix == tokenizer_layout::DummyPrefix::kNone ? "" : " ";
  for (size_t i = 0; i < text.size();) {
    const bool is_space = kind.characters && text.substr(i, 3) == "\xe2\x96\x81";
    result += is_space ? ' ' : text[i];
    i += is_space ? 3 : 1;
  }
  return result;
}

void RunText(uint64_t bits, uint64_t cut, std::string_view text) {
  const TokenizerKind kind(bits);
  const Tokenizer &tokenizer = TokenizerOf(bits);
  const Ids ids = EncodeAll(tokenizer, text, {});
  if (!kind.nfc) {
    const std::string whole = Normalised(kind, text);
    Require(BytesOf(tokenizer, ids) == whole, "no byte of a text is lost");
    Detokenizer state;
    state.at_start = 1;
    const std::string decoded = DecodeAll(tokenizer, ids, state);
    // One leading space is taken away, the prefix; what else is UTF-8 comes back as it was.
    const size_t prefix = whole.size() - Normalised(TokenizerKind(bits & 31), text).size();
    if (IsUtf8(text)) Require(decoded == whole.substr(prefix), "a text comes back as it went in");
  } else if (IsUtf8(text)) {
    Require(IsUtf8(BytesOf(tokenizer, ids)), "what is composed is UTF-8");
  }
  // Without a token between them parts are one text. U+2581 and code points are read within a part.
  const size_t at = text.size() * cut / 256;
  if (!kind.characters && !kind.nfc) {
    const ExactText first(text.substr(0, at)), second(text.substr(at));
    TextPart parts[2];
    parts[0].text = Chars(first.get());
    parts[1].text = Chars(second.get());
    const size_t most = MaxTokens(tokenizer, text.size());
    const Ids joined = RunEncoder(tokenizer, most, EncodeWorkBytes(tokenizer, text.size()), [&](auto out, size_t *count, auto work) {
      Require(EncodeParts(tokenizer, Span<const TextPart>(parts, 2), {}, out, count, work) == Status::kOk, "parts are encoded");
    });
    Require(joined == ids, "parts are one text");
  }
  EncodeOptions options;
  options.markup = options.bos = true;
  Detokenizer state;
  state.show_specials = 1;
  DecodeAll(tokenizer, EncodeAll(tokenizer, text, options), state);
}

}  // namespace
}  // namespace acorn::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  acorn::fuzz::InputReader input(data, size);
  const uint64_t bits = input.Number(1), cut = input.Number(1);
  acorn::fuzz::RunText(bits, cut, input.rest());
  return 0;
}
