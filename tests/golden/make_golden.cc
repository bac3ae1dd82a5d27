// Writes the golden file of the present format version and what it must give:
//   acorn_make_golden FOLDER      (schema/golden)
// Run once for each format version; afterwards the files never change. Lines of v<version>.digests:
//   logits DIGEST ID...           of every position's logits, by the reference
//   plain DIGEST TEXT, chat …     of the text's ids, as acorn_tokenize gives them
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "acorn_schema/file.h"
#include "tests/golden/golden_spec.h"
#include "tests/reference/reference_model.h"
#include "tests/support/model_session.h"

namespace {

using acorn::reference::Digest;

constexpr const char *kTexts[] = {"turn on the lamp in the kitchen, please",
                                  "12 eggs \xE2\x80\x94 <|user|> na\xC3\xAFve\n\n  end"};

std::string Hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016" PRIx64, value);
  return text;
}

// One line a text; line breaks in it are written as \n.
std::string TextLine(acorn_model *model, const std::string &text, uint32_t flags) {
  std::vector<int32_t> ids(512);
  size_t count = 0;
  if (acorn_tokenize(model, ids.data(), ids.size(), &count, text.data(), text.size(), flags) != ACORN_OK) return "";
  std::string line = (flags & ACORN_TEXT_CHAT) != 0 ? "chat " : "plain ";
  line += Hex(Digest(ids.data(), count)) + " ";
  for (const char c : text) line += c == '\n' ? std::string("\\n") : std::string(1, c);
  return line;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: acorn_make_golden FOLDER\n");
    return 2;
  }
  const std::string base = std::string(argv[1]) + "/v" + std::to_string(acorn::kFileVersion);
  const acorn::test::AlignedBytes file = acorn::test::BuildModel(acorn::test::GoldenSpec());
  if (!acorn::test::WriteModel(file, base + ".acorn")) {
    std::fprintf(stderr, "acorn_make_golden: cannot write %s.acorn\n", base.c_str());
    return 5;
  }
  const acorn::reference::ReferenceModel model(std::vector<uint8_t>(file.data(), file.data() + file.size()));
  acorn::test::ModelSession session(file);
  std::ofstream out(base + ".digests");
  acorn::test::Random random(99);
  for (const size_t count : {1u, 7u, 32u}) {
    std::vector<int32_t> tokens(count);
    for (int32_t &token : tokens) token = static_cast<int32_t>(random.Between(0, model.vocab_size() - 1));
    const std::vector<int32_t> logits = model.Logits(tokens);
    out << "logits " << Hex(Digest(logits.data(), logits.size()));
    for (const int32_t token : tokens) out << ' ' << token;
    out << '\n';
  }
  for (const char *text : kTexts) {
    out << TextLine(session.model(), text, 0) << '\n' << TextLine(session.model(), text, ACORN_TEXT_CHAT) << '\n';
  }
  return out.flush() ? 0 : 5;
}
