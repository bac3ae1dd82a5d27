// A chat template in Jinja by anybody: what acornc makes of it is legal to the runtime, and no message can bring a special token
// along. An input is a part, the template, then a byte for the roles, and a part for each of two messages.
#include "base/error.h"
#include "tests/fuzz/sound_tokenizers.h"

namespace acorn::fuzz {
namespace {

size_t SpecialsIn(const Tokenizer &tokenizer, const Ids &ids) {
  return static_cast<size_t>(
      std::count_if(ids.begin(), ids.end(), [&](int32_t id) { return TokenFlags(tokenizer, id) != 0; }));
}

/// A sound tokenizer with what the known templates name.
compiler::TokenizerModel WithMarkup() {
  compiler::TokenizerModel model = SoundTokenizer(TokenizerKind(0));
  for (const char *text : {"<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>",
                           "<end_of_turn>", "<|system|>", "<|assistant|>"}) {
    compiler::SourceToken token;
    token.text = text;
    token.special_flags = tokenizer_layout::kSpecialHidden | tokenizer_layout::kSpecialMarkup;
    token.findable = false;
    model.tokens.push_back(token);
  }
  return model;
}

compiler::TokenizerModel ModelOf(std::string_view jinja) {
  static const compiler::TokenizerModel base = WithMarkup();
  compiler::TokenizerModel model = base;
  model.jinja = jinja;
  compiler::FinishTokenizer(&model, {}, "input");
  return model;
}

void RunChat(std::string_view jinja, uint64_t roles, std::string_view first, std::string_view second) {
  std::unique_ptr<compiler::SourceTokenizer> source;
  try {
    source = std::make_unique<compiler::SourceTokenizer>(ModelOf(jinja));
  } catch (const compiler::Error &) {
    return;  // more operations than a file holds
  }
  const Tokenizer &tokenizer = source->get();
  const ExactText contents[2] = {ExactText(first), ExactText(second)};
  const auto render = [&](std::string_view a, std::string_view b) {
    const std::vector<ChatMessage> messages = {{static_cast<ChatRole>(roles % 4), Chars(a)},
                                               {static_cast<ChatRole>(roles / 4 % 3), Chars(b)}};
    ChatOptions options;
    options.place = static_cast<ChatPlace>(roles / 16 % 3);
    options.generation_prompt = roles >= 128;
    return RenderAll(tokenizer, messages, options);
  };
  const Ids ids = render(contents[0].get(), contents[1].get());
  DecodeAll(tokenizer, ids, {});
  Require(SpecialsIn(tokenizer, ids) == SpecialsIn(tokenizer, render("a", "b")), "no message brings a special token along");
}

}  // namespace
}  // namespace acorn::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  acorn::fuzz::InputReader input(data, size);
  const std::string_view jinja = input.Part();
  const uint64_t roles = input.Number(1);
  const std::string_view first = input.Part();
  acorn::fuzz::RunChat(jinja, roles, first, input.Part());
  return 0;
}

/// One of the three texts, so that lengths stay right.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
  using namespace acorn::fuzz;
  constexpr size_t kLongest = 4096;
  Chooser chooser(seed);
  InputReader input(data, size);
  std::string parts[3];
  parts[0] = input.Part();
  uint64_t roles = input.Number(1);
  parts[1] = input.Part();
  parts[2] = input.Part();
  std::string &part = parts[chooser.Below(3)];
  const size_t part_size = std::min(part.size(), kLongest);
  part.resize(kLongest);
  part.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t *>(part.data()), part_size, kLongest));
  if (chooser.OneIn(4)) roles = chooser.Below(256);
  std::string changed;
  PutPart(&changed, parts[0]);
  changed.push_back(static_cast<char>(roles));
  PutPart(&changed, parts[1]);
  PutPart(&changed, parts[2]);
  if (changed.size() > max_size) return size;
  std::copy(changed.begin(), changed.end(), data);
  return changed.size();
}
