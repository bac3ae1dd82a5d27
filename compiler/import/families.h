// The table of model families: what each one is called in every source format and how its block differs from Llama's.
// A new family of the same block shape is one entry here.
#pragma once

#include <string>

#include "import/source_model.h"
#include "import/source_parts.h"

namespace acorn::compiler {

enum class Presence : uint8_t {
  kNever,
  kAlways,
  kByConfig,      // as qkv_bias_key, attention_bias, mlp_bias or norm_topk_prob of config.json says
  kUnlessConfig,  // the same, but true without the key
};

/// Where a Hugging Face configuration says what its state-space layers are, and how they and their neighbours are called.
enum class HybridKind : uint8_t {
  kNone,     // there are none
  kMamba2,   // nothing but state-space layers, without FFNs
  kBamba,    // attn_layer_indices
  kGranite,  // layer_types; four multipliers; a shared MLP beside the experts, or instead of them
};

struct Family {  // NOLINT(clang-analyzer-optin.performance.Padding): in the order of what it says; there are few
  const char *name;               // ModelConfig::family
  const char *examples;           // models by the name that people know
  const char *model_type;         // config.json
  const char *gguf;               // general.architecture; null: none of its own
  bool gguf_interleaved = false;  // GGUF stores q and k rows as rotary pairs
  Projections projections = Projections::kApart;
  Presence qkv_bias = Presence::kNever;
  Presence o_bias = Presence::kNever;
  Presence mlp_bias = Presence::kNever;
  bool qk_norm = false;
  const char *qkv_bias_key = "attention_bias";
  NormKind norm = NormKind::kRms;
  float norm_offset = 0;               // Hugging Face stores the gain of a norm minus this
  bool scaled_embedding = false;       // rows of the embedding times sqrt(hidden) enter the first layer
  const char *activation = nullptr;    // of a source without hidden_activation; null: hidden_act, silu without one
  double partial_rotary = 1;           // of a config.json without partial_rotary_factor
  bool tied_head = false;              // of a config.json without tie_word_embeddings
  bool sliding_window_switch = false;  // sliding_window counts only with use_sliding_window
  int32_t default_bos = -1;            // of a config.json without the key; -1: none
  int32_t default_eos = -1;
  // Mixtures of experts.
  bool is_sparse = false;
  bool dense_layers = false;  // layers may be dense all the same
  bool shared_expert = false;
  bool qk_norm_rows = false;
  bool clips_qkv = false;  // where clip_qkv or attention.clamp_kqv says so
  const char *expert_ffn_key = "intermediate_size";  // of config.json
  Presence normalised_experts = Presence::kNever;    // in Hugging Face
  bool gguf_normalised_experts = false;
  bool optional_experts = false;  // the same architecture comes with and without experts
  const char *shared_ffn_key = "shared_expert_intermediate_size";
  bool shared_gate = true;  // of a shared expert
  const char *ffn_key = "intermediate_size";
  // State-space models and hybrids.
  HybridKind hybrid = HybridKind::kNone;
};

/// Throws Error(kBadModel) that names the unknown family and lists the known ones.
const Family &FamilyByModelType(const std::string &model_type, const std::string &path);
/// By ModelConfig::family, which is one of FamilyNames().
const Family &FamilyByName(const std::string &name);
/// `is_sparse`: the file has experts. One architecture may be two families.
const Family &FamilyByGguf(const std::string &architecture, bool is_sparse, const std::string &path);

}  // namespace acorn::compiler
