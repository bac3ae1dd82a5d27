// ModelWriter: strings the operators of a model together in a graph, layer by layer, from quantised weights and
// the real size of one unit on every edge. What the quantiser decides is in QuantizedLayer; how it is computed on the device
// is GraphBuilder's business.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "base/matrix.h"
#include "import/source_model.h"
#include "pack/quantized_matrix.h"
#include "passes/profiles.h"
#include "write/graph_builder.h"

namespace acorn::compiler {

/// Real size of one unit on each edge of a layer. "16": an s16 edge.
struct LayerScales {
  double attn_in = 1;                     // s8 or s15: input of q, k, v
  double q16 = 1, k16 = 1, v16 = 1;       // outputs of the linear layers
  double q_normed16 = 1, k_normed16 = 1;  // only with q/k norms
  std::vector<double> q8;                 // [heads], rotated queries
  std::vector<double> k8, v8;             // [kv_heads], cached rows, of 4 bits too
  double attn_out = 1;                    // s8: input of o
  double o16 = 1;
  double mid16 = 1;   // the residual between attention and FFN
  double ffn_in = 1;  // s8 or s15: input of gate and up
  double gate16 = 1, up16 = 1;
  double glu_largest = 1;  // largest magnitude of activation(gate) * up
  double down_in = 1;      // s8 or s15, after the Hadamard transform
  double down16 = 1;
  double out16 = 1;  // the residual after the layer
  // Zero points of the s8 edges that linear layers read.
  int32_t attn_in_zero = 0, attn_out_zero = 0, ffn_in_zero = 0, down_in_zero = 0;
};

/// In how many bits the inputs of a layer's weights come: s8, or s15 for those whose range hurts.
struct InputTypes {
  EdgeType attn_in = EdgeType::kS8;
  EdgeType ffn_in = EdgeType::kS8;
  EdgeType down_in = EdgeType::kS8;
};

/// Real sizes of a unit on the edges of routed experts, the same for all of a layer.
struct ExpertScales {
  double router = 1;  // of a logit
  double gate16 = 1, up16 = 1;
  double glu_largest = 1;
  double down_in = 1;  // s8, after the Hadamard transform
  double down16 = 1;   // of what an expert hands out, and of the shared one's output
  int32_t down_in_zero = 0;
};

/// The routed experts of a sparse layer.
struct QuantizedExperts {
  ExpertScales scales;
  QuantizedMatrix router;       // [experts, hidden]
  QuantizedMatrix shared_gate;  // [1, hidden]; no rows: the shared expert counts whole, or there is none
  std::vector<ExpertMatrices> experts;
  std::vector<int64_t> slices;  // inner channels between the widths of the rates, together all of an expert
  bool empty() const { return experts.empty(); }
};

/// Real size of one unit on the edges of a state-space layer that no other has.
struct StateSpaceScales {
  double gate16 = 1;
  std::vector<double> conv_in16;  // [conv_channels]
  std::vector<double> step16;     // [heads], of the linear layer's output
  std::vector<double> x16;        // [heads], behind the convolution
  std::vector<double> b16, c16;   // [groups]
  std::vector<double> state;      // [heads], of the recurrence's state
  double scan16 = 1;
  double gated_largest = 1;  // largest magnitude in front of the norm
  double normed16 = 1;       // behind it, before the Hadamard transform
};

/// The part of a state-space layer that is not linear; vectors as StateSpaceWeights has them. Its input's scale is attn_in, that of
/// out's input attn_out.
struct QuantizedStateSpace {
  StateSpaceScales scales;
  Matrix conv;
  RowVector conv_bias, step_bias, decay, skip, norm;
  std::vector<int16_t> prefix_conv;   // [conv_width - 1, conv_channels], in units of conv_in16; empty without a prefix
  std::vector<int32_t> prefix_state;  // [heads, head_dim, state], in units of each head's state; likewise
  bool empty() const { return conv.size() == 0; }
};

/// What a rate beyond 0 has of its own in a layer. Scales of what outlives a chunk (k8, v8, conv_in16, the state, and what the state
/// is made of) and of the residual stream are those of rate 0.
struct LayerProfile {
  LayerWidths widths;
  LayerScales scales;
  StateSpaceScales ssm;
};

/// One layer, ready to write. In a state-space layer qkv holds gate, conv_in and step, and o is out, whose columns are behind the
/// Hadamard transform; gate_up and down have no rows where there is no FFN. In a sparse layer these two are those of the shared
/// expert, without rows where there is none. Padded columns and rows of the FFN are part of the weights.
struct QuantizedLayer {
  LayerScales scales;
  InputTypes inputs;
  RowVector attn_norm, ffn_norm, q_norm, k_norm;
  RowVector attn_norm_bias, ffn_norm_bias;  // of LayerNorms
  QuantizedMatrix qkv, o, gate_up, down;
  QuantizedExperts experts;  // of a sparse layer
  QuantizedStateSpace ssm;   // of a state-space layer
  RowVector qkv_bias, o_bias, gate_up_bias, down_bias;  // empty when absent
  std::vector<int8_t> prefix_k, prefix_v;               // [rows, kv_heads, head_dim]
  LayerOrder order;                    // of the rows and columns of the weights
  LayerWidths widths;                  // of the weights, those of rate 0
  std::vector<LayerProfile> profiles;  // of the rates beyond 0
};

/// The last norm and the head.
struct QuantizedHead {
  RowVector norm, norm_bias;  // norm_bias: empty without a LayerNorm
  double in_scale = 1;  // of the s8 input of the weight
  int32_t in_zero = 0;
  QuantizedMatrix weight;
  std::vector<double> embedding_scale;  // of a tied table's rows where they differ from the head's, else empty
};

/// Where weights with one scale a channel lie.
struct ChannelLayouts {
  Layout w8 = Layout::kX16C8;
  Layout w4 = Layout::kX16C8;
};

/// How a session keeps keys and values.
struct CacheFormat {
  int bits = 8;            // 8 or 4
  int64_t head_block = 1;  // of the Hadamard transform of rotated queries and keys; 1: none
};

struct WriterOptions {
  uint32_t hadamard_block = 128;  // 1: plain requantisation to the type of down's input
  ChannelLayouts channel_layouts;
  CacheFormat cache;
  uint32_t state_block = 1;  // of the Hadamard transform before a state-space layer's out
  // Of sparse layers:
  Scoring scoring = Scoring::kSoftmaxOfChosen;
  int64_t top_k = 1;
  uint32_t expert_block = 128;  // of the Hadamard transform before a routed expert's down
  uint32_t shared_block = 128;  // before the shared one's
  std::vector<int> rates;       // beyond 0, rising: a profile of every layer for each
  int64_t prefix_rows = 0;      // that windows look back to, with queries of their own; 0: none, or nothing runs beyond a window
};

class ModelWriter {
 public:
  /// graph: where the operators go, outlives the writer.
  ModelWriter(GraphBuilder *graph, const ModelConfig &config, const WriterOptions &options);

  /// scale: of the residual stream that enters layer 0. embedding: null when tied to the head, which comes last.
  void Begin(double scale, const QuantizedMatrix *embedding);
  void AddLayer(const QuantizedLayer &layer);
  /// A tied head is the embedding too. Returns the logits.
  Port AddHead(const QuantizedHead &head);

 private:
  void AddRope();
  void NewAttentionValues();
  void NewStateSpaceValues();
  Layout LayoutOf(WeightFormat format) const;
  /// depths: at which rates beyond 0 cut the columns.
  WeightInfo AddWeight(const QuantizedMatrix &matrix, EdgeType input, const std::vector<int64_t> &depths = {});
  /// What all rates share of a layer: made by the first that asks.
  struct LayerParts {
    std::optional<WeightInfo> qkv, o, gate_up, down;
    std::optional<WeightInfo> router, shared_gate;
    uint16_t cache = 0, conv_state = 0, scan_state = 0, expert_set = 0;
  };
  /// A layer as a rate has it.
  struct LayerView {
    const QuantizedLayer &layer;
    const LayerWidths &widths;
    const LayerScales &scales;
    const StateSpaceScales &ssm;
    size_t profile;  // 0: rate 0
    LayerParts *parts;
  };
  /// The first k columns of `rows` of a weight.
  WeightInfo PartOf(std::optional<WeightInfo> *whole, const QuantizedMatrix &matrix, EdgeType input, const std::vector<IndexRun> &rows,
                    int64_t k, const std::vector<int64_t> &depths = {});
  /// Depths of o and of down at all rates beyond 0.
  std::vector<int64_t> DepthsOfO(const QuantizedLayer &layer) const;
  std::vector<int64_t> DepthsOfDown(const QuantizedLayer &layer) const;
  /// Columns of o that a rate needs: whole groups.
  int64_t DepthOfO(const QuantizedLayer &layer, const LayerWidths &widths) const;
  void AddEmbedding(const WeightInfo &weight);
  /// A linear layer to the value of branches.
  Port Branch(const Port &in, const WeightInfo &weight, const RowVector &bias, double scale);
  /// Adds a branch to the stream, whose new scale is `sum_scale`.
  void CloseBranch(const Port &branch, double sum_scale);
  /// Rotates the heads of `in` (s16) to `out` (s8) of scales [heads], through the transform if there is one.
  void Position(const Port &in, uint16_t rope, const Port &rotated, const Port &out, const std::vector<double> &scales,
                const std::vector<uint8_t> &pairs);
  /// Whether a layer's queries are rotated once more, for the rows of the prefix: positions are told apart, and tokens go out of sight.
  bool HasSinkQueries(int64_t layer) const;
  /// The configuration's norm of rows. bias: empty for an RMSNorm.
  void NormRows(const Port &in, const Port &out, const RowVector &gain, const RowVector &bias);
  /// The norm of the residual stream, in units of `scale`.
  Port Normed(const RowVector &gain, const RowVector &bias, EdgeType type, double scale, int32_t zero_point);
  /// The values inside of an FFN of some width.
  struct FfnPorts {
    Port gate_up, glu, down_in, down_in15;
  };
  FfnPorts &PortsOf(int64_t ffn);
  Port DownIn(int64_t ffn, EdgeType type);
  void AttentionHalf(const LayerView &view);
  void StateSpaceHalf(const LayerView &view);
  void FfnHalf(const LayerView &view);
  /// Through gate_up and down to what they add to the stream, in units of `out_scale`.
  Port DenseFfn(const LayerView &view, const Port &normed, uint32_t block, double out_scale);
  Port SparseFfn(const LayerView &view, const Port &normed);

  ModelConfig config_;
  WriterOptions options_;
  GraphBuilder *graph_;
  uint16_t rope_ = 0, sink_rope_ = 0;
  /// Every layer uses the same values: the runtime plans where they lie, and scales belong to the steps.
  Port stream_[2], normed_, qkv_, q_normed_, k_normed_, q_rotated_, k_rotated_, q8_, k8_, sink_q8_;
  Port router_, shared_gate_, routed_;    // of sparse layers; the same
  struct StateSpacePorts {
    Port in, convolved, scanned, gated, normed, out_in;
  };
  StateSpacePorts ssm_;
  Port mixed_, branch_, logits_;
  std::map<int64_t, FfnPorts> ffns_;
  Port normed16_, normed15_;  // of layers with 15-bit inputs; made when the first one comes
  int64_t layer_ = 0;
  Port residual_;  // the one of stream_ that holds the residual now, with its scale
  Port embedded_;
};

/// a(x) / x of an activation at (i - 256) / 16 for i in [0, 512], the last entry repeated.
std::vector<double> ActivationFactors(ActivationKind kind);

}  // namespace acorn::compiler
