// The float32 reference of a source model, in parts that the quantiser uses too: load a layer, run it, watch every
// edge, score. Results do not depend on the number of threads. Matrices are [tokens, width], weights [n, k] as stored
// in the source: y = x * w^T + b.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/matrix.h"
#include "import/source_model.h"

namespace acorn::compiler {

/// One expert of a sparse layer: down((activation(gate x)) * (up x)).
struct ExpertWeights {
  Matrix gate, up;  // [expert_ffn or shared_ffn, hidden]
  Matrix down;      // [hidden, expert_ffn or shared_ffn]
};

/// Gives expert [0, experts) of a layer. Where it reads it from the source, an expert is resident only while it is used.
using ExpertLoader = std::function<std::shared_ptr<const ExpertWeights>(int64_t expert)>;

/// What a state-space layer has for attention; shapes as RoleShape() has them.
struct StateSpaceWeights {
  Matrix gate, conv_in, step;  // [inner | conv_channels | heads, hidden]
  Matrix conv;                 // [conv_channels, conv_width]
  RowVector conv_bias;         // [conv_channels], empty when absent
  RowVector step_bias;         // [heads]
  RowVector decay;             // [heads], negative
  RowVector skip;              // [heads]
  RowVector norm;              // [inner]
  double norm_eps_factor = 1;  // of the configuration's rms_eps
  Matrix out;                  // [hidden, inner]
};

struct LayerWeights {
  LayerOrder order;                         // of the rows and columns below
  RowVector attn_norm, ffn_norm;            // [hidden]
  RowVector attn_norm_bias, ffn_norm_bias;  // [hidden], empty without NormKind::kLayer
  RowVector q_norm, k_norm;       // as RoleShape() has them, empty without qk_norm
  Matrix q, k, v, o;              // empty in a state-space layer
  StateSpaceWeights ssm;          // empty in any other
  Matrix gate, up, down;          // empty in a sparse layer and where there is no FFN
  RowVector q_bias, k_bias, v_bias, o_bias, gate_bias, up_bias, down_bias;  // empty when absent
  // Of a sparse layer; empty in a dense one.
  Matrix router;               // [experts, hidden]
  ExpertLoader experts;
  ExpertWeights shared;        // empty without a shared expert
  RowVector shared_gate;       // [hidden], empty without shared_gate
};

/// RopeConfig::attention_factor is part of the weights. The experts are read from the source when they are needed: it outlives
/// the weights.
LayerWeights LoadLayer(const SourceModel &source, int64_t layer);

/// A vector of a layer or of the model; empty where the configuration has none.
RowVector LoadVector(const SourceModel &source, TensorRole role, int64_t layer = 0);

/// What an observer sees, in the order in which one layer computes it.
enum class Edge : uint8_t {
  kResidualIn,  // [t, hidden] input of the layer
  kAttnIn,      // [t, hidden] after the attention norm: input of q, k, v, or of a state-space layer's three projections
  kQ,           // [t, heads * head_dim] output of the linear layer, bias included
  kK,           // [t, kv_heads * head_dim]
  kV,           // [t, kv_heads * head_dim], within qkv_limit
  kQNormed,     // after the norm (and the limit), only with qk_norm
  kKNormed,
  kQRotated,  // after RoPE
  kKRotated,
  kAttnOut,      // [t, heads * head_dim] input of o, in the order of its columns
  kSsmGate,     // [t, inner]; this and the eight below in a state-space layer, which has none of those between kAttnIn and here
  kSsmConvIn,   // [t, conv_channels] before the convolution
  kSsmStep,     // [t, heads] output of the linear layer
  kSsmConvOut,  // [t, conv_channels] x, B and C behind convolution and activation
  kSsmTime,     // [t, heads] the time step dt
  kSsmState,    // [t, heads] largest magnitude in a head's state behind each token; to look at: nothing follows from it
  kSsmScan,     // [t, inner] output of the scan, D x included
  kSsmGated,    // [t, inner] times the activated gate: input of the norm
  kSsmNormed,   // [t, inner] after the norm: input of out
  kOOut,         // [t, hidden] output of o, or of a state-space layer's out
  kResidualMid,  // [t, hidden]; nothing follows but kResidualOut where there is no FFN
  kFfnIn,        // [t, hidden] after the FFN norm: input of gate and up, or of the router and every expert
  kRouterLogits,  // [t, experts], only in a sparse layer; then the shared expert comes: OnExpertEdge()
  kSharedGate,    // [t, 1] before the sigmoid, only with shared_gate; then the other experts come
  kGate,         // [t, ffn] before the activation; this and the three below in a dense layer only
  kUp,           // [t, ffn]
  kAct,          // [t, ffn] activation(gate)
  kGlu,          // [t, ffn] activation(gate) * up: input of down
  kDownOut,      // [t, hidden] output of the FFN; in a sparse layer the weighted sum of the experts
  kResidualOut,  // [t, hidden] output of the layer
};
inline constexpr int kEdges = 30;
const char *EdgeName(Edge edge);

/// Stands for an expert's number where the shared expert is meant.
inline constexpr int64_t kSharedExpert = -1;

/// Watches a run. Called from one thread, for groups of whole windows in order; `values` holds the rows of tokens
/// [first_token, first_token + values.rows()). Values may be changed (rounded to a grid, rotated): what follows uses
/// the changed ones.
class LayerObserver {
 public:
  virtual ~LayerObserver() = default;
  /// Edges that are not wanted need not be materialised for the observer; default: all.
  virtual bool Wants(Edge) const { return true; }
  virtual void OnEdge(Edge edge, int64_t layer, int64_t first_token, MatrixRef values) = 0;
  /// Inside an expert of a sparse layer, kSharedExpert first, then the others that have tokens, by their numbers. edge is kGate,
  /// kUp, kAct, kGlu or kDownOut (before it is weighted); row i of `values` belongs to token tokens[i], ascending.
  virtual void OnExpertEdge(Edge edge, int64_t layer, int64_t expert, const std::vector<int64_t> &tokens, MatrixRef values);
};

/// What the tokens of a constant prefix leave in a layer: every window starts from it. In a layer with attention keys (rotated) and
/// values at positions [0, k.rows()), in a state-space layer what its two states hold; the other two have no elements.
struct LayerPrefix {
  Matrix k;      // [rows, kv_heads * head_dim]
  Matrix v;      // [rows, kv_heads * head_dim]
  Matrix conv;   // [conv_width - 1, conv_channels], the last rows of the convolution's input; zeros before the first token
  Matrix state;  // [heads * head_dim, state], head after head, whatever the order of x's columns
  bool empty() const { return k.size() == 0 && state.size() == 0; }
};

/// cos and sin for positions [0, positions) and rotary_dims / 2 pairs; computed in double, rounded once.
struct RopeTable {
  Matrix cos;  // [positions, rotary_dims / 2]
  Matrix sin;
};
/// Rotation per position of each pair, in radians: what a table of any precision is made from.
std::vector<double> RopeFrequencies(const ModelConfig &config);
RopeTable MakeRopeTable(const ModelConfig &config, int64_t positions);

/// out = x / sqrt(mean(x^2) + eps) * weight, over each group of weight.size() columns of each row (the whole row, or one
/// head). out may be x.
void RmsNorm(MatrixRef out, ConstMatrixRef x, const RowVector &weight, double eps);
/// out = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias, over each row. out may be x.
void LayerNorm(MatrixRef out, ConstMatrixRef x, const RowVector &weight, const RowVector &bias, double eps);
/// The configuration's norm of rows.
void NormRows(MatrixRef out, ConstMatrixRef x, const ModelConfig &config, const RowVector &weight, const RowVector &bias);
/// Rotates each head of `x` in place; row t stands at position first_position + t, or at `limit` where that is less. order:
/// LayerOrder's pairs, may be empty.
void ApplyRope(MatrixRef x, const ModelConfig &config, const RopeTable &table, int64_t first_position,
               const std::vector<uint8_t> &order = {}, int64_t limit = INT64_MAX);
/// Causal attention over one window of a run. A token sees the prefix, which meets sink_q (mostly q itself), and the `window` newest
/// tokens, itself among them; 0: all. `out`, `q`, `sink_q` are [t, heads * head_dim]; `k`, `v` [t, kv_heads * head_dim].
void Attention(MatrixRef out, const ModelConfig &config, ConstMatrixRef q, ConstMatrixRef sink_q, ConstMatrixRef k, ConstMatrixRef v,
               const LayerPrefix *prefix, int64_t window);
void ApplyActivation(MatrixRef x, ActivationKind kind);

// Of a state-space layer; graph/state_space.cc. What has a past is for one window.
/// out[t][c] = bias[c] + sum over j of conv[c][j] * x[t - (conv_width - 1) + j][c]: [t, channels]. before: the rows in front of x,
/// [conv_width - 1, channels]. `bias` may be empty.
void CausalConv(MatrixRef out, ConstMatrixRef x, ConstMatrixRef before, const Matrix &conv, const RowVector &bias);
/// x [t, heads] = softplus(x + bias), within the limits of the configuration.
void TimeSteps(MatrixRef x, const StateSpaceConfig &config, const RowVector &bias);
/// For each head, one token after the other: h = exp(decay * dt) * h + dt * x B^T, out = h C + skip * x, with h
/// [head_dim, state]. `out` [t, inner]; `xbc` [t, conv_channels]; `dt` [t, heads]. state: h of all heads before the first token, and
/// then behind the last, as LayerPrefix has it. largest: without rows, or gets the largest magnitude of each h behind each token,
/// [t, heads]. channel_major: LayerOrder's, of x and `out`.
void StateSpaceScan(MatrixRef out, const StateSpaceConfig &config, ConstMatrixRef xbc, ConstMatrixRef dt, const RowVector &decay,
                    const RowVector &skip, Matrix *state, MatrixRef largest, bool channel_major = false);
/// x = x * silu(gate).
void ApplyGate(MatrixRef x, ConstMatrixRef gate);
/// RMSNorm over each of the groups of a row: x [t, inner], weight [inner].
void GroupRmsNorm(MatrixRef x, const RowVector &weight, int64_t groups, double eps);
/// out = x * w^T + bias (bias may be empty), on all threads.
void Linear(MatrixRef out, ConstMatrixRef x, const Matrix &weight, const RowVector &bias);
/// The same without a bias, in smaller tasks: an expert's few tokens still occupy all threads.
void ExpertLinear(MatrixRef out, ConstMatrixRef x, const Matrix &weight);

/// The experts of each token, by falling score, and their weights in the sum.
struct Routing {
  std::vector<int32_t> experts;  // [t, experts_per_token]
  std::vector<float> weights;    // [t, experts_per_token]
};
/// Of equal logits [t, experts] the expert of the lower number is first.
Routing Route(const ModelConfig &config, ConstMatrixRef logits);

/// Runs one layer in place over x [tokens, hidden]. `boundaries` has windows + 1 ascending entries, 0 first and
/// x.rows() last: window i holds tokens [boundaries[i], boundaries[i + 1]), sees only itself and the prefix, and its
/// positions start at prefix rows. `rope` reaches at least prefix rows + the longest window. prefix and observer may
/// be null. Working memory: a few matrices of at most ~4096 tokens, ~8192 in a sparse layer (one window when it is longer).
void RunLayer(const ModelConfig &config, const LayerWeights &weights, int64_t layer, MatrixRef x,
              const std::vector<int64_t> &boundaries, const RopeTable &rope, const LayerPrefix *prefix, LayerObserver *observer);

/// The same for the tokens of the constant prefix, x [rows, hidden] with at least one row, and what they leave behind: as an
/// observer that changes values has them. observer may be null.
LayerPrefix RunPrefix(const ModelConfig &config, const LayerWeights &weights, int64_t layer, MatrixRef x, const RopeTable &rope,
                      LayerObserver *observer);

/// Rows of the embedding for each id, scaled as the first layer takes them: [ids, hidden]. Ids must be in [0, vocab).
Matrix Embed(const SourceModel &source, const std::vector<int32_t> &ids);
/// Window starts 0, window, 2 * window, ... and the end.
std::vector<int64_t> EvenBoundaries(int64_t tokens, int64_t window);

/// The final norm and head, for logits and losses of any hidden states.
class HeadScorer {
 public:
  explicit HeadScorer(const SourceModel &source);
  HeadScorer(const ModelConfig &config, RowVector final_norm, RowVector final_norm_bias, Matrix head);
  /// [rows, vocab] for the hidden states x [rows, hidden] (before the final norm).
  Matrix Logits(ConstMatrixRef x) const;
  /// -ln p(target) for each row, natural logarithm in double; never holds more than a few hundred rows of logits.
  /// likeliest: null, or gets 1 for each row whose target is the lowest id of the largest logits, else 0.
  std::vector<double> Losses(ConstMatrixRef x, const std::vector<int32_t> &targets,
                             std::vector<uint8_t> *likeliest = nullptr) const;
  const Matrix &head() const { return head_; }
  const RowVector &final_norm() const { return final_norm_; }
  const RowVector &final_norm_bias() const { return final_norm_bias_; }

 private:
  ModelConfig config_;
  RowVector final_norm_, final_norm_bias_;
  Matrix head_;
};

/// Hidden states after the last layer for windows of ids: [tokens, hidden]. One layer's weights are resident at a time.
/// `on_layer(done, layers)` and `change`, which is given each layer's weights before they run, may be empty.
using LayerChange = std::function<void(int64_t layer, LayerWeights *weights)>;
Matrix RunLayers(const SourceModel &source, const std::vector<int32_t> &ids, const std::vector<int64_t> &boundaries,
                 LayerObserver *observer = nullptr, const std::function<void(int64_t, int64_t)> &on_layer = {},
                 const LayerChange &change = {});

struct PerplexityOptions {
  int64_t window = 512;
  int64_t score_from = 1;    // positions from here on are scored (position p is predicted from p - 1); at least 1
  int64_t max_windows = -1;  // -1: all whole windows
  LayerChange change;        // of the weights, or empty
};

struct PerplexityResult {
  double perplexity = 0;
  double mean_loss = 0;  // natural logarithm
  int64_t windows = 0;
  int64_t scored_tokens = 0;
  std::vector<double> losses;  // one for each scored position, in order
};

/// Throws Error(kUsage) when there is no whole window or an option is out of range. `on_layer(done, total)` counts the
/// layers and the head of every batch of windows; it may be empty.
PerplexityResult Perplexity(const SourceModel &source, const std::vector<int32_t> &ids, const PerplexityOptions &options,
                            const std::function<void(int64_t, int64_t)> &on_layer = {});

}  // namespace acorn::compiler
