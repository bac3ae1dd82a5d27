// A tokenizer.json with its tokenizer_config.json by anybody: refused, or a tokenizer that the runtime takes and that does what any
// must. An input is a part for each of the two, then a text.
#include "tests/fuzz/json_mutator.h"
#include "tests/fuzz/scratch.h"
#include "tests/fuzz/source_checks.h"
#include "tests/fuzz/text_checks.h"
#include "text/source_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace acorn::compiler;
  using namespace acorn::fuzz;
  InputReader input(data, size);
  const std::string json = TheScratch().Write("tokenizer.json", input.Part());
  const std::string_view config_text = input.Part();
  const std::string config = TheScratch().Write("tokenizer_config.json", config_text);
  EndsWell([&] {
    const SourceTokenizer source(ReadTokenizerJson(json, config_text.empty() ? "" : config, "", {}));
    acorn::EncodeOptions options;
    options.markup = options.bos = true;
    const std::string_view text = input.rest().substr(0, 10000);
    DecodeAll(source.get(), EncodeAll(source.get(), text, {}), {});
    DecodeAll(source.get(), EncodeAll(source.get(), text, options), {});
    RenderAll(source.get(), {{acorn::ChatRole::kUser, Chars(text)}}, {});
  });
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
  using namespace acorn::fuzz;
  Chooser chooser(seed);
  InputReader input(data, size);
  std::string json(input.Part()), config(input.Part()), text(input.rest()), changed;
  switch (chooser.Below(8)) {
    case 0: ChangeJson(&chooser, &config, config.size() + 1024); break;
    case 1: ChangeText(&text, std::max<size_t>(text.size(), 256)); break;
    default: ChangeJson(&chooser, &json, json.size() * 2 + 1024); break;
  }
  PutPart(&changed, json);
  PutPart(&changed, config);
  changed += text;
  if (changed.size() > max_size) return size;
  std::copy(changed.begin(), changed.end(), data);
  return changed.size();
}
