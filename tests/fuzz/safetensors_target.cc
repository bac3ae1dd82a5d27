// A safetensors file by anybody: refused, or every tensor lies in the file and none upon another. An input is a file.
#include "import/safetensors.h"

#include "tests/fuzz/safetensors_mutator.h"
#include "tests/fuzz/scratch.h"
#include "tests/fuzz/source_checks.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace acorn::compiler;
  using namespace acorn::fuzz;
  const std::string path = TheScratch().Write("model.safetensors", {reinterpret_cast<const char *>(data), size});
  EndsWell([&] {
    const MappedFile file(path);
    for (const auto &[name, entry] : ParseSafetensors(file)) {
      Require(entry.offset_bytes <= file.size() && entry.size_bytes <= file.size() - entry.offset_bytes, "a tensor inside the file");
      EndsWell([&name = name, &entry = entry, &path] { SafetensorsType(entry, name, path); });
    }
  });
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
  acorn::fuzz::Chooser chooser(seed);
  std::string file(reinterpret_cast<const char *>(data), size);
  acorn::fuzz::ChangeSafetensors(&chooser, &file, max_size);
  std::copy(file.begin(), file.end(), data);
  return file.size();
}
