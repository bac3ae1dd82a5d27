// Hugging Face folders: config.json in the spelling of transformers 4 and 5, safetensors in one file or many.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "base/error.h"
#include "import/families.h"
#include "import/hugging_face_config.h"
#include "import/json_reader.h"
#include "import/safetensors.h"
#include "import/source_parts.h"

namespace acorn::compiler {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kDefaultMaxWindowLayers = 28;  // Qwen's: layers before it see all
constexpr TensorName kTensorNames[] = {
    {TensorRole::kEmbedding, "model.embed_tokens.weight"},
    {TensorRole::kHead, "lm_head.weight"},
    {TensorRole::kFinalNorm, "model.norm.weight"},
    {TensorRole::kAttnNorm, "input_layernorm.weight"},
    {TensorRole::kQ, "self_attn.q_proj.weight"},
    {TensorRole::kK, "self_attn.k_proj.weight"},
    {TensorRole::kV, "self_attn.v_proj.weight"},
    {TensorRole::kO, "self_attn.o_proj.weight"},
    {TensorRole::kQBias, "self_attn.q_proj.bias"},
    {TensorRole::kKBias, "self_attn.k_proj.bias"},
    {TensorRole::kVBias, "self_attn.v_proj.bias"},
    {TensorRole::kOBias, "self_attn.o_proj.bias"},
    {TensorRole::kQNorm, "self_attn.q_norm.weight"},
    {TensorRole::kKNorm, "self_attn.k_norm.weight"},
    {TensorRole::kFfnNorm, "post_attention_layernorm.weight"},
    {TensorRole::kGate, "mlp.gate_proj.weight"},
    {TensorRole::kUp, "mlp.up_proj.weight"},
    {TensorRole::kDown, "mlp.down_proj.weight"},
    {TensorRole::kGateBias, "mlp.gate_proj.bias"},
    {TensorRole::kUpBias, "mlp.up_proj.bias"},
    {TensorRole::kDownBias, "mlp.down_proj.bias"},
    {TensorRole::kFinalNormBias, "model.norm.bias"},
    {TensorRole::kAttnNormBias, "input_layernorm.bias"},
    {TensorRole::kFfnNormBias, "post_attention_layernorm.bias"},
    {TensorRole::kQ, "self_attn.qkv_proj.weight", 3},
    {TensorRole::kGate, "mlp.gate_up_proj.weight", 2},
    {TensorRole::kSharedGate, "mlp.shared_expert.gate_proj.weight"},
    {TensorRole::kSharedUp, "mlp.shared_expert.up_proj.weight"},
    {TensorRole::kSharedDown, "mlp.shared_expert.down_proj.weight"},
    {TensorRole::kSharedExpertGate, "mlp.shared_expert_gate.weight"},
};

// Routers and experts: as most families store them, as Mixtral does, and as transformers 5 has them in memory.
constexpr TensorName kExpertNames[] = {
    {TensorRole::kRouter, "mlp.gate.weight"},
    {TensorRole::kExpertGate, "mlp.experts.*.gate_proj.weight"},
    {TensorRole::kExpertUp, "mlp.experts.*.up_proj.weight"},
    {TensorRole::kExpertDown, "mlp.experts.*.down_proj.weight"},
};
constexpr TensorName kMixtralExpertNames[] = {
    {TensorRole::kRouter, "block_sparse_moe.gate.weight"},
    {TensorRole::kExpertGate, "block_sparse_moe.experts.*.w1.weight"},
    {TensorRole::kExpertUp, "block_sparse_moe.experts.*.w3.weight"},
    {TensorRole::kExpertDown, "block_sparse_moe.experts.*.w2.weight"},
};
constexpr TensorName kStackedExpertNames[] = {
    {TensorRole::kRouter, "mlp.gate.weight"},
    {TensorRole::kExpertGate, "mlp.experts.gate_up_proj", 2},
    {TensorRole::kExpertDown, "mlp.experts.down_proj"},
};
constexpr char kLayerPrefix[] = "model.layers.";

// The part that a state-space layer has for attention, behind the name of its module; '@' stands for that.
constexpr TensorName kStateSpaceNames[] = {
    {TensorRole::kSsmGate, "@.in_proj.weight", 3},
    {TensorRole::kSsmConv, "@.conv1d.weight"},
    {TensorRole::kSsmConvBias, "@.conv1d.bias"},
    {TensorRole::kSsmStepBias, "@.dt_bias"},
    {TensorRole::kSsmDecay, "@.A_log"},
    {TensorRole::kSsmSkip, "@.D"},
    {TensorRole::kSsmNorm, "@.norm.weight"},
    {TensorRole::kSsmOut, "@.out_proj.weight"},
};
constexpr TensorName kMamba2Names[] = {
    {TensorRole::kEmbedding, "backbone.embeddings.weight"},
    {TensorRole::kHead, "lm_head.weight"},
    {TensorRole::kFinalNorm, "backbone.norm_f.weight"},
    {TensorRole::kAttnNorm, "norm.weight"},
};
constexpr char kMamba2LayerPrefix[] = "backbone.layers.";
constexpr TensorName kBambaNames[] = {
    {TensorRole::kFinalNorm, "model.final_layernorm.weight"},
    {TensorRole::kFfnNorm, "pre_ff_layernorm.weight"},
    {TensorRole::kGate, "feed_forward.gate_proj.weight"},
    {TensorRole::kUp, "feed_forward.up_proj.weight"},
    {TensorRole::kDown, "feed_forward.down_proj.weight"},
    {TensorRole::kGateBias, "feed_forward.gate_proj.bias"},
    {TensorRole::kUpBias, "feed_forward.up_proj.bias"},
    {TensorRole::kDownBias, "feed_forward.down_proj.bias"},
};
constexpr TensorName kGraniteNames[] = {
    {TensorRole::kGate, "shared_mlp.input_linear.weight", 2},
    {TensorRole::kDown, "shared_mlp.output_linear.weight"},
    {TensorRole::kSharedGate, "shared_mlp.input_linear.weight", 2},
    {TensorRole::kSharedDown, "shared_mlp.output_linear.weight"},
    {TensorRole::kRouter, "block_sparse_moe.router.layer.weight"},
    {TensorRole::kExpertGate, "block_sparse_moe.input_linear.weight", 2},
    {TensorRole::kExpertDown, "block_sparse_moe.output_linear.weight"},
};

// Models without attention have no longest context of their own; GGUF files of them say this number.
constexpr int64_t kEndlessContext = int64_t{1} << 20;

constexpr double kMostInner = 1e15;  // far above what CheckConfig lets pass; a whole number up to here is one as a double too

// Switches that change what a layer computes.
constexpr const char *kRefusedSwitches[] = {"use_bidirectional_attention", "use_parallel_residual", "qk_layernorm"};

std::string ReadText(const fs::path &path) {
  const MappedFile file(path.string());
  return std::string(file.text());
}

std::vector<double> ReadReals(const JsonReader &reader, const char *key, int64_t count) {
  const json *value = reader.Find(key);
  if (value == nullptr || !value->is_array() || static_cast<int64_t>(value->size()) != count) {
    reader.Bad(std::string(key) + " is no array of " + std::to_string(count) + " numbers");
  }
  std::vector<double> reals;
  for (const json &item : *value) {
    if (!item.is_number()) reader.Bad(std::string(key) + " holds something that is no number");
    reals.push_back(item.get<double>());
  }
  return reals;
}

// Two sets of divisors and a factor on what is rotated. The set for positions within the original context is the one that a
// fixed table can have: the context ends there.
void ReadLongRope(const JsonReader &config, const JsonReader &scaling, ModelConfig *out) {
  RopeConfig &rope = out->rope;
  rope.kind = RopeKind::kDivisors;
  rope.divisors = ReadReals(scaling, "short_factor", out->rotary_dims / 2);
  const char *key = "original_max_position_embeddings";
  rope.original_context = scaling.Has(key) ? scaling.Integer(key) : config.Integer(key);
  if (rope.original_context < 2) config.Bad(std::string(key) + " is out of range");
  const auto original = static_cast<double>(rope.original_context);
  const double stretch = scaling.FindReal("factor").value_or(static_cast<double>(out->max_context) / original);
  const double usual = stretch > 1 ? std::sqrt(1 + std::log(stretch) / std::log(original)) : 1;
  rope.attention_factor = scaling.FindReal("attention_factor").value_or(usual);
  out->max_context = std::min(out->max_context, rope.original_context);
}

void ReadRope(const JsonReader &config, const Family &family, ModelConfig *out) {
  std::optional<JsonReader> scaling = config.FindObject("rope_parameters");
  if (!scaling) scaling = config.FindObject("rope_scaling");
  out->rope.theta = config.FindReal("rope_theta").value_or(10000.0);
  double partial = config.FindReal("partial_rotary_factor").value_or(family.partial_rotary);
  std::string type = "default";
  if (scaling) {
    out->rope.theta = scaling->FindReal("rope_theta").value_or(out->rope.theta);
    partial = scaling->FindReal("partial_rotary_factor").value_or(partial);
    type = scaling->FindString("rope_type").value_or(scaling->FindString("type").value_or("default"));
  }
  if (!(partial > 0.0 && partial <= 1.0)) config.Bad("partial_rotary_factor " + std::to_string(partial) + " is out of range");
  // Any number may stand there until CheckConfig; as a double the largest of 64 bits is one more than fits.
  out->rotary_dims = partial == 1.0 ? out->head_dim : static_cast<int64_t>(static_cast<double>(out->head_dim) * partial);
  if (type == "default") {
    out->rope.kind = RopeKind::kDefault;
  } else if (type == "linear") {
    out->rope.kind = RopeKind::kLinear;
    out->rope.factor = scaling->Real("factor");
  } else if (type == "llama3") {
    out->rope.kind = RopeKind::kLlama3;
    out->rope.factor = scaling->Real("factor");
    out->rope.low_freq_factor = scaling->Real("low_freq_factor");
    out->rope.high_freq_factor = scaling->Real("high_freq_factor");
    out->rope.original_context = scaling->Integer("original_max_position_embeddings");
  } else if (type == "longrope" || type == "su") {  // su: its name in early configurations
    ReadLongRope(config, *scaling, out);
  } else {
    scaling->Bad("rope type '" + type + "' is not supported; known are default, linear, llama3, longrope");
  }
}

ActivationKind ReadActivation(const JsonReader &config, const Family &family) {
  const std::string fallback =
      family.activation != nullptr ? family.activation : config.FindString("hidden_act").value_or("silu");
  const std::string name = config.FindString("hidden_activation").value_or(fallback);
  const std::optional<ActivationKind> kind = ActivationByName(name);
  if (!kind) config.Bad("hidden_act '" + name + "' is not supported; known are silu, gelu, gelu_pytorch_tanh");
  return *kind;
}

bool IsPresent(Presence presence, const JsonReader &config, const char *key) {
  if (presence == Presence::kNever || presence == Presence::kAlways) return presence == Presence::kAlways;
  return config.FindBool(key).value_or(presence == Presence::kUnlessConfig);
}

// transformers' masks let the token at p see those at j with p - j < sliding_window.
int64_t ReadSlidingWindow(const JsonReader &config, const Family &family) {
  if (family.sliding_window_switch && !config.FindBool("use_sliding_window").value_or(false)) return 0;
  return config.FindInteger("sliding_window").value_or(0);
}

// Which layers have the window.
void ReadWindowedLayers(const JsonReader &config, const Family &family, ModelConfig *out) {
  if (out->sliding_window == 0) return;
  std::vector<bool> layers(static_cast<size_t>(out->layers), true);
  if (const json *types = config.Find("layer_types")) {
    if (!types->is_array() || types->size() != layers.size()) config.Bad("layer_types is no array of as many names as there are layers");
    for (size_t i = 0; i < layers.size(); ++i) {
      const json &type = (*types)[i];
      if (type != "full_attention" && type != "sliding_attention") config.Bad("layer_types has another name than full_attention and sliding_attention");
      layers[i] = type == "sliding_attention";
    }
  } else if (family.sliding_window_switch) {
    const int64_t first = config.FindInteger("max_window_layers").value_or(kDefaultMaxWindowLayers);
    for (int64_t i = 0; i < std::min(first, out->layers); ++i) layers[static_cast<size_t>(i)] = false;
  }
  const auto windowed = std::count(layers.begin(), layers.end(), true);
  if (windowed == 0) out->sliding_window = 0;
  if (windowed != 0 && windowed != out->layers) out->windowed_layers = std::move(layers);
}

// Which layers have experts. Layers may be dense by their numbers, or but for every decoder_sparse_step-th one.
std::vector<bool> ReadSparseLayers(const JsonReader &config, const Family &family, int64_t layers) {
  std::vector<bool> sparse(static_cast<size_t>(layers), true);
  if (!family.dense_layers) return sparse;
  const int64_t step = config.FindInteger("decoder_sparse_step").value_or(1);
  if (step < 1) config.Bad("decoder_sparse_step " + std::to_string(step) + " is out of range");
  for (int64_t layer = 0; layer < layers; ++layer) sparse[static_cast<size_t>(layer)] = (layer + 1) % step == 0;
  const json *dense = config.Find("mlp_only_layers");
  if (dense == nullptr) return sparse;
  if (!dense->is_array()) config.Bad("mlp_only_layers is no array");
  for (const json &item : *dense) {
    if (!item.is_number_integer()) config.Bad("mlp_only_layers holds something that is no layer");
    const int64_t layer = item.get<int64_t>();
    if (layer >= 0 && layer < layers) sparse[static_cast<size_t>(layer)] = false;
  }
  return sparse;
}

void ReadExperts(const JsonReader &config, const Family &family, ModelConfig *out) {
  const char *count_key = config.Has("num_local_experts") ? "num_local_experts" : "num_experts";
  const int64_t experts = family.optional_experts ? config.FindInteger(count_key).value_or(0) : config.Integer(count_key);
  if (experts < 1 && !(experts == 0 && (family.dense_layers || family.optional_experts))) {
    config.Bad(std::string(count_key) + " " + std::to_string(experts) + " is out of range");
  }
  const std::vector<bool> sparse = ReadSparseLayers(config, family, out->layers);
  if (experts == 0 || std::find(sparse.begin(), sparse.end(), true) == sparse.end()) return;
  out->experts = experts;
  out->sparse_layers = sparse;
  out->experts_per_token = config.Integer("num_experts_per_tok");
  out->expert_ffn = config.Integer(family.expert_ffn_key);
  out->normalised_experts = IsPresent(family.normalised_experts, config, "norm_topk_prob");
  out->shared_gate = family.shared_expert && family.shared_gate;
  if (family.shared_expert) out->shared_ffn = config.Integer(family.shared_ffn_key);
  CheckExperts(*out, config.what());
}

// Which layers have a state-space part instead of attention.
std::vector<bool> ReadStateSpaceLayers(const JsonReader &config, HybridKind hybrid, int64_t layers) {
  std::vector<bool> found(static_cast<size_t>(layers), true);
  if (hybrid == HybridKind::kBamba) {
    const json *indices = config.Find("attn_layer_indices");
    if (indices == nullptr) return found;
    if (!indices->is_array()) config.Bad("attn_layer_indices is no array");
    for (const json &item : *indices) {
      if (!item.is_number_integer() || item.get<int64_t>() < 0 || item.get<int64_t>() >= layers) {
        config.Bad("attn_layer_indices holds something that is no layer of " + std::to_string(layers));
      }
      found[item.get<size_t>()] = false;
    }
  } else if (hybrid == HybridKind::kGranite) {
    const char *key = config.Has("layer_types") ? "layer_types" : "layers_block_type";
    const json *types = config.Find(key);
    if (types == nullptr) return found;
    if (!types->is_array() || types->size() != found.size()) {
      config.Bad(std::string(key) + " is no array of a name for each of " + std::to_string(layers) + " layers");
    }
    for (size_t layer = 0; layer < found.size(); ++layer) {
      const json &item = (*types)[layer];
      const std::string type = item.is_string() ? item.get<std::string>() : "";
      const bool is_attention = type == "attention" || type == "full_attention";
      if (!is_attention && type != "mamba" && type != "linear_attention") {
        config.Bad(std::string(key) + " of layer " + std::to_string(layer) + " is not supported; known are mamba and attention (" +
                   "or linear_attention and full_attention)");
      }
      found[layer] = !is_attention;
    }
  }
  return found;
}

// A number, or the object that transformers 5 writes for one that JSON does not know.
double ReadLimit(const JsonReader &config, const json &value) {
  if (value.is_number()) return value.get<double>();
  if (value.is_object() && value.value("__float__", json()) == "Infinity") return std::numeric_limits<double>::infinity();
  config.Bad("time_step_limit holds something that is no number");
}

void ReadStateSpace(const JsonReader &config, HybridKind hybrid, ModelConfig *out) {
  const bool is_pure = hybrid == HybridKind::kMamba2;
  StateSpaceConfig &ssm = out->ssm;
  CheckLayerCount(out->layers, config.what());
  out->ssm_layers = ReadStateSpaceLayers(config, hybrid, out->layers);
  ssm.heads = config.Integer(is_pure ? "num_heads" : "mamba_n_heads");
  ssm.state = config.Integer(is_pure ? "state_size" : "mamba_d_state");
  ssm.groups = config.Integer(is_pure ? "n_groups" : "mamba_n_groups");
  ssm.conv_width = config.Integer(is_pure ? "conv_kernel" : "mamba_d_conv");
  ssm.conv_bias = config.FindBool(is_pure ? "use_conv_bias" : "mamba_conv_bias").value_or(true);
  const double expand = config.FindReal(is_pure ? "expand" : "mamba_expand").value_or(2);
  const double inner = expand * static_cast<double>(out->hidden);
  if (!(inner >= 1 && inner <= kMostInner)) config.Bad(std::to_string(expand) + " times hidden_size is out of range");
  if (ssm.heads <= 0) config.Bad("number of state-space heads " + std::to_string(ssm.heads) + " is out of range");
  const char *size_key = is_pure ? "head_dim" : "mamba_d_head";
  const json *size = config.Find(size_key);
  const bool is_auto = !is_pure && (size == nullptr || *size == "auto");
  ssm.head_dim = is_auto ? static_cast<int64_t>(inner) / ssm.heads : config.Integer(size_key);
  if (static_cast<double>(ssm.heads) * static_cast<double>(ssm.head_dim) != std::floor(inner)) {
    config.Bad(std::to_string(ssm.heads) + " state-space heads of " + std::to_string(ssm.head_dim) + " are not " +
               std::to_string(expand) + " times hidden_size");
  }
  if (config.FindBool(is_pure ? "use_bias" : "mamba_proj_bias").value_or(false)) {
    config.Bad("biases of a state-space layer's projections (use_bias, mamba_proj_bias) are not supported");
  }
  if (const json *limits = config.Find("time_step_limit")) {
    if (!limits->is_array() || limits->size() != 2) config.Bad("time_step_limit is no array of 2 numbers");
    ssm.min_step = ReadLimit(config, limits->front());
    ssm.max_step = ReadLimit(config, limits->back());
  }
}

void ReadGraniteScales(const JsonReader &config, ModelConfig *out) {
  const double divisor = config.FindReal("logits_scaling").value_or(1.0);
  if (!(divisor > 0)) config.Bad("logits_scaling " + std::to_string(divisor) + " is no positive number");
  out->logit_scale = 1 / divisor;
  out->embedding_scale = config.FindReal("embedding_multiplier").value_or(1.0);
  out->residual_scale = config.FindReal("residual_multiplier").value_or(1.0);
  out->attention_scale = config.FindReal("attention_multiplier").value_or(1.0);
  if (!(out->attention_scale > 0)) {
    config.Bad("attention_multiplier " + std::to_string(out->attention_scale) + " is no positive number");
  }
}

void ReadHeads(const JsonReader &config, ModelConfig *out) {
  out->heads = config.Integer("num_attention_heads");
  out->kv_heads = config.FindInteger("num_key_value_heads").value_or(out->heads);
  if (out->heads <= 0) config.Bad("num_attention_heads is out of range");
  out->head_dim = config.FindInteger("head_dim").value_or(out->hidden / out->heads);
}

// transformers 4 writes infinities as no JSON has them; here they become what transformers 5 writes.
std::string WithNamedInfinities(std::string_view text) {
  constexpr std::string_view kInfinity = "Infinity";
  std::string out;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!in_string && text.substr(i, kInfinity.size()) == kInfinity) {
      out += R"({"__float__":"Infinity"})";
      i += kInfinity.size() - 1;
      continue;
    }
    if (in_string && text[i] == '\\' && i + 1 < text.size()) {
      out += text[i++];
    } else if (text[i] == '"') {
      in_string = !in_string;
    }
    out += text[i];
  }
  return out;
}

int32_t ToTokenId(const JsonReader &reader, const char *key, const json &value) {
  if (!value.is_number_integer() || value.get<int64_t>() < -1 || value.get<int64_t>() > INT32_MAX) {
    reader.Bad(std::string(key) + " is no token id");
  }
  return value.get<int32_t>();
}

// One id, a list of ids (the first is used), or nothing.
int32_t ReadTokenId(const JsonReader &reader, const char *key, int32_t fallback) {
  if (reader.object().contains(key) && !reader.Has(key)) return -1;  // null says that there is none
  const json *value = reader.Find(key);
  if (value == nullptr) return fallback;
  if (value->is_array()) return value->empty() ? -1 : ToTokenId(reader, key, value->front());
  return ToTokenId(reader, key, *value);
}

void AppendTokenIds(const JsonReader &reader, const char *key, std::vector<int32_t> *ids) {
  const json *value = reader.Find(key);
  if (value == nullptr) return;
  const json list = value->is_array() ? *value : json::array({*value});
  for (const json &item : list) {
    const int32_t id = ToTokenId(reader, key, item);
    if (id >= 0 && std::find(ids->begin(), ids->end(), id) == ids->end()) ids->push_back(id);
  }
}

}  // namespace

ModelConfig ParseHuggingFaceConfig(std::string_view text, const std::string &path) {
  const json object = ParseJsonObject(WithNamedInfinities(text), path);
  const JsonReader config(object, path);
  const std::string model_type = config.String("model_type");
  const Family &family = FamilyByModelType(model_type, path);
  if (config.Has("quantization_config")) config.Bad("checkpoints that are quantised already are not supported");
  for (const char *key : kRefusedSwitches) {
    if (config.FindBool(key).value_or(false)) config.Bad(std::string(key) + " is not supported");
  }

  ModelConfig out;
  out.family = family.name;
  out.architecture = family.model_type;
  if (const json *names = config.Find("architectures"); names != nullptr && names->is_array() && !names->empty()) {
    if (names->front().is_string()) out.architecture = names->front().get<std::string>();
  }
  out.hidden = config.Integer("hidden_size");
  out.layers = config.Integer("num_hidden_layers");
  const bool is_pure = family.hybrid == HybridKind::kMamba2;
  if (!is_pure) {
    out.ffn = config.Integer(family.ffn_key);
    ReadHeads(config, &out);
  }
  out.vocab = config.Integer("vocab_size");
  out.max_context = is_pure ? kEndlessContext : config.Integer("max_position_embeddings");
  out.norm = family.norm;
  if (is_pure) {
    out.rms_eps = config.FindReal("layer_norm_epsilon").value_or(1e-5);
  } else {
    out.rms_eps = family.norm == NormKind::kLayer ? config.FindReal("layer_norm_eps").value_or(1e-5)
                                                  : config.FindReal("rms_norm_eps").value_or(1e-6);
  }
  const bool is_rotated = family.hybrid != HybridKind::kGranite || config.FindString("position_embedding_type") == "rope";
  if (!is_pure && is_rotated) ReadRope(config, family, &out);
  if (family.hybrid != HybridKind::kNone) ReadStateSpace(config, family.hybrid, &out);
  out.activation = ReadActivation(config, family);
  out.tied_head = config.FindBool("tie_word_embeddings").value_or(family.tied_head);
  if (family.scaled_embedding) out.embedding_scale = std::sqrt(static_cast<double>(out.hidden));
  if (family.hybrid == HybridKind::kGranite) ReadGraniteScales(config, &out);
  out.q_bias = out.k_bias = out.v_bias = IsPresent(family.qkv_bias, config, family.qkv_bias_key);
  out.o_bias = IsPresent(family.o_bias, config, "attention_bias");
  out.mlp_bias = IsPresent(family.mlp_bias, config, "mlp_bias");
  out.qk_norm = family.qk_norm;
  out.qk_norm_rows = family.qk_norm_rows;
  if (family.clips_qkv) out.qkv_limit = config.FindReal("clip_qkv").value_or(0);
  out.sliding_window = ReadSlidingWindow(config, family);
  out.bos_id = ReadTokenId(config, "bos_token_id", family.default_bos);
  out.pad_id = ReadTokenId(config, "pad_token_id", -1);
  AppendTokenIds(config, "eos_token_id", &out.eos_ids);
  if (out.eos_ids.empty() && !object.contains("eos_token_id") && family.default_eos >= 0) {
    out.eos_ids.push_back(family.default_eos);
  }
  CheckConfig(out, path);  // before anything is as long as there are layers
  ReadWindowedLayers(config, family, &out);
  if (family.is_sparse) ReadExperts(config, family, &out);
  return out;
}

namespace {

ModelConfig ReadConfig(const fs::path &folder) {
  const std::string path = (folder / "config.json").string();
  ModelConfig out = ParseHuggingFaceConfig(ReadText(path), path);
  // Chat models name further end tokens here.
  const fs::path generation = folder / "generation_config.json";
  if (fs::exists(generation)) {
    const json extra = ParseJsonObject(ReadText(generation), generation.string());
    AppendTokenIds(JsonReader(extra, generation.string()), "eos_token_id", &out.eos_ids);
    CheckConfig(out, path);
  }
  return out;
}

struct Located {
  const MappedFile *file;
  SafetensorsEntry entry;
};

// Files of the folder that hold tensors: those of the index, or the single one.
std::vector<std::string> ShardNames(const fs::path &folder) {
  const fs::path index = folder / "model.safetensors.index.json";
  if (!fs::exists(index)) {
    if (fs::exists(folder / "model.safetensors")) return {"model.safetensors"};
    throw Error(ExitCode::kIo, folder.string() + ": neither model.safetensors nor model.safetensors.index.json is there");
  }
  const json object = ParseJsonObject(ReadText(index), index.string());
  const JsonReader reader(object, index.string());
  const std::optional<JsonReader> map = reader.FindObject("weight_map");
  if (!map) reader.Bad("weight_map is missing");
  std::vector<std::string> names;
  for (const auto &item : map->object().items()) {
    if (!item.value().is_string()) map->Bad(item.key() + " is no file name");
    const std::string name = item.value().get<std::string>();
    if (name.empty() || name == ".." || name.find('/') != std::string::npos) {
      map->Bad(item.key() + ": '" + name + "' is no name of a file in the folder");
    }
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::map<std::string, Located> LocateTensors(const fs::path &folder, SourceParts *parts) {
  std::map<std::string, Located> located;
  for (const std::string &name : ShardNames(folder)) {
    parts->files.push_back(std::make_unique<MappedFile>((folder / name).string()));
    const MappedFile *file = parts->files.back().get();
    for (auto &row : ParseSafetensors(*file)) {
      if (!located.emplace(row.first, Located{file, std::move(row.second)}).second) {
        throw Error(ExitCode::kBadModel, file->path() + ": tensor " + row.first + " is in another shard too");
      }
    }
  }
  return located;
}

bool IsNorm(TensorRole role) {
  return role == TensorRole::kAttnNorm || role == TensorRole::kFfnNorm || role == TensorRole::kFinalNorm;
}

std::string ExistingFile(const fs::path &path) { return fs::exists(path) ? path.string() : std::string(); }

// Routers and experts of families that are no hybrids.
void ForEachExpertTensor(const ModelConfig &config, const std::map<std::string, Located> &located,
                         const std::function<void(const WantedTensor &tensor)> &add) {
  const auto has = [&](const std::string &part) {
    return std::any_of(located.begin(), located.end(),
                       [&](const auto &row) { return row.first.find(part) != std::string::npos; });
  };
  if (has(".block_sparse_moe.")) {
    ForEachTensor(config, Projections::kApart, {kMixtralExpertNames, std::size(kMixtralExpertNames)}, kLayerPrefix, add);
  } else if (has(".experts.gate_up_proj")) {
    ForEachTensor(config, Projections::kFused, {kStackedExpertNames, std::size(kStackedExpertNames)}, kLayerPrefix, add);
  } else {
    ForEachTensor(config, Projections::kApart, {kExpertNames, std::size(kExpertNames)}, kLayerPrefix, add);
  }
}

// The names of kStateSpaceNames with the module's for '@'.
void ForEachStateSpaceTensor(const ModelConfig &config, const std::string &module, const char *layer_prefix,
                             const std::function<void(const WantedTensor &tensor)> &add) {
  const auto add_named = [&](WantedTensor tensor) {
    tensor.name.replace(tensor.name.find('@'), 1, module);
    add(tensor);
  };
  ForEachTensor(config, Projections::kFused, {kStateSpaceNames, std::size(kStateSpaceNames)}, layer_prefix, add_named);
}

// What the names of a hybrid leave to those of Llama.
bool IsNamedAnew(TensorRole role, Span<const TensorName> names) {
  return std::any_of(names.begin(), names.end(), [&](const TensorName &row) {
    return role >= row.first && static_cast<int>(role) < static_cast<int>(row.first) + row.roles;
  });
}

// All tensors of a hybrid or of a state-space model.
void ForEachHybridTensor(const ModelConfig &config, HybridKind hybrid, const std::function<void(const WantedTensor &tensor)> &add) {
  if (hybrid == HybridKind::kMamba2) {
    ForEachTensor(config, Projections::kApart, {kMamba2Names, std::size(kMamba2Names)}, kMamba2LayerPrefix, add);
    return ForEachStateSpaceTensor(config, "mixer", kMamba2LayerPrefix, add);
  }
  const bool is_bamba = hybrid == HybridKind::kBamba;
  const Span<const TensorName> own = is_bamba ? Span<const TensorName>(kBambaNames, std::size(kBambaNames))
                                              : Span<const TensorName>(kGraniteNames, std::size(kGraniteNames));
  ForEachTensor(config, Projections::kFused, own, kLayerPrefix, add);
  const auto add_rest = [&](const WantedTensor &tensor) {
    if (!IsNamedAnew(tensor.first, own)) add(tensor);
  };
  ForEachTensor(config, Projections::kApart, {kTensorNames, std::size(kTensorNames)}, kLayerPrefix, add_rest);
  ForEachStateSpaceTensor(config, "mamba", kLayerPrefix, add);
}

}  // namespace

std::unique_ptr<SourceParts> ImportHuggingFace(const std::string &folder_name) {
  const fs::path folder(folder_name);
  auto parts = std::make_unique<SourceParts>();
  parts->format = SourceFormat::kHuggingFace;
  parts->path = folder_name;
  parts->config = ReadConfig(folder);
  const Family &family = FamilyByName(parts->config.family);
  const std::map<std::string, Located> located = LocateTensors(folder, parts.get());
  const auto add = [&](const WantedTensor &tensor) {
    const auto found = located.find(tensor.name);
    if (found == located.end()) throw Error(ExitCode::kBadModel, folder_name + ": tensor " + tensor.name + " is missing");
    const Located &where = found->second;
    TensorView view;
    view.file = where.file;
    view.offset_bytes = where.entry.offset_bytes;
    view.type = SafetensorsType(where.entry, tensor.name, where.file->path());
    view.offset = IsNorm(tensor.first) ? family.norm_offset : 0;
    view.is_log = tensor.first == TensorRole::kSsmDecay;
    std::vector<int64_t> shape = where.entry.shape;
    const bool is_conv = tensor.first == TensorRole::kSsmConv;  // [channels, 1, width]
    if (is_conv && shape.size() == 3 && shape[1] == 1) shape.erase(shape.begin() + 1);
    AddTensor(parts.get(), tensor, shape, std::move(view));
  };
  const ModelConfig &config = parts->config;
  if (family.hybrid != HybridKind::kNone) {
    ForEachHybridTensor(config, family.hybrid, add);
  } else {
    ForEachTensor(config, family.projections, {kTensorNames, std::size(kTensorNames)}, kLayerPrefix, add);
    ForEachExpertTensor(config, located, add);
  }
  parts->tokenizer.tokenizer_json = ExistingFile(folder / "tokenizer.json");
  parts->tokenizer.tokenizer_config_json = ExistingFile(folder / "tokenizer_config.json");
  parts->tokenizer.chat_template_jinja = ExistingFile(folder / "chat_template.jinja");
  parts->tokenizer.sentencepiece_model = ExistingFile(folder / "tokenizer.model");
  return parts;
}

}  // namespace acorn::compiler
