// A folder of Hugging Face's by anybody: refused, or all that its configuration names can be read. An input is a part for each file:
// config.json, generation_config.json, the index, and two shards.
#include "tests/fuzz/safetensors_mutator.h"
#include "tests/fuzz/scratch.h"
#include "tests/fuzz/source_checks.h"

namespace {

constexpr const char *kFiles[] = {"config.json", "generation_config.json", "model.safetensors.index.json", "model.safetensors",
                                  "other.safetensors"};
constexpr size_t kFirstShard = 3;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace acorn::compiler;
  using namespace acorn::fuzz;
  InputReader input(data, size);
  for (const char *name : kFiles) TheScratch().Write(name, input.Part());
  EndsWell([] { ReadEverything(*OpenSourceModel(TheScratch().path())); });
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
  using namespace acorn::fuzz;
  Chooser chooser(seed);
  InputReader input(data, size);
  std::string files[std::size(kFiles)], changed;
  for (std::string &file : files) file = input.Part();
  const size_t which = chooser.OneIn(2) ? 0 : chooser.Below(std::size(kFiles));
  std::string &file = files[which];
  const size_t longest = std::max(file.size() + 1024, file.size() * 2);
  if (which < kFirstShard) {
    ChangeJson(&chooser, &file, longest);
  } else {
    ChangeSafetensors(&chooser, &file, longest);
  }
  for (const std::string &part : files) PutPart(&changed, part);
  if (changed.size() > max_size) return size;
  std::copy(changed.begin(), changed.end(), data);
  return changed.size();
}
