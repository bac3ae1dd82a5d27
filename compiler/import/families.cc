#include "import/families.h"

#include "base/error.h"

namespace acorn::compiler {
namespace {

constexpr Family kFamilies[] = {
    // name, examples, model_type, gguf, gguf_interleaved, qkv_bias, o_bias, mlp_bias, qk_norm, window switch, bos, eos
    {"llama", "Llama 1 to 3, TinyLlama, SmolLM, SmolLM2", "llama", "llama", true, Presence::kByConfig, Presence::kByConfig,
     Presence::kByConfig, false, false, 1, 2},
    {"mistral", "Mistral 7B", "mistral", nullptr, true, Presence::kNever, Presence::kNever, Presence::kNever, false, false, 1,
     2},
    {"qwen2", "Qwen2, Qwen2.5", "qwen2", "qwen2", false, Presence::kAlways, Presence::kNever, Presence::kNever, false, true, -1,
     -1},
    {"qwen3", "Qwen3", "qwen3", "qwen3", false, Presence::kByConfig, Presence::kByConfig, Presence::kNever, true, true, -1, -1},
};

[[noreturn]] void Unknown(const std::string &name, const std::string &path) {
  std::string known;
  for (const Family &family : kFamilies) {
    known += std::string(known.empty() ? "" : "; ") + family.name + " (" + family.examples + ")";
  }
  throw Error(ExitCode::kBadModel, path + ": model family '" + name + "' is not supported; known are: " + known);
}

}  // namespace

const Family &FamilyByModelType(const std::string &model_type, const std::string &path) {
  for (const Family &family : kFamilies) {
    if (model_type == family.model_type) return family;
  }
  Unknown(model_type, path);
}

const Family &FamilyByGguf(const std::string &architecture, const std::string &path) {
  for (const Family &family : kFamilies) {
    if (family.gguf != nullptr && architecture == family.gguf) return family;
  }
  Unknown(architecture, path);
}

std::vector<std::string> FamilyNames() {
  std::vector<std::string> names;
  for (const Family &family : kFamilies) names.emplace_back(family.name);
  return names;
}

}  // namespace acorn::compiler
