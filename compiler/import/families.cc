#include "import/families.h"

#include <algorithm>

#include "base/error.h"

namespace acorn::compiler {
namespace {

constexpr Family Llama() {
  Family family{"llama", "Llama 1 to 3, TinyLlama, SmolLM, SmolLM2", "llama", "llama"};
  family.gguf_interleaved = true;
  family.qkv_bias = family.o_bias = family.mlp_bias = Presence::kByConfig;
  family.default_bos = 1;
  family.default_eos = 2;
  return family;
}

constexpr Family Mistral() {
  Family family{"mistral", "Mistral 7B", "mistral", nullptr};
  family.default_bos = 1;
  family.default_eos = 2;
  return family;
}

constexpr Family Qwen2() {
  Family family{"qwen2", "Qwen2, Qwen2.5", "qwen2", "qwen2"};
  family.qkv_bias = Presence::kAlways;
  family.sliding_window_switch = true;
  return family;
}

constexpr Family Qwen3() {
  Family family{"qwen3", "Qwen3", "qwen3", "qwen3"};
  family.qkv_bias = family.o_bias = Presence::kByConfig;
  family.qk_norm = true;
  family.sliding_window_switch = true;
  return family;
}

constexpr Family Phi3() {
  Family family{"phi3", "Phi-3 mini and medium, Phi-3.5 mini, Phi-4", "phi3", "phi3"};
  family.projections = Projections::kFused;
  family.default_bos = 1;
  family.default_eos = 32000;
  return family;
}

constexpr Family Gemma() {
  Family family{"gemma", "Gemma 1, CodeGemma", "gemma", "gemma"};
  family.qkv_bias = family.o_bias = Presence::kByConfig;
  family.norm_offset = 1;
  family.scaled_embedding = true;
  family.activation = "gelu_pytorch_tanh";  // early configurations say gelu and mean this
  family.tied_head = true;
  family.default_bos = 2;
  family.default_eos = 1;
  return family;
}

constexpr Family StableLm() {
  Family family{"stablelm", "StableLM 2 1.6B, StableLM 3B", "stablelm", "stablelm"};
  family.qkv_bias = Presence::kByConfig;
  family.qkv_bias_key = "use_qkv_bias";
  family.norm = NormKind::kLayer;
  family.partial_rotary = 0.25;
  family.default_bos = 0;
  family.default_eos = 0;
  return family;
}

constexpr Family Mixtral() {
  Family family{"mixtral", "Mixtral 8x7B and 8x22B", "mixtral", "llama"};
  family.gguf_interleaved = true;
  family.is_sparse = true;
  family.normalised_experts = Presence::kAlways;
  family.gguf_normalised_experts = true;
  family.default_bos = 1;
  family.default_eos = 2;
  return family;
}

constexpr Family Qwen2Moe() {
  Family family{"qwen2_moe", "Qwen1.5-MoE, Qwen2-57B-A14B", "qwen2_moe", "qwen2moe"};
  family.qkv_bias = Presence::kUnlessConfig;
  family.qkv_bias_key = "qkv_bias";
  family.sliding_window_switch = true;
  family.is_sparse = family.dense_layers = family.shared_expert = true;
  family.expert_ffn_key = "moe_intermediate_size";
  family.normalised_experts = Presence::kByConfig;
  return family;
}

constexpr Family Qwen3Moe() {
  Family family{"qwen3_moe", "Qwen3-30B-A3B, Qwen3-235B-A22B", "qwen3_moe", "qwen3moe"};
  family.qkv_bias = family.o_bias = Presence::kByConfig;
  family.qk_norm = true;
  family.sliding_window_switch = true;
  family.is_sparse = family.dense_layers = true;
  family.expert_ffn_key = "moe_intermediate_size";
  family.normalised_experts = Presence::kByConfig;
  family.gguf_normalised_experts = true;
  return family;
}

constexpr Family Olmoe() {
  Family family{"olmoe", "OLMoE-1B-7B", "olmoe", "olmoe"};
  family.qkv_bias = family.o_bias = Presence::kByConfig;
  family.qk_norm = family.qk_norm_rows = true;
  family.clips_qkv = true;
  family.is_sparse = true;
  family.normalised_experts = Presence::kByConfig;
  family.default_eos = 50279;
  return family;
}

constexpr Family Mamba2() {
  Family family{"mamba2", "Mamba2, Codestral Mamba", "mamba2", "mamba2"};
  family.hybrid = HybridKind::kMamba2;
  return family;
}

constexpr Family Bamba() {
  Family family{"bamba", "Bamba 9B", "bamba", nullptr};  // in GGUF a Granite 4 without experts
  family.qkv_bias = family.o_bias = Presence::kByConfig;
  family.mlp_bias = Presence::kByConfig;
  family.partial_rotary = 0.5;
  family.default_bos = 1;
  family.default_eos = 2;
  family.hybrid = HybridKind::kBamba;
  return family;
}

constexpr Family GraniteHybrid() {
  Family family{"granitemoehybrid", "Granite 4.0-H", "granitemoehybrid", "granitehybrid"};
  family.gguf_interleaved = true;
  family.qkv_bias = family.o_bias = Presence::kByConfig;
  family.default_bos = 1;
  family.default_eos = 2;
  family.is_sparse = family.optional_experts = family.shared_expert = true;
  family.normalised_experts = Presence::kAlways;
  family.gguf_normalised_experts = true;
  family.shared_gate = false;
  family.ffn_key = family.shared_ffn_key = "shared_intermediate_size";
  family.hybrid = HybridKind::kGranite;
  return family;
}

constexpr Family kFamilies[] = {Llama(),   Mistral(),  Qwen2(),    Qwen3(), Phi3(),   Gemma(), StableLm(),
                                Mixtral(), Qwen2Moe(), Qwen3Moe(), Olmoe(), Mamba2(), Bamba(), GraniteHybrid()};

[[noreturn]] void Unknown(const std::string &name, const std::string &path) {
  if (name == "nemotron_h" || name == "nemotron_h_moe") {
    throw Error(ExitCode::kBadModel, path + ": Nemotron-H (" + name + ") is not supported: its FFNs are layers of their own, " +
                                         "without a gate and with squared ReLU");
  }
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

const Family &FamilyByName(const std::string &name) {
  return *std::find_if(std::begin(kFamilies), std::end(kFamilies), [&](const Family &family) { return name == family.name; });
}

const Family &FamilyByGguf(const std::string &architecture, bool is_sparse, const std::string &path) {
  bool is_known = false;
  for (const Family &family : kFamilies) {
    if (family.gguf == nullptr || architecture != family.gguf) continue;
    if (family.is_sparse == is_sparse || family.optional_experts) return family;
    is_known = true;
  }
  if (!is_known) Unknown(architecture, path);
  throw Error(ExitCode::kBadModel, path + ": metadata " + architecture + ".expert_count is " +
                                       (is_sparse ? "not 0, but this architecture has no experts" : "0 or missing"));
}

std::vector<std::string> FamilyNames() {
  std::vector<std::string> names;
  for (const Family &family : kFamilies) names.emplace_back(family.name);
  return names;
}

}  // namespace acorn::compiler
