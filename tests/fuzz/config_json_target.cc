// A config.json by anybody: refused, or every size that follows from it is positive. An input is a file.
#include "import/hugging_face_config.h"

#include "tests/fuzz/json_mutator.h"
#include "tests/fuzz/source_checks.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace acorn::compiler;
  using namespace acorn::fuzz;
  EndsWell([&] {
    const ModelConfig config = ParseHuggingFaceConfig({reinterpret_cast<const char *>(data), size}, "config.json");
    Require(config.layers >= 1 && config.hidden >= 1 && config.vocab >= 1, "a model has a size");
    for (int i = 0; i < kTensorRoles; ++i) {
      const auto role = static_cast<TensorRole>(i);
      if (!HasRole(config, role, config.layers - 1)) continue;
      const TensorShape shape = RoleShape(config, role);
      Require(shape.n >= 1 && shape.k >= 1 && shape.n <= INT64_MAX / 8 / shape.k, "a tensor has a size");
    }
  });
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
  acorn::fuzz::Chooser chooser(seed);
  std::string text(reinterpret_cast<const char *>(data), size);
  acorn::fuzz::ChangeJson(&chooser, &text, max_size);
  std::copy(text.begin(), text.end(), data);
  return text.size();
}
