// A tokenizer.model of SentencePiece, or a tokenizer.bin of llama2.c, by anybody: refused, or a tokenizer that the runtime takes and
// that does what any must. An input is a byte that says which of the two, then the file.
#include "tests/fuzz/json_mutator.h"
#include "tests/fuzz/scratch.h"
#include "tests/fuzz/source_checks.h"
#include "tests/fuzz/text_checks.h"
#include "text/source_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace acorn::compiler;
  using namespace acorn::fuzz;
  InputReader input(data, size);
  const bool is_llama2c = input.Number(1) % 2 != 0;
  if (input.rest().empty()) return 0;
  const std::string path = TheScratch().Write("tokenizer", input.rest());
  EndsWell([&] {
    const SourceTokenizer source(is_llama2c ? ReadLlama2cTokenizer(path, {}) : ReadSentencePieceModel(path, "", {}));
    acorn::EncodeOptions options;
    options.markup = options.bos = true;
    const std::string_view text = "Hello <s> w\xc3\xb6rld 12  \xe2\x96\x81the";
    DecodeAll(source.get(), EncodeAll(source.get(), text, {}), {});
    DecodeAll(source.get(), EncodeAll(source.get(), text, options), {});
  });
  return 0;
}

/// Half of the changes keep the lengths that stand before each piece right, because they keep its size.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
  acorn::fuzz::Chooser chooser(seed);
  if (size < 8 || chooser.OneIn(2)) return LLVMFuzzerMutate(data, size, max_size);
  for (uint64_t i = 0; i <= chooser.Below(4); ++i) {
    const size_t bytes = size_t{1} << chooser.Below(3);
    chooser.ChangeNumber(data + chooser.Below(size - bytes + 1), bytes);
  }
  return size;
}
