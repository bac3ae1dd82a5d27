// Writes the golden file of the present format version and its expected digests:
//   acorn_make_golden FOLDER      (schema/golden)
// Run once for each format version; afterwards the files never change.
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "acorn_schema/file.h"
#include "tests/golden/golden_spec.h"
#include "tests/reference/reference_model.h"

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
  std::ofstream out(base + ".digests");
  acorn::test::Random random(99);
  for (const size_t count : {1u, 7u, 32u}) {
    std::vector<int32_t> tokens(count);
    for (int32_t &token : tokens) token = static_cast<int32_t>(random.Between(0, model.vocab_size() - 1));
    const std::vector<int32_t> logits = model.Logits(tokens);
    char digest[17];
    std::snprintf(digest, sizeof digest, "%016" PRIx64, acorn::reference::Digest(logits.data(), logits.size()));
    out << digest;
    for (const int32_t token : tokens) out << ' ' << token;
    out << '\n';
  }
  return out.flush() ? 0 : 5;
}
