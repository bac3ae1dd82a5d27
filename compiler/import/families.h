// The table of model families: what each one is called in every source format and how its block differs from Llama's.
// A new family of the same block shape is one row here.
#pragma once

#include <string>

#include "import/source_model.h"

namespace acorn::compiler {

enum class Presence : uint8_t {
  kNever,
  kAlways,
  kByConfig,  // as attention_bias or mlp_bias of config.json says
};

struct Family {
  const char *name;        // ModelConfig::family
  const char *examples;    // models by the name that people know
  const char *model_type;  // config.json
  const char *gguf;        // general.architecture; null: none of its own
  bool gguf_interleaved;   // GGUF stores q and k rows as rotary pairs
  Presence qkv_bias;
  Presence o_bias;
  Presence mlp_bias;
  bool qk_norm;
  bool sliding_window_switch;  // sliding_window counts only with use_sliding_window
  int32_t default_bos;         // of a config.json without the key; -1: none
  int32_t default_eos;
};

/// Throws Error(kBadModel) that names the unknown family and lists the known ones.
const Family &FamilyByModelType(const std::string &model_type, const std::string &path);
const Family &FamilyByGguf(const std::string &architecture, const std::string &path);

}  // namespace acorn::compiler
