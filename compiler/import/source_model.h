// SourceModel: one view on every kind of source: a Hugging Face folder, a GGUF file, a llama2.c checkpoint.
// Gives the configuration and, on demand, each tensor by its role as float32; files stay mapped and nothing is kept.
// For the float reference, the quantiser and the tokenizer builder. Knows no arithmetic.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "acorn_schema/pairs.h"
#include "base/matrix.h"
#include "import/gguf.h"

namespace acorn::compiler {

enum class RopeKind { kDefault, kLinear, kLlama3, kDivisors };

struct RopeConfig {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000.0;
  double factor = 1.0;            // kLinear and kLlama3
  double low_freq_factor = 1.0;   // kLlama3
  double high_freq_factor = 4.0;  // kLlama3
  int64_t original_context = 0;   // kLlama3
  std::vector<double> divisors;   // kDivisors: of each pair's frequency (GGUF's form of kLlama3, LongRoPE's short factors)
  double attention_factor = 1.0;  // of the rotated dims of q and of k, both (LongRoPE); LoadLayer() folds it into weights
};

enum class ActivationKind { kSilu, kGeluTanh, kGelu };

enum class NormKind {
  kRms,
  kLayer,  // with a bias
};

/// What makes an expert's weight of the router's logits.
enum class RouterScore {
  kSoftmax,  // over all experts
  kSigmoid,  // of each by itself
};

/// What a state-space layer is made of (Mamba2): its input becomes a gate, channels that go through a short causal convolution
/// (x, B and C) and a time step for each head.
struct StateSpaceConfig {
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t state = 0;       // of each channel of a head
  int64_t groups = 0;      // of heads that share B and C, and of channels that the gated norm takes together; divides heads
  int64_t conv_width = 0;  // tokens that the convolution sees, the present one included
  bool conv_bias = false;
  double min_step = 0;  // limits of a time step behind the softplus
  double max_step = std::numeric_limits<double>::infinity();

  int64_t inner() const { return heads * head_dim; }
  int64_t conv_channels() const { return inner() + 2 * groups * state; }
};

/// Everything that a block needs to know, in the convention of Hugging Face (rotary halves, not pairs).
struct ModelConfig {
  std::string family;        // a name of FamilyNames()
  std::string architecture;  // as the source calls itself: "LlamaForCausalLM", "qwen2", "llama2.c"
  int64_t hidden = 0;
  int64_t layers = 0;
  int64_t ffn = 0;  // of a dense layer; 0: there is none behind the attention or the state-space part
  int64_t heads = 0;  // this and the three below are 0 in families without attention
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t rotary_dims = 0;  // even, at most head_dim; the first dims of each head are rotated; 0: positions are not told apart
  int64_t vocab = 0;
  int64_t max_context = 0;  // positions the model was trained for
  NormKind norm = NormKind::kRms;  // of rows; a norm of each head is an RMSNorm
  double rms_eps = 1e-5;           // of every norm, whatever its kind
  RopeConfig rope;
  ActivationKind activation = ActivationKind::kSilu;
  bool tied_head = false;
  double embedding_scale = 1.0;  // of the embedding's rows as they enter the first layer; a tied head is without it
  double residual_scale = 1.0;   // of what a layer's two parts add to the stream
  double attention_scale = 0;    // of a query times a key; 0: 1 / sqrt(head_dim)
  double logit_scale = 1.0;
  bool q_bias = false, k_bias = false, v_bias = false, o_bias = false;
  bool mlp_bias = false;         // gate, up and down
  bool qk_norm = false;          // RMSNorm over each head of q and k, before the rotation
  bool qk_norm_rows = false;     // with qk_norm: over all heads together
  double qkv_limit = 0;          // largest magnitude of q and k (behind the norm) and of v; 0: none
  int64_t sliding_window = 0;    // keys a query sees, itself included; 0: all before it
  std::vector<bool> windowed_layers;  // [layers], those where it counts; empty: all
  bool chosen_window = false;         // by the user, of a model that was trained without: its first tokens have to stay in sight
  int64_t WindowOf(int64_t layer) const {
    return windowed_layers.empty() || windowed_layers[static_cast<size_t>(layer)] ? sliding_window : 0;
  }
  int32_t bos_id = -1;           // -1: none
  std::vector<int32_t> eos_ids;  // empty: none
  int32_t pad_id = -1;

  // Mixtures of experts: a sparse layer has a router and small FFNs, of which each token visits those of the largest logits.
  int64_t experts = 0;              // of a sparse layer; 0: there is no sparse layer
  int64_t experts_per_token = 0;    // in [1, experts]
  int64_t expert_ffn = 0;           // width of an expert
  int64_t shared_ffn = 0;           // width of the expert that every token visits; 0: none
  bool shared_gate = false;         // the shared expert's output is times sigmoid(a row of weights * the FFN's input)
  RouterScore router_score = RouterScore::kSoftmax;
  bool normalised_experts = false;  // the weights of a token's experts are divided by their sum
  std::vector<bool> sparse_layers;  // [layers], empty without experts
  bool IsSparse(int64_t layer) const { return experts != 0 && sparse_layers[static_cast<size_t>(layer)]; }
  bool HasFfn(int64_t layer) const { return ffn != 0 || IsSparse(layer); }

  // State-space models and hybrids: such a layer has a state-space part where others have attention.
  StateSpaceConfig ssm;
  std::vector<bool> ssm_layers;  // [layers], empty where all have attention
  bool IsStateSpace(int64_t layer) const { return !ssm_layers.empty() && ssm_layers[static_cast<size_t>(layer)]; }
  bool HasStateSpace() const { return std::find(ssm_layers.begin(), ssm_layers.end(), true) != ssm_layers.end(); }
  bool HasAttention() const {
    return ssm_layers.empty() || std::find(ssm_layers.begin(), ssm_layers.end(), false) != ssm_layers.end();
  }
};

enum class TensorRole : uint8_t {
  // What a tensor may hold fused, q, k, v or gate, up, stands in this order.
  kEmbedding,  // [vocab, hidden]
  kHead,       // [vocab, hidden]; the embedding when tied
  kFinalNorm,  // [1, hidden]
  kAttnNorm,   // [1, hidden]
  kQ,          // [heads * head_dim, hidden]
  kK,          // [kv_heads * head_dim, hidden]
  kV,          // [kv_heads * head_dim, hidden]
  kO,          // [hidden, heads * head_dim]
  kQBias,      // [1, heads * head_dim]
  kKBias,
  kVBias,
  kOBias,    // [1, hidden]
  kQNorm,    // [1, head_dim], or [1, heads * head_dim] with qk_norm_rows
  kKNorm,    // [1, head_dim], or [1, kv_heads * head_dim]
  kFfnNorm,  // [1, hidden]
  kGate,     // [ffn, hidden]; a dense layer's, as the five below
  kUp,       // [ffn, hidden]
  kDown,     // [hidden, ffn]
  kGateBias,
  kUpBias,
  kDownBias,
  kFinalNormBias,  // [1, hidden]
  kAttnNormBias,   // [1, hidden]
  kFfnNormBias,    // [1, hidden]
  // Of a sparse layer. Experts stand one below the other, in whatever way the source stores them.
  kRouter,            // [experts, hidden]
  kExpertGate,        // [experts * expert_ffn, hidden]
  kExpertUp,          // [experts * expert_ffn, hidden]
  kExpertDown,        // [experts * hidden, expert_ffn]
  kSharedGate,        // [shared_ffn, hidden]
  kSharedUp,          // [shared_ffn, hidden]
  kSharedDown,        // [hidden, shared_ffn]
  kSharedExpertGate,  // [1, hidden]
  // Of a state-space layer. Its norm is kAttnNorm.
  kSsmGate,      // [inner, hidden]
  kSsmConvIn,    // [conv_channels, hidden]: x of each head, B of each group, C of each group
  kSsmStep,      // [heads, hidden]
  kSsmConv,      // [conv_channels, conv_width], the tap of the present token last
  kSsmConvBias,  // [1, conv_channels]
  kSsmStepBias,  // [1, heads]
  kSsmDecay,     // [1, heads]: A, negative, however the source stores it
  kSsmSkip,      // [1, heads]: D
  kSsmNorm,      // [1, inner]
  kSsmOut,       // [hidden, inner]
};
inline constexpr int kTensorRoles = 42;

const char *TensorRoleName(TensorRole role);
/// True for roles that exist once in each layer.
bool IsLayerRole(TensorRole role);
/// True for roles that hold a part for each expert.
bool IsExpertRole(TensorRole role);
/// Shape [n, k] that `config` demands of a role; vectors are [1, n].
struct TensorShape {
  int64_t n = 0;
  int64_t k = 0;
};
TensorShape RoleShape(const ModelConfig &config, TensorRole role);
/// False for a bias, a norm, or a part of attention, state space or FFN that this configuration does not have in `layer` (ignored
/// for roles outside the layers).
bool HasRole(const ModelConfig &config, TensorRole role, int64_t layer = 0);

enum class SourceFormat { kHuggingFace, kGguf, kLlama2c };

/// Where the tokenizer builder finds its material; a path is empty when there is no such file.
struct TokenizerSource {
  std::string tokenizer_json;
  std::string tokenizer_config_json;
  std::string chat_template_jinja;
  std::string sentencepiece_model;  // tokenizer.model
  std::string llama2c_bin;          // --tokenizer of a llama2.c checkpoint
  const GgufFile *gguf = nullptr;   // owned by the SourceModel
};

/// In which order a layer holds what the runtime may drop from the end: docs/ELASTIC.md. Empty is the source's own order.
struct LayerOrder {
  // [kv_heads, head_dim / 2], or empty. Each head of Q and K holds its rotary pairs in blocks of 16 rows, 8 first members and
  // then their partners; this names the frequency of each pair, kNotRotated where it has none. The query heads of a KV head
  // share its order.
  std::vector<uint8_t> pairs;
  bool rank_major = false;     // O's columns are [head_dim / 16, heads, 16], not [heads, head_dim]
  bool channel_major = false;  // x, z and out of a state-space layer are [head_dim / 8, heads, 8], not [heads, head_dim]

  static constexpr uint8_t kNotRotated = acorn::kNoFrequency;
  static constexpr int64_t kPairBlock = acorn::kPairBlock / 2;  // of first members, and of their partners
  static constexpr int64_t kRankBlock = 16;
  static constexpr int64_t kChannelBlock = 8;
};

struct SourceParts;  // import/source_parts.h

class SourceModel {
 public:
  explicit SourceModel(std::unique_ptr<SourceParts> parts);
  virtual ~SourceModel();
  SourceModel(const SourceModel &) = delete;
  SourceModel &operator=(const SourceModel &) = delete;

  SourceFormat format() const;
  const std::string &path() const;
  const ModelConfig &config() const;
  const TokenizerSource &tokenizer() const;

  /// One whole tensor in the shape of RoleShape(). `layer` is ignored for roles outside the layers.
  /// Throws Error(kBadModel) when HasRole() is false for it or a value is not finite.
  Matrix Load(TensorRole role, int64_t layer = 0) const;
  /// One expert's part of a role that IsExpertRole(): [RoleShape().n / experts, k].
  Matrix LoadExpert(TensorRole role, int64_t layer, int64_t expert) const;
  /// Rows [first, first + count) of it: an embedding need never be whole in memory.
  virtual Matrix LoadRows(TensorRole role, int64_t layer, int64_t first, int64_t count) const;
  /// The order in which the tensors of a layer stand.
  virtual LayerOrder Order(int64_t layer) const;
  /// Bytes of all used tensors in the source's own types, and elements; for reports.
  int64_t SourceBytes() const;
  int64_t SourceElems() const;

 protected:
  /// The files of `other` under another configuration, for a model whose LoadRows() changes what `other` loads.
  SourceModel(const SourceModel &other, ModelConfig config);

 private:
  std::shared_ptr<const SourceParts> parts_;
  ModelConfig config_;
};

struct SourceOptions {
  std::string tokenizer_path;  // for sources that carry none; overrides what the source carries otherwise
  int64_t window = 0;          // newest tokens that attention sees in every layer, whatever the source says; 0: as it says
};

/// Opens `path`: a folder, or a file told apart by its first bytes. Every tensor that the configuration needs is
/// present and has its shape, or this throws Error: kBadModel with file, tensor and offset, kIo when unreadable; kUsage for a
/// window that the model has no attention or was trained for too few positions for.
std::unique_ptr<SourceModel> OpenSourceModel(const std::string &path, const SourceOptions &options = {});

/// By the name of a Hugging Face configuration; nothing when it is unknown.
std::optional<ActivationKind> ActivationByName(const std::string &name);

/// The families that can be imported, in the order of the table.
std::vector<std::string> FamilyNames();

}  // namespace acorn::compiler
