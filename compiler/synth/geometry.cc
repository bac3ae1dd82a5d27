#include "synth/geometry.h"

#include <filesystem>

#include "base/error.h"
#include "base/mapped_file.h"
#include "import/hugging_face_config.h"

namespace acorn::compiler {
namespace {

/// What their config.json on the hub says, as far as it counts.
struct Geometry {
  const char *name;
  const char *config;
};
constexpr Geometry kGeometries[] = {
    {"smollm2-135m", R"({"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192,
        "rope_theta": 100000.0, "rms_norm_eps": 1e-05, "tie_word_embeddings": true})"},
    {"tinyllama-1.1b", R"({"model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
        "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 2048,
        "rope_theta": 10000.0, "rms_norm_eps": 1e-05, "tie_word_embeddings": false})"},
    {"llama-3.2-1b", R"({"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
        "max_position_embeddings": 131072, "rope_theta": 500000.0, "rms_norm_eps": 1e-05, "tie_word_embeddings": true,
        "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}})"},
    {"qwen3-0.6b", R"({"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "max_position_embeddings": 40960, "rope_theta": 1000000.0, "rms_norm_eps": 1e-06, "tie_word_embeddings": true})"},
    {"olmoe-1b-7b", R"({"model_type": "olmoe", "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 16,
        "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64, "num_experts_per_tok": 8, "norm_topk_prob": false,
        "vocab_size": 50304, "max_position_embeddings": 4096, "rope_theta": 10000.0, "rms_norm_eps": 1e-05,
        "tie_word_embeddings": false})"},
    {"qwen3-30b-a3b", R"({"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
        "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
        "num_experts_per_tok": 8, "norm_topk_prob": true, "vocab_size": 151936, "max_position_embeddings": 40960,
        "rope_theta": 1000000.0, "rms_norm_eps": 1e-06, "tie_word_embeddings": false})"},
    {"mixtral-8x7b", R"({"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2,
        "vocab_size": 32000, "max_position_embeddings": 32768, "rope_theta": 1000000.0, "rms_norm_eps": 1e-05,
        "tie_word_embeddings": false})"},
};

ModelConfig ReadGeometry(const std::string &like) {
  for (const Geometry &row : kGeometries) {
    if (like == row.name) return ParseHuggingFaceConfig(row.config, row.name);
  }
  if (!std::filesystem::is_regular_file(like)) {
    std::string names;
    for (const Geometry &row : kGeometries) names += std::string(row.name) + ", ";
    throw Error(ExitCode::kUsage, "synth: --like " + like + ": " + names + "or the path of a config.json is wanted");
  }
  const MappedFile file(like);
  return ParseHuggingFaceConfig(file.text(), like);
}

}  // namespace

std::vector<std::string> GeometryNames() {
  std::vector<std::string> names;
  for (const Geometry &row : kGeometries) names.emplace_back(row.name);
  return names;
}

ModelConfig FindGeometry(const std::string &like, int64_t experts, int64_t layers) {
  ModelConfig config = ReadGeometry(like);
  if (experts != 0) {
    if (config.experts == 0) throw Error(ExitCode::kUsage, "synth: --experts: " + like + " has no experts");
    if (experts < config.experts_per_token) {
      throw Error(ExitCode::kUsage, "synth: --experts " + std::to_string(experts) + ": a token of " + like + " visits " +
                                        std::to_string(config.experts_per_token));
    }
    config.experts = experts;
  }
  if (layers != 0) {
    // Which layers are sparse goes on as it began.
    std::vector<bool> sparse;
    for (int64_t layer = 0; layer < layers && config.experts != 0; ++layer) {
      sparse.push_back(config.IsSparse(layer % config.layers));
    }
    config.sparse_layers = sparse;
    config.layers = layers;
  }
  return config;
}

}  // namespace acorn::compiler
