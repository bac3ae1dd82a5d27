// GraphBuilder: what ModelWriter tells about a model, operator by operator, with real scales. Two kinds of it exist: the one
// that writes a model file (file_graph.h), and the one that runs on this machine while its scales are trained (train/live_graph.h).
// Knows nothing of model families: model_writer.h strings operators together.
#pragma once

#include <cstdint>
#include <vector>

#include "acorn_schema/layout.h"
#include "acorn_schema/scoring.h"
#include "pack/quantized_matrix.h"
#include "write/op_integers.h"
#include "write/port.h"

namespace acorn::compiler {

/// One expert: gate and up [ffn, hidden], down [hidden, ffn].
struct ExpertMatrices {
  QuantizedMatrix gate, up, down;
};

/// What all experts of a layer share. Scales are real sizes of a unit.
struct ExpertSetSpec {
  Port in;               // s8, what gate and up read
  Port gate, up, glu;    // s16; glu.scale from GluScale()
  Port down_in;          // s8, behind the Hadamard transform
  double down_scale = 1;  // of what an expert hands out
  Layout layout = Layout::kX16C8;  // of formats without groups
  std::vector<int64_t> slices;     // inner channels of each slice that an expert is stored in, together all; empty: one slice
};

/// How tokens are routed (docs/ARITHMETIC.md §14).
struct RoutingSpec {
  Scoring scoring = Scoring::kSoftmaxOfChosen;
  int64_t top_k = 1;
  std::vector<double> factor;  // of the activation, as for Glu
  uint32_t block = 1;          // of the Hadamard transform
  size_t slices = 0;           // of each expert, from the first; 0: all
};

/// How many values of a head attention mixes, and in what order they come out.
struct ValueOrder {
  uint32_t v_dim = 0;  // of each head; 0: the cache's head_dim
  uint32_t run = 0;    // neighbours of one head: [v_dim / run, heads, run], zeros behind it; 0: [heads, v_dim]
};

class GraphBuilder {
 public:
  virtual ~GraphBuilder() = default;

  /// A new value of `width` columns. The runtime takes at most 64 in a graph.
  virtual Port NewValue(EdgeType type, int64_t width) = 0;
  /// Weights added from now on go to a new segment.
  virtual void BeginWeightSegment() = 0;
  /// input: type of the rows that it multiplies. k_panel: as for Pack(). `matrix` must outlive the builder.
  virtual WeightInfo AddWeight(const QuantizedMatrix &matrix, Layout layout, EdgeType input, int64_t k_panel) = 0;
  /// Frequencies in turns per position. limit: positions behind it are rotated as it is; 0: none.
  virtual uint16_t AddRope(const std::vector<double> &turns, uint32_t limit) = 0;
  /// bits: of an element in the device's memory, 8 or 4.
  /// prefix_k, prefix_v: s8 [rows, kv_heads, head_dim], empty without a prefix. window: newest tokens that a token sees beside the
  /// prefix, itself among them; 0: all.
  virtual uint16_t AddCache(int64_t kv_heads, int64_t head_dim, int bits, const std::vector<int8_t> &prefix_k,
                            const std::vector<int8_t> &prefix_v, int64_t window) = 0;

  /// What a layer keeps from token to token, a matrix of s16 or s32. prefix: what it starts as, [rows, columns]; empty: zeros.
  virtual uint16_t AddState(uint32_t rows, uint32_t columns, const std::vector<int16_t> &prefix) = 0;
  virtual uint16_t AddState(uint32_t rows, uint32_t columns, const std::vector<int32_t> &prefix) = 0;

  /// Steps go to the body of rate 0 until BeginHead(), then to the head.
  virtual void BeginHead(const Port &body_out) = 0;
  /// Before that: steps go to the body of another rate from now on. profile: its number, counted from 1; 0: back to rate 0.
  virtual void SelectProfile(size_t profile) = 0;

  /// Comes before every other step of every body, whenever it is called.
  virtual void Embedding(const Port &out, const WeightInfo &weight) = 0;
  /// out = rmsnorm(in) * gamma in each of `groups` equal parts; gamma has width / groups entries, or one for each
  /// column.
  virtual void RmsNorm(const Port &in, const Port &out, int64_t groups, const std::vector<double> &gamma, double eps) = 0;
  /// out = layernorm(in) * gain + bias over whole rows; both have in.width entries.
  virtual void LayerNorm(const Port &in, const Port &out, const std::vector<double> &gain, const std::vector<double> &bias,
                         double eps) = 0;
  /// bias: real, [n] or empty. out_scales: [n], the real size of one unit of each output column.
  virtual void Linear(const Port &in, const Port &out, const WeightInfo &weight, const std::vector<double> &bias,
                      const std::vector<double> &out_scales) = 0;
  /// out_scales: [heads]. pairs: [heads of keys, head_dim / 2], the frequency of each pair, which lie in blocks of 8 first members
  /// and 8 partners; empty: those of the rope in order, with halves.
  virtual void Rotate(const Port &in, const Port &out, uint16_t rope, const std::vector<double> &out_scales,
                      const std::vector<uint8_t> &pairs) = 0;
  /// v_scales: [kv_heads], of the cached rows.
  virtual void Append(const Port &k, const Port &v, uint16_t cache, const std::vector<double> &v_scales) = 0;
  /// score_scales: [heads], a score in natural units (query scale * key scale / sqrt(head_dim)); v_scales: [heads]. sink_q: queries for
  /// the prefix of a cache with a window, in units of q; null: q.
  virtual void Attention(const Port &q, const Port *sink_q, const Port &out, uint16_t cache, const std::vector<double> &score_scales,
                         const std::vector<double> &v_scales, const ValueOrder &order) = 0;
  /// factor: the activation's a(x) / x at (i - 256) / 16. out.scale must come from GluScale().
  virtual void Glu(const Port &gate, const Port &up, const Port &out, const std::vector<double> &factor) = 0;
  /// out = orthonormal Hadamard transform of each block of `block` columns. head_units: [heads], real sizes of what the scales of
  /// `in` and `out` count in, head by head; empty: 1.
  virtual void Hadamard(const Port &in, const Port &out, uint32_t block, const std::vector<double> &head_units) = 0;
  virtual void Add(const Port &a, const Port &b, const Port &out) = 0;
  /// The scales of ports that `spec` has scales for do not count.
  virtual void Conv(const Port &in, const Port &out, const ConvSpec &spec) = 0;
  virtual void Scan(const Port &x, const Port &b, const Port &c, const Port &step, const Port &out, const ScanSpec &spec) = 0;

  /// Starts a set of experts, and adds to the last one that was started.
  virtual uint16_t BeginExperts(const ExpertSetSpec &spec) = 0;
  virtual void AddExpert(const ExpertMatrices &expert) = 0;
  /// router: s32 logits of natural units router.scale. out.scale is the set's down_scale. shared, shared_gate: null without an
  /// expert that every token visits; shared->scale is out's.
  virtual void Experts(const Port &router, const Port &out, uint16_t set, const RoutingSpec &routing, const Port *shared,
                       const Port *shared_gate) = 0;
};

}  // namespace acorn::compiler
