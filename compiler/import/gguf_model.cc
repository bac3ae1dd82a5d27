// GGUF files as source models: metadata to configuration, tensor names to roles.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "import/families.h"
#include "import/source_parts.h"

namespace acorn::compiler {
namespace {

constexpr TensorName kTensorNames[] = {
    {TensorRole::kEmbedding, "token_embd.weight"},
    {TensorRole::kHead, "output.weight"},
    {TensorRole::kFinalNorm, "output_norm.weight"},
    {TensorRole::kAttnNorm, "attn_norm.weight"},
    {TensorRole::kQ, "attn_q.weight"},
    {TensorRole::kK, "attn_k.weight"},
    {TensorRole::kV, "attn_v.weight"},
    {TensorRole::kO, "attn_output.weight"},
    {TensorRole::kQBias, "attn_q.bias"},
    {TensorRole::kKBias, "attn_k.bias"},
    {TensorRole::kVBias, "attn_v.bias"},
    {TensorRole::kOBias, "attn_output.bias"},
    {TensorRole::kQNorm, "attn_q_norm.weight"},
    {TensorRole::kKNorm, "attn_k_norm.weight"},
    {TensorRole::kFfnNorm, "ffn_norm.weight"},
    {TensorRole::kGate, "ffn_gate.weight"},
    {TensorRole::kUp, "ffn_up.weight"},
    {TensorRole::kDown, "ffn_down.weight"},
    {TensorRole::kGateBias, "ffn_gate.bias"},
    {TensorRole::kUpBias, "ffn_up.bias"},
    {TensorRole::kDownBias, "ffn_down.bias"},
    {TensorRole::kFinalNormBias, "output_norm.bias"},
    {TensorRole::kAttnNormBias, "attn_norm.bias"},
    {TensorRole::kFfnNormBias, "ffn_norm.bias"},
    {TensorRole::kQ, "attn_qkv.weight", 3},
    {TensorRole::kGate, "ffn_up.weight", 2},
    {TensorRole::kRouter, "ffn_gate_inp.weight"},
    {TensorRole::kExpertGate, "ffn_gate_exps.weight"},
    {TensorRole::kExpertUp, "ffn_up_exps.weight"},
    {TensorRole::kExpertDown, "ffn_down_exps.weight"},
    {TensorRole::kSharedGate, "ffn_gate_shexp.weight"},
    {TensorRole::kSharedUp, "ffn_up_shexp.weight"},
    {TensorRole::kSharedDown, "ffn_down_shexp.weight"},
    {TensorRole::kSharedExpertGate, "ffn_gate_inp_shexp.weight"},
    {TensorRole::kSsmConv, "ssm_conv1d.weight"},
    {TensorRole::kSsmConvBias, "ssm_conv1d.bias"},
    {TensorRole::kSsmStepBias, "ssm_dt.bias"},
    {TensorRole::kSsmDecay, "ssm_a"},
    {TensorRole::kSsmSkip, "ssm_d"},
    {TensorRole::kSsmNorm, "ssm_norm.weight"},
    {TensorRole::kSsmOut, "ssm_out.weight"},
};
// A tensor that holds several roles whatever the family.
constexpr TensorName kStateSpaceIn = {TensorRole::kSsmGate, "ssm_in.weight", 3};

constexpr char kRopeDivisors[] = "rope_freqs.weight";
constexpr char kShortFactors[] = "rope_factors_short.weight";

[[noreturn]] void Bad(const GgufFile &file, const std::string &what) {
  throw Error(ExitCode::kBadModel, file.path() + ": " + what);
}

// Keys of one architecture: "<architecture>.<name>".
class Metadata {
 public:
  Metadata(const GgufFile &file, std::string architecture) : file_(file), prefix_(std::move(architecture) + ".") {}

  std::optional<int64_t> FindInteger(const char *name) const { return file_.FindInteger(prefix_ + name); }
  std::optional<double> FindReal(const char *name) const { return file_.FindReal(prefix_ + name); }
  std::optional<bool> FindBool(const char *name) const { return file_.FindBool(prefix_ + name); }
  const GgufValue *Find(const char *name) const { return file_.Find(prefix_ + name); }
  const std::vector<int64_t> *FindIntegers(const char *name) const { return file_.FindIntegers(prefix_ + name); }
  std::optional<std::string_view> FindString(const char *name) const { return file_.FindString(prefix_ + name); }
  int64_t Integer(const char *name) const {
    const std::optional<int64_t> value = FindInteger(name);
    if (!value) Bad(file_, "metadata " + prefix_ + name + " is missing");
    return *value;
  }

 private:
  const GgufFile &file_;
  std::string prefix_;
};

// One divisor for each rotary pair.
std::vector<double> ReadDivisors(const GgufFile &file, const GgufTensor &tensor, int64_t pairs) {
  if (tensor.type != ElementType::kF32 || tensor.shape.size() != 1 || tensor.shape[0] != pairs) {
    Bad(file, "tensor " + tensor.name + ": is no vector of one F32 for each of " + std::to_string(pairs) + " rotary pairs");
  }
  std::vector<float> values(static_cast<size_t>(pairs));
  Dequantize(values.data(), file.file().data() + tensor.offset_bytes, pairs, tensor.type);
  return std::vector<double>(values.begin(), values.end());
}

void ReadRope(const GgufFile &file, const Metadata &metadata, ModelConfig *out) {
  RopeConfig &rope = out->rope;
  rope.theta = metadata.FindReal("rope.freq_base").value_or(10000.0);
  out->rotary_dims = metadata.FindInteger("rope.dimension_count").value_or(out->head_dim);
  const std::string scaling(metadata.FindString("rope.scaling.type").value_or("none"));
  const GgufTensor *divisors = file.FindTensor(kRopeDivisors), *short_factors = file.FindTensor(kShortFactors);
  if (scaling == "linear") {
    rope.kind = RopeKind::kLinear;
    rope.factor = metadata.FindReal("rope.scaling.factor").value_or(1.0);
    if (divisors != nullptr || short_factors != nullptr) Bad(file, "both linear rope scaling and rope factors are given");
  } else if (scaling != "none" && !(scaling == "longrope" && short_factors != nullptr)) {
    Bad(file, "rope scaling '" + scaling + "' is not supported; known are none, linear, " + kRopeDivisors + " and " +
                  kShortFactors);
  }
  if (divisors != nullptr) {
    rope.kind = RopeKind::kDivisors;
    rope.divisors = ReadDivisors(file, *divisors, out->rotary_dims / 2);
  } else if (short_factors != nullptr) {  // LongRoPE: the factors hold within the original context, and so does the model
    rope.kind = RopeKind::kDivisors;
    rope.divisors = ReadDivisors(file, *short_factors, out->rotary_dims / 2);
    rope.original_context = metadata.Integer("rope.scaling.original_context_length");
    rope.attention_factor = metadata.FindReal("rope.scaling.attn_factor").value_or(1.0);
    out->max_context = std::min(out->max_context, rope.original_context);
  }
}

int32_t FindTokenId(const GgufFile &file, const char *key) {
  const int64_t id = file.FindInteger(key).value_or(-1);
  if (id < -1 || id > INT32_MAX) Bad(file, std::string("metadata ") + key + " is no token id");
  return static_cast<int32_t>(id);
}

// What expert_gating_func says.
RouterScore ReadRouterScore(const GgufFile &file, const Metadata &metadata) {
  const int64_t function = metadata.FindInteger("expert_gating_func").value_or(1);
  if (function != 1 && function != 2) {
    Bad(file, "metadata expert_gating_func " + std::to_string(function) +
                  " is not supported; known are 1 (softmax) and 2 (sigmoid)");
  }
  return function == 1 ? RouterScore::kSoftmax : RouterScore::kSigmoid;
}

void ReadExperts(const GgufFile &file, const Metadata &metadata, const Family &family, ModelConfig *out) {
  out->experts = metadata.Integer("expert_count");
  out->experts_per_token = metadata.Integer("expert_used_count");
  const double scale = metadata.FindReal("expert_weights_scale").value_or(0);
  if (scale != 0 && scale != 1) Bad(file, "experts whose weights are scaled (expert_weights_scale) are not supported");
  if (metadata.FindInteger("expert_group_count").value_or(0) > 1) {
    Bad(file, "experts that are chosen by groups (expert_group_count) are not supported");
  }
  out->router_score = ReadRouterScore(file, metadata);
  out->normalised_experts = metadata.FindBool("expert_weights_norm").value_or(family.gguf_normalised_experts);
  int64_t first_sparse = -1;
  for (int64_t layer = 0; layer < out->layers; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    const bool is_dense = family.dense_layers && file.FindTensor(prefix + "ffn_gate.weight") != nullptr;
    out->sparse_layers.push_back(!is_dense);
    if (!is_dense && first_sparse < 0) first_sparse = layer;
  }
  if (first_sparse < 0) Bad(file, "there are no layers with experts, but expert_count is " + std::to_string(out->experts));
  // Older files leave the width to the tensors: [experts, width, hidden].
  const std::string prefix = "blk." + std::to_string(first_sparse) + ".";
  if (file.FindTensor(prefix + "ffn_gate.0.weight") != nullptr) {
    Bad(file, "experts in tensors of their own (" + prefix + "ffn_gate.0.weight), an early form of GGUF, are not supported");
  }
  const auto width = [&](const char *key, const char *name) {
    const GgufTensor *tensor = file.FindTensor(prefix + name);
    if (tensor == nullptr) Bad(file, "tensor " + prefix + name + " is missing");
    const std::vector<int64_t> &shape = tensor->shape;
    return metadata.FindInteger(key).value_or(shape.size() < 2 ? 1 : shape[shape.size() - 2]);
  };
  out->expert_ffn = width("expert_feed_forward_length", "ffn_gate_exps.weight");
  if (family.shared_expert) out->shared_ffn = width("expert_shared_feed_forward_length", "ffn_gate_shexp.weight");
  out->shared_gate = family.shared_expert && family.shared_gate;
  CheckExperts(*out, file.path());
}

// KV heads of the model; with a number for each layer, 0 stands for a state-space part instead of attention.
void ReadKvHeads(const GgufFile &file, const Metadata &metadata, const Family &family, ModelConfig *out) {
  const char *key = "attention.head_count_kv";
  const GgufValue *value = metadata.Find(key);
  if (family.hybrid == HybridKind::kNone || value == nullptr || value->type != GgufType::kArray) {
    out->kv_heads = metadata.FindInteger(key).value_or(out->heads);
    if (family.hybrid != HybridKind::kNone) out->ssm_layers.assign(static_cast<size_t>(out->layers), out->kv_heads == 0);
    return;
  }
  const std::vector<int64_t> &layers = *metadata.FindIntegers(key);
  if (static_cast<int64_t>(layers.size()) != out->layers) {
    Bad(file, std::string("metadata ") + key + " is no array of a number for each of " + std::to_string(out->layers) + " layers");
  }
  for (const int64_t heads : layers) {
    out->ssm_layers.push_back(heads == 0);
    if (heads == 0) continue;
    if (out->kv_heads != 0 && heads != out->kv_heads) Bad(file, "layers with different numbers of KV heads are not supported");
    out->kv_heads = heads;
  }
}

void ReadStateSpace(const GgufFile &file, const Metadata &metadata, ModelConfig *out) {
  StateSpaceConfig &ssm = out->ssm;
  const int64_t inner = metadata.Integer("ssm.inner_size");
  ssm.heads = metadata.Integer("ssm.time_step_rank");
  ssm.state = metadata.Integer("ssm.state_size");
  ssm.groups = metadata.FindInteger("ssm.group_count").value_or(1);
  ssm.conv_width = metadata.Integer("ssm.conv_kernel");
  if (ssm.heads <= 0 || inner % ssm.heads != 0) {
    Bad(file, "metadata ssm.inner_size " + std::to_string(inner) + " is no multiple of ssm.time_step_rank " +
                  std::to_string(ssm.heads));
  }
  ssm.head_dim = inner / ssm.heads;
  for (int64_t layer = 0; layer < out->layers; ++layer) {
    if (!out->IsStateSpace(layer)) continue;
    ssm.conv_bias = file.FindTensor("blk." + std::to_string(layer) + ".ssm_conv1d.bias") != nullptr;
    break;
  }
}

// A scale that is 0 stands for none.
double ScaleOr(const Metadata &metadata, const char *key, double usual) {
  const double scale = metadata.FindReal(key).value_or(0);
  return scale == 0 ? usual : scale;
}

bool HasBias(const GgufFile &file, const std::string &name) { return file.FindTensor(name) != nullptr; }

ModelConfig ReadConfig(const GgufFile &file, const std::string &architecture, const Family &family) {
  const Metadata metadata(file, architecture);
  ModelConfig out;
  out.family = family.name;
  out.architecture = architecture;
  out.hidden = metadata.Integer("embedding_length");
  out.layers = metadata.Integer("block_count");
  const bool is_pure = family.hybrid == HybridKind::kMamba2;
  CheckLayerCount(out.layers, file.path());
  if (is_pure) {
    out.ssm_layers.assign(static_cast<size_t>(out.layers), true);
  } else {
    out.ffn = metadata.Integer("feed_forward_length");
    out.heads = metadata.Integer("attention.head_count");
    if (out.heads <= 0) Bad(file, "metadata " + architecture + ".attention.head_count is out of range");
    ReadKvHeads(file, metadata, family, &out);
    out.head_dim = metadata.FindInteger("attention.key_length").value_or(out.hidden / out.heads);
  }
  if (out.HasStateSpace()) ReadStateSpace(file, metadata, &out);
  if (family.hybrid == HybridKind::kGranite) {
    const int64_t shared = metadata.FindInteger("expert_shared_feed_forward_length").value_or(0);
    if (shared > 0) out.ffn = shared;
    out.embedding_scale = ScaleOr(metadata, "embedding_scale", 1);
    out.residual_scale = ScaleOr(metadata, "residual_scale", 1);
    out.attention_scale = ScaleOr(metadata, "attention.scale", 0);
    out.logit_scale = 1 / ScaleOr(metadata, "logit_scale", 1);
  }
  if (metadata.FindInteger("attention.value_length").value_or(out.head_dim) != out.head_dim) {
    Bad(file, "keys and values of different length are not supported");
  }
  out.max_context = metadata.Integer("context_length");
  out.norm = family.norm;
  out.rms_eps = metadata
                    .FindReal(family.norm == NormKind::kLayer ? "attention.layer_norm_epsilon"
                                                              : "attention.layer_norm_rms_epsilon")
                    .value_or(1e-5);
  out.sliding_window = metadata.FindInteger("attention.sliding_window").value_or(0);
  if (out.sliding_window != 0 && metadata.Find("attention.sliding_window_pattern") != nullptr) {
    Bad(file, "metadata " + architecture + ".attention.sliding_window_pattern: layers with and without a sliding window are supported "
              "in Hugging Face folders alone");
  }
  if (!family.qk_norm && file.FindTensor("blk.0.attn_q_norm.weight") != nullptr) {
    Bad(file, "a norm of each head of q and k (blk.0.attn_q_norm.weight) is not supported for architecture " + architecture);
  }
  if (!is_pure && file.FindTensor("blk.0.attn_norm.weight") != nullptr && file.FindTensor("blk.0.ffn_norm.weight") == nullptr) {
    Bad(file, "layers whose attention and FFN stand side by side (no blk.0.ffn_norm.weight) are not supported");
  }
  const GgufTensor *embedding = file.FindTensor("token_embd.weight");
  if (embedding == nullptr) Bad(file, "tensor token_embd.weight is missing");
  out.vocab = embedding->shape.front();
  // Granite tells by this key whether positions are rotated at all.
  const bool is_rotated = !out.HasStateSpace() || metadata.FindBool("rope.scaling.finetuned").value_or(true);
  if (!is_pure && is_rotated) ReadRope(file, metadata, &out);
  out.tied_head = file.FindTensor("output.weight") == nullptr;
  if (family.scaled_embedding) out.embedding_scale = std::sqrt(static_cast<double>(out.hidden));
  if (family.activation != nullptr) out.activation = *ActivationByName(family.activation);
  const auto first_attention = std::find(out.ssm_layers.begin(), out.ssm_layers.end(), false);
  const std::string attention = "blk." + std::to_string(first_attention - out.ssm_layers.begin()) + ".";
  out.q_bias = HasBias(file, attention + "attn_q.bias");
  out.k_bias = HasBias(file, attention + "attn_k.bias");
  out.v_bias = HasBias(file, attention + "attn_v.bias");
  out.o_bias = HasBias(file, attention + "attn_output.bias");
  out.mlp_bias = HasBias(file, "blk.0.ffn_gate.bias");
  out.qk_norm = family.qk_norm;
  out.qk_norm_rows = family.qk_norm_rows;
  if (family.clips_qkv) out.qkv_limit = metadata.FindReal("attention.clamp_kqv").value_or(0);
  out.bos_id = FindTokenId(file, "tokenizer.ggml.bos_token_id");
  out.pad_id = FindTokenId(file, "tokenizer.ggml.padding_token_id");
  for (const char *key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    const int32_t id = FindTokenId(file, key);
    if (id >= 0 && (out.eos_ids.empty() || out.eos_ids.front() != id)) out.eos_ids.push_back(id);
  }
  CheckConfig(out, file.path());
  if (metadata.FindInteger("expert_count").value_or(0) > 0) ReadExperts(file, metadata, family, &out);
  // A part of each head: the converter to this architecture mixes the halves of whole heads all the same.
  const bool is_known = family.hybrid == HybridKind::kGranite;
  if (family.gguf_interleaved && !is_known && out.rotary_dims != out.head_dim) {
    Bad(file, "a rotation of " + std::to_string(out.rotary_dims) + " of " + std::to_string(out.head_dim) +
                  " dims is not supported for architecture " + architecture);
  }
  return out;
}

}  // namespace

std::unique_ptr<SourceParts> ImportGguf(const std::string &path) {
  auto parts = std::make_unique<SourceParts>();
  parts->format = SourceFormat::kGguf;
  parts->path = path;
  parts->gguf = std::make_unique<GgufFile>(path);
  const GgufFile &file = *parts->gguf;
  const std::optional<std::string_view> architecture = file.FindString("general.architecture");
  if (!architecture) Bad(file, "metadata general.architecture is missing");
  const std::string name(*architecture);
  const bool is_sparse = file.FindInteger(name + ".expert_count").value_or(0) > 0;
  const Family &family = FamilyByGguf(name, is_sparse, path);
  if (file.FindInteger("split.count").value_or(1) > 1) Bad(file, "models split over several files are not supported");
  parts->config = ReadConfig(file, name, family);
  const Span<const TensorName> names(kTensorNames, std::size(kTensorNames));
  const auto add = [&](const WantedTensor &wanted) {
    const GgufTensor *tensor = file.FindTensor(wanted.name);
    if (tensor == nullptr) Bad(file, "tensor " + wanted.name + " is missing");
    const bool is_rotated = wanted.first == TensorRole::kQ || wanted.first == TensorRole::kK ||
                            wanted.first == TensorRole::kQBias || wanted.first == TensorRole::kKBias;
    TensorView view;
    view.file = &file.file();
    view.offset_bytes = tensor->offset_bytes;
    view.type = tensor->type;
    view.interleaved = family.gguf_interleaved && is_rotated;
    std::vector<int64_t> shape = tensor->shape;
    const StateSpaceConfig &ssm = parts->config.ssm;
    const bool is_norm = wanted.first == TensorRole::kSsmNorm;  // [groups, inner / groups]
    if (is_norm && shape == std::vector<int64_t>{ssm.groups, ssm.inner() / ssm.groups}) shape = {ssm.inner()};
    AddTensor(parts.get(), wanted, shape, std::move(view));
  };
  ForEachTensor(parts->config, family.projections, names, "blk.", add);
  ForEachTensor(parts->config, Projections::kFused, {&kStateSpaceIn, 1}, "blk.", add);
  parts->tokenizer.gguf = parts->gguf.get();
  return parts;
}

}  // namespace acorn::compiler
