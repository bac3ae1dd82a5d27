#include "import/source_model.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "import/source_parts.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kMaxWidth = int64_t{1} << 20;  // hidden, ffn, head_dim
constexpr int64_t kMaxLayerNormWidth = 8192;         // docs/ARITHMETIC.md §4.2
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = int64_t{1} << 14;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxContext = int64_t{1} << 26;
constexpr int64_t kMaxExperts = int64_t{1} << 14;
constexpr int64_t kMaxState = 4096;
constexpr int64_t kMaxConvWidth = 64;

// Pages of a read this long are given back at once: the resident set stays near one layer.
constexpr uint64_t kReleaseBytes = uint64_t{1} << 18;

constexpr const char *kRoleNames[kTensorRoles] = {
    "embedding", "head",   "final_norm", "attn_norm", "q",    "k",  "v",    "o",         "q_bias",  "k_bias",    "v_bias",
    "o_bias",    "q_norm", "k_norm",     "ffn_norm",  "gate", "up", "down", "gate_bias", "up_bias", "down_bias",
    "final_norm_bias", "attn_norm_bias", "ffn_norm_bias", "router", "expert_gate", "expert_up", "expert_down",
    "shared_gate", "shared_up", "shared_down", "shared_expert_gate", "ssm_gate", "ssm_conv_in", "ssm_step", "ssm_conv",
    "ssm_conv_bias", "ssm_step_bias", "ssm_decay", "ssm_skip", "ssm_norm", "ssm_out",
};

void CheckRange(const std::string &path, const char *what, int64_t value, int64_t max) {
  if (value < 1 || value > max) {
    throw Error(ExitCode::kBadModel,
                path + ": " + what + " " + std::to_string(value) + " is out of range (1 to " + std::to_string(max) + ")");
  }
}

void CheckReal(const std::string &path, const char *what, double value) {
  if (!std::isfinite(value) || value <= 0) {
    throw Error(ExitCode::kBadModel, path + ": " + what + " " + std::to_string(value) + " is no positive number");
  }
}

void CheckToken(const std::string &path, const char *what, int32_t id, int64_t vocab) {
  if (id >= vocab) {
    throw Error(ExitCode::kBadModel,
                path + ": " + what + " token " + std::to_string(id) + " is outside the vocabulary of " + std::to_string(vocab));
  }
}

// Row (or element of a vector) of the source that holds row `row` in the order of rotary halves.
int64_t InterleavedRow(int64_t row, int64_t head_dim) {
  const int64_t half_dims = head_dim / 2;
  const int64_t in_head = row % head_dim;
  return row - in_head + 2 * (in_head % half_dims) + in_head / half_dims;
}

uint64_t RowBytes(const TensorView &view) {
  return static_cast<uint64_t>(view.k / BlockElems(view.type)) * static_cast<uint64_t>(BlockBytes(view.type));
}

void ReadRow(float *dst, const TensorView &view, int64_t row) {
  const uint64_t offset = view.offset_bytes + static_cast<uint64_t>(row) * RowBytes(view);
  Dequantize(dst, view.file->data() + offset, view.k, view.type);
}

// Rows [first, first + out.rows()) of the view.
void ReadRows(MatrixRef out, const TensorView &view, int64_t first, int64_t head_dim) {
  const int64_t count = out.rows();
  const bool is_vector = view.n == 1;
  for (int64_t row = 0; row < count; ++row) {
    const int64_t src_row = first + row;
    ReadRow(out.row(row).data(), view, view.interleaved && !is_vector ? InterleavedRow(src_row, head_dim) : src_row);
  }
  if (view.offset != 0) out.array() += view.offset;
  if (view.is_log) out = -out.array().exp();
  const uint64_t read_bytes = static_cast<uint64_t>(count) * RowBytes(view);
  if (read_bytes >= kReleaseBytes) {
    view.file->Release(view.offset_bytes + static_cast<uint64_t>(first) * RowBytes(view), read_bytes);
  }
  if (view.interleaved && is_vector && count == 1) {
    const Matrix pairs = out;
    for (int64_t i = 0; i < view.k; ++i) out(0, i) = pairs(0, InterleavedRow(i, head_dim));
  }
  if (!out.allFinite()) {
    throw Error(ExitCode::kBadModel, view.file->path() + ": tensor " + view.name + " at offset " +
                                         std::to_string(view.offset_bytes) + " holds a value that is not finite");
  }
}

// Parts of a role that are stored apart, and the shape of one.
int64_t Parts(const ModelConfig &config, TensorRole role) { return IsExpertRole(role) ? config.experts : 1; }

TensorShape PartShape(const ModelConfig &config, TensorRole role) {
  const TensorShape whole = RoleShape(config, role);
  return {whole.n / Parts(config, role), whole.k};
}

TensorRole RoleBehind(TensorRole first, int index) { return static_cast<TensorRole>(static_cast<int>(first) + index); }

}  // namespace

const char *TensorRoleName(TensorRole role) { return kRoleNames[static_cast<int>(role)]; }

bool IsLayerRole(TensorRole role) {
  return role != TensorRole::kEmbedding && role != TensorRole::kHead && role != TensorRole::kFinalNorm &&
         role != TensorRole::kFinalNormBias;
}

bool IsExpertRole(TensorRole role) {
  return role == TensorRole::kExpertGate || role == TensorRole::kExpertUp || role == TensorRole::kExpertDown;
}

TensorShape RoleShape(const ModelConfig &config, TensorRole role) {
  const int64_t q_width = config.heads * config.head_dim;
  const int64_t kv_width = config.kv_heads * config.head_dim;
  switch (role) {
    case TensorRole::kEmbedding:
    case TensorRole::kHead:
      return {config.vocab, config.hidden};
    case TensorRole::kFinalNorm:
    case TensorRole::kAttnNorm:
    case TensorRole::kFfnNorm:
    case TensorRole::kFinalNormBias:
    case TensorRole::kAttnNormBias:
    case TensorRole::kFfnNormBias:
    case TensorRole::kOBias:
    case TensorRole::kDownBias:
    case TensorRole::kSharedExpertGate:
      return {1, config.hidden};
    case TensorRole::kQ:
      return {q_width, config.hidden};
    case TensorRole::kK:
    case TensorRole::kV:
      return {kv_width, config.hidden};
    case TensorRole::kO:
      return {config.hidden, q_width};
    case TensorRole::kQBias:
      return {1, q_width};
    case TensorRole::kKBias:
    case TensorRole::kVBias:
      return {1, kv_width};
    case TensorRole::kQNorm:
      return {1, config.qk_norm_rows ? q_width : config.head_dim};
    case TensorRole::kKNorm:
      return {1, config.qk_norm_rows ? kv_width : config.head_dim};
    case TensorRole::kGate:
    case TensorRole::kUp:
      return {config.ffn, config.hidden};
    case TensorRole::kDown:
      return {config.hidden, config.ffn};
    case TensorRole::kGateBias:
    case TensorRole::kUpBias:
      return {1, config.ffn};
    case TensorRole::kRouter:
      return {config.experts, config.hidden};
    case TensorRole::kExpertGate:
    case TensorRole::kExpertUp:
      return {config.experts * config.expert_ffn, config.hidden};
    case TensorRole::kExpertDown:
      return {config.experts * config.hidden, config.expert_ffn};
    case TensorRole::kSharedGate:
    case TensorRole::kSharedUp:
      return {config.shared_ffn, config.hidden};
    case TensorRole::kSharedDown:
      return {config.hidden, config.shared_ffn};
    case TensorRole::kSsmGate:
      return {config.ssm.inner(), config.hidden};
    case TensorRole::kSsmConvIn:
      return {config.ssm.conv_channels(), config.hidden};
    case TensorRole::kSsmStep:
      return {config.ssm.heads, config.hidden};
    case TensorRole::kSsmConv:
      return {config.ssm.conv_channels(), config.ssm.conv_width};
    case TensorRole::kSsmConvBias:
      return {1, config.ssm.conv_channels()};
    case TensorRole::kSsmStepBias:
    case TensorRole::kSsmDecay:
    case TensorRole::kSsmSkip:
      return {1, config.ssm.heads};
    case TensorRole::kSsmNorm:
      return {1, config.ssm.inner()};
    case TensorRole::kSsmOut:
      return {config.hidden, config.ssm.inner()};
  }
  return {};
}

bool HasRole(const ModelConfig &config, TensorRole role, int64_t layer) {
  const bool has_attention = !config.IsStateSpace(layer), has_dense_ffn = config.ffn != 0 && !config.IsSparse(layer);
  switch (role) {
    case TensorRole::kQ:
    case TensorRole::kK:
    case TensorRole::kV:
    case TensorRole::kO:
      return has_attention;
    case TensorRole::kQBias:
      return has_attention && config.q_bias;
    case TensorRole::kKBias:
      return has_attention && config.k_bias;
    case TensorRole::kVBias:
      return has_attention && config.v_bias;
    case TensorRole::kOBias:
      return has_attention && config.o_bias;
    case TensorRole::kQNorm:
    case TensorRole::kKNorm:
      return has_attention && config.qk_norm;
    case TensorRole::kFfnNorm:
      return config.HasFfn(layer);
    case TensorRole::kGate:
    case TensorRole::kUp:
    case TensorRole::kDown:
      return has_dense_ffn;
    case TensorRole::kGateBias:
    case TensorRole::kUpBias:
    case TensorRole::kDownBias:
      return config.mlp_bias && has_dense_ffn;
    case TensorRole::kRouter:
    case TensorRole::kExpertGate:
    case TensorRole::kExpertUp:
    case TensorRole::kExpertDown:
      return config.IsSparse(layer);
    case TensorRole::kSharedGate:
    case TensorRole::kSharedUp:
    case TensorRole::kSharedDown:
      return config.IsSparse(layer) && config.shared_ffn != 0;
    case TensorRole::kSharedExpertGate:
      return config.IsSparse(layer) && config.shared_gate;
    case TensorRole::kFinalNormBias:
    case TensorRole::kAttnNormBias:
    case TensorRole::kFfnNormBias:
      return config.norm == NormKind::kLayer;
    case TensorRole::kSsmConvBias:
      return config.IsStateSpace(layer) && config.ssm.conv_bias;
    case TensorRole::kSsmGate:
    case TensorRole::kSsmConvIn:
    case TensorRole::kSsmStep:
    case TensorRole::kSsmConv:
    case TensorRole::kSsmStepBias:
    case TensorRole::kSsmDecay:
    case TensorRole::kSsmSkip:
    case TensorRole::kSsmNorm:
    case TensorRole::kSsmOut:
      return config.IsStateSpace(layer);
    default:
      return true;
  }
}

namespace {

void CheckAttention(const ModelConfig &config, const std::string &path) {
  CheckRange(path, "number of heads", config.heads, kMaxHeads);
  CheckRange(path, "number of KV heads", config.kv_heads, kMaxHeads);
  CheckRange(path, "head size", config.head_dim, kMaxWidth);
  CheckRange(path, "heads times head size", config.heads * config.head_dim, kMaxWidth);
  if (config.heads % config.kv_heads != 0) {
    throw Error(ExitCode::kBadModel, path + ": " + std::to_string(config.heads) + " heads are no multiple of " +
                                         std::to_string(config.kv_heads) + " KV heads");
  }
  const bool has_no_rotation = config.rotary_dims == 0 && config.HasStateSpace();  // whose states tell positions apart
  if (!has_no_rotation && (config.rotary_dims < 2 || config.rotary_dims > config.head_dim || config.rotary_dims % 2 != 0)) {
    throw Error(ExitCode::kBadModel, path + ": " + std::to_string(config.rotary_dims) + " rotary dims of a head of " +
                                         std::to_string(config.head_dim) + " make no sense");
  }
  // Pairs are what a rotation turns, and what GGUF stores rows of q and k by even where nothing is rotated.
  if (config.head_dim % 2 != 0) {
    throw Error(ExitCode::kBadModel, path + ": head size " + std::to_string(config.head_dim) + " is odd");
  }
  if (config.attention_scale != 0) CheckReal(path, "attention scale", config.attention_scale);
}

void CheckStateSpace(const ModelConfig &config, const std::string &path) {
  const StateSpaceConfig &ssm = config.ssm;
  CheckRange(path, "number of state-space heads", ssm.heads, kMaxHeads);
  CheckRange(path, "size of a state-space head", ssm.head_dim, kMaxWidth);
  CheckRange(path, "state-space heads times their size", ssm.inner(), kMaxWidth);
  CheckRange(path, "state size", ssm.state, kMaxState);
  CheckRange(path, "number of state-space groups", ssm.groups, ssm.heads);
  CheckRange(path, "convolved channels", ssm.conv_channels(), kMaxWidth);
  CheckRange(path, "width of the convolution", ssm.conv_width, kMaxConvWidth);
  if (ssm.heads % ssm.groups != 0) {
    throw Error(ExitCode::kBadModel, path + ": " + std::to_string(ssm.heads) + " state-space heads are no multiple of " +
                                         std::to_string(ssm.groups) + " groups");
  }
  if (!(ssm.min_step >= 0 && ssm.max_step > ssm.min_step)) {
    throw Error(ExitCode::kBadModel, path + ": limits of the time step, " + std::to_string(ssm.min_step) + " to " +
                                         std::to_string(ssm.max_step) + ", make no sense");
  }
}

}  // namespace

void CheckLayerCount(int64_t layers, const std::string &path) { CheckRange(path, "number of layers", layers, kMaxLayers); }

void CheckConfig(const ModelConfig &config, const std::string &path) {
  CheckRange(path, "hidden size", config.hidden, kMaxWidth);
  if (config.HasAttention() || config.ffn != 0) CheckRange(path, "FFN size", config.ffn, kMaxWidth);
  CheckLayerCount(config.layers, path);
  // A hybrid whose layers are all state spaces says sizes of heads too, and shapes are computed with them.
  if (config.HasAttention() || config.heads != 0) CheckAttention(config, path);
  if (config.HasStateSpace()) CheckStateSpace(config, path);
  CheckRange(path, "vocabulary size", config.vocab, kMaxVocab);
  CheckRange(path, "context length", config.max_context, kMaxContext);
  if (config.sliding_window < 0) throw Error(ExitCode::kBadModel, path + ": the sliding window is negative");
  if (config.norm == NormKind::kLayer) CheckRange(path, "width of a LayerNorm", config.hidden, kMaxLayerNormWidth);
  CheckReal(path, config.norm == NormKind::kLayer ? "LayerNorm epsilon" : "RMSNorm epsilon", config.rms_eps);
  CheckReal(path, "embedding scale", config.embedding_scale);
  CheckReal(path, "residual scale", config.residual_scale);
  CheckReal(path, "scale of the logits", config.logit_scale);
  CheckReal(path, "rope theta", config.rope.theta);
  CheckReal(path, "rope factor", config.rope.factor);
  CheckReal(path, "rope attention factor", config.rope.attention_factor);
  for (const double divisor : config.rope.divisors) CheckReal(path, "rope divisor", divisor);
  if (config.rope.kind == RopeKind::kLlama3) {
    CheckReal(path, "rope low_freq_factor", config.rope.low_freq_factor);
    CheckReal(path, "rope high_freq_factor", config.rope.high_freq_factor);
    CheckRange(path, "rope original context", config.rope.original_context, kMaxContext);
    if (config.rope.high_freq_factor <= config.rope.low_freq_factor) {
      throw Error(ExitCode::kBadModel, path + ": rope high_freq_factor is not above low_freq_factor");
    }
  }
  if (config.qkv_limit != 0) CheckReal(path, "limit of q, k and v", config.qkv_limit);
  CheckToken(path, "start", config.bos_id, config.vocab);
  for (const int32_t id : config.eos_ids) CheckToken(path, "end", id, config.vocab);
}

void CheckExperts(const ModelConfig &config, const std::string &path) {
  CheckRange(path, "number of experts", config.experts, kMaxExperts);
  CheckRange(path, "number of experts of a token", config.experts_per_token, config.experts);
  CheckRange(path, "FFN size of an expert", config.expert_ffn, kMaxWidth);
  if (config.shared_gate || config.shared_ffn != 0) CheckRange(path, "FFN size of the shared expert", config.shared_ffn, kMaxWidth);
}

void ForEachTensor(const ModelConfig &config, Projections projections, Span<const TensorName> names, const char *layer_prefix,
                   const std::function<void(const WantedTensor &tensor)> &add) {
  const auto is_fused = [&](TensorRole role) {
    return std::any_of(names.begin(), names.end(), [&](const TensorName &row) {
      return row.roles > 1 && role >= row.first && static_cast<int>(role) < static_cast<int>(row.first) + row.roles;
    });
  };
  for (const TensorName &row : names) {
    if (row.first == TensorRole::kHead && config.tied_head) continue;
    if (is_fused(row.first) && (row.roles > 1) != (projections == Projections::kFused)) continue;
    const int64_t layers = IsLayerRole(row.first) ? config.layers : 1;
    for (int64_t layer = 0; layer < layers; ++layer) {
      if (!HasRole(config, row.first, layer)) continue;
      std::string name = row.name;
      if (IsLayerRole(row.first)) name = layer_prefix + std::to_string(layer) + "." + name;
      const size_t star = name.find('*');
      if (star == std::string::npos) {
        add({row.first, row.roles, layer, -1, name});
        continue;
      }
      for (int64_t expert = 0; expert < config.experts; ++expert) {
        add({row.first, row.roles, layer, expert, name.substr(0, star) + std::to_string(expert) + name.substr(star + 1)});
      }
    }
  }
}

void AddTensor(SourceParts *parts, const WantedTensor &tensor, const std::vector<int64_t> &shape, TensorView view) {
  const ModelConfig &config = parts->config;
  view.name = tensor.name;
  const int64_t stacked = tensor.expert < 0 ? Parts(config, tensor.first) : 1;
  const int64_t first_part = std::max<int64_t>(tensor.expert, 0);
  TensorShape want = PartShape(config, tensor.first);
  for (int i = 1; i < tensor.roles; ++i) want.n += PartShape(config, RoleBehind(tensor.first, i)).n;
  std::vector<int64_t> want_shape = {want.n, want.k};
  if (IsExpertRole(tensor.first) && tensor.expert < 0) want_shape.insert(want_shape.begin(), stacked);
  const auto without_ones = [](std::vector<int64_t> dims) {
    dims.erase(std::remove(dims.begin(), dims.end(), 1), dims.end());
    return dims;
  };
  const auto text = [](const std::vector<int64_t> &dims) {
    std::string list;
    for (const int64_t dim : dims) list += (list.empty() ? "" : ", ") + std::to_string(dim);
    return "[" + list + "]";
  };
  const bool has_other_dims = shape.empty() || shape.size() > want_shape.size();
  if (has_other_dims || without_ones(shape) != without_ones(want_shape) || want.k % BlockElems(view.type) != 0) {
    throw Error(ExitCode::kBadModel, view.file->path() + ": tensor " + view.name + " at offset " +
                                         std::to_string(view.offset_bytes) + " is " + text(shape) +
                                         ", the configuration wants " + text(want_shape));
  }
  view.k = want.k;
  for (int64_t part = first_part; part < first_part + stacked; ++part) {
    for (int i = 0; i < tensor.roles; ++i) {
      const TensorRole role = RoleBehind(tensor.first, i);
      view.n = PartShape(config, role).n;
      parts->tensors.emplace(TensorKey{role, tensor.layer, part}, view);
      view.offset_bytes += static_cast<uint64_t>(view.n) * RowBytes(view);
    }
  }
}

SourceModel::SourceModel(std::unique_ptr<SourceParts> parts) : parts_(std::move(parts)), config_(parts_->config) {}
SourceModel::SourceModel(const SourceModel &other, ModelConfig config) : parts_(other.parts_), config_(std::move(config)) {}
SourceModel::~SourceModel() = default;

SourceFormat SourceModel::format() const { return parts_->format; }
const std::string &SourceModel::path() const { return parts_->path; }
const ModelConfig &SourceModel::config() const { return config_; }
const TokenizerSource &SourceModel::tokenizer() const { return parts_->tokenizer; }

Matrix SourceModel::Load(TensorRole role, int64_t layer) const { return LoadRows(role, layer, 0, RoleShape(config(), role).n); }

Matrix SourceModel::LoadExpert(TensorRole role, int64_t layer, int64_t expert) const {
  const int64_t rows = PartShape(config(), role).n;
  return LoadRows(role, layer, expert * rows, rows);
}

LayerOrder SourceModel::Order(int64_t) const { return {}; }

Matrix SourceModel::LoadRows(TensorRole role, int64_t layer, int64_t first, int64_t count) const {
  const TensorRole stored = role == TensorRole::kHead && config().tied_head ? TensorRole::kEmbedding : role;
  const int64_t stored_layer = IsLayerRole(stored) ? layer : 0;
  const auto found = parts_->tensors.find(TensorKey{stored, stored_layer, 0});
  if (found == parts_->tensors.end()) {
    throw Error(ExitCode::kBadModel, path() + ": there is no " + TensorRoleName(role) + " in layer " + std::to_string(layer));
  }
  const TensorView &view = found->second;
  const int64_t rows = view.n * Parts(parts_->config, stored);
  if (first < 0 || count < 0 || first > rows || count > rows - first) {
    throw Error(ExitCode::kBadModel, path() + ": tensor " + view.name + " has no rows " + std::to_string(first) + " to " +
                                         std::to_string(first + count));
  }
  Matrix out(count, view.k);
  for (int64_t done = 0; done < count;) {
    const int64_t part = (first + done) / view.n, row = (first + done) % view.n;
    const int64_t length = std::min(count - done, view.n - row);
    ReadRows(out.middleRows(done, length), parts_->tensors.at(TensorKey{stored, stored_layer, part}), row, config().head_dim);
    done += length;
  }
  return out;
}

int64_t SourceModel::SourceElems() const {
  int64_t elems = 0;
  for (const auto &entry : parts_->tensors) elems += entry.second.n * entry.second.k;
  return elems;
}

int64_t SourceModel::SourceBytes() const {
  int64_t bytes = 0;
  for (const auto &entry : parts_->tensors) {
    const TensorView &view = entry.second;
    bytes += view.n * (view.k / BlockElems(view.type)) * BlockBytes(view.type);
  }
  return bytes;
}

std::optional<ActivationKind> ActivationByName(const std::string &name) {
  if (name == "silu" || name == "swish") return ActivationKind::kSilu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new") return ActivationKind::kGeluTanh;
  if (name == "gelu") return ActivationKind::kGelu;
  return std::nullopt;
}

namespace {

// So that no distance exceeds what the model was trained for, nor those to two sinks in front of the window.
void SetWindow(int64_t window, const std::string &path, ModelConfig *config) {
  constexpr int64_t kSinks = 2;
  if (!config->HasAttention()) throw Error(ExitCode::kUsage, path + ": no layer has attention, so there is nothing to see a window of");
  if (window > config->max_context - kSinks) {
    throw Error(ExitCode::kUsage, path + ": a window of " + std::to_string(window) + " tokens: the model was trained for " +
                                      std::to_string(config->max_context) + " positions, so at most " +
                                      std::to_string(config->max_context - kSinks) + " are possible");
  }
  config->sliding_window = window;
  config->windowed_layers.clear();
  config->chosen_window = true;
}

}  // namespace

std::unique_ptr<SourceModel> OpenSourceModel(const std::string &path, const SourceOptions &options) {
  std::error_code fault;
  const std::filesystem::file_status status = std::filesystem::status(path, fault);
  if (!std::filesystem::exists(status)) throw Error(ExitCode::kIo, path + ": there is no such file or folder");
  std::unique_ptr<SourceParts> parts;
  if (std::filesystem::is_directory(status)) {
    parts = ImportHuggingFace(path);
  } else if (GgufFile::IsGguf(path)) {
    parts = ImportGguf(path);
  } else {
    parts = ImportLlama2c(path);
  }
  if (!options.tokenizer_path.empty()) {
    if (!std::filesystem::exists(options.tokenizer_path)) {
      throw Error(ExitCode::kIo, options.tokenizer_path + ": there is no such tokenizer file");
    }
    std::string *slot =
        parts->format == SourceFormat::kLlama2c ? &parts->tokenizer.llama2c_bin : &parts->tokenizer.tokenizer_json;
    *slot = options.tokenizer_path;
  }
  if (options.window != 0) SetWindow(options.window, path, &parts->config);
  return std::make_unique<SourceModel>(std::move(parts));
}

}  // namespace acorn::compiler
