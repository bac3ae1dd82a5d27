#include "graph/float_model.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/parallel.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kGroupTokens = 4096;        // tokens that go through a layer together
constexpr int64_t kSparseGroupTokens = 8192;  // the same with experts: each is read once for so many

constexpr const char *kEdgeNames[kEdges] = {
    "residual_in", "attn_in",      "q",         "k",           "v",      "q_normed",     "k_normed",
    "q_rotated",   "k_rotated",    "attn_out",  "ssm_gate",    "ssm_conv_in", "ssm_step", "ssm_conv_out",
    "ssm_time",    "ssm_state",    "ssm_scan",  "ssm_gated",   "ssm_normed", "o_out",    "residual_mid", "ffn_in",  "router_logits",
    "shared_gate", "gate",         "up",        "act",         "glu",    "down_out",     "residual_out",
};

// cos and sin times a factor are q and k times the factor before they are rotated.
void FoldAttentionFactor(const ModelConfig &config, LayerWeights *weights) {
  const auto factor = static_cast<float>(config.rope.attention_factor);
  if (factor == 1.0f) return;
  const auto fold_sorted = [&](Matrix *rows, RowVector *bias) {
    const int64_t dim = config.head_dim, block = LayerOrder::kPairBlock, heads_per_kv = rows->rows() / dim / config.kv_heads;
    for (int64_t row = 0; row < rows->rows(); ++row) {
      const int64_t pair = row % dim / (2 * block) * block + row % block;
      const int64_t kv_head = row / dim / heads_per_kv;
      if (weights->order.pairs[static_cast<size_t>(kv_head * dim / 2 + pair)] == LayerOrder::kNotRotated) continue;
      rows->row(row) *= factor;
      if (bias->size() != 0) (*bias)[row] *= factor;
    }
  };
  const auto fold = [&](Matrix *rows, RowVector *bias, RowVector *norm) {
    if (!weights->order.pairs.empty()) return fold_sorted(rows, bias);
    if (norm->size() != 0) {  // which takes away what stands before it; all heads share its gains, or have their own
      for (int64_t head = 0; head < norm->size(); head += config.head_dim) norm->segment(head, config.rotary_dims) *= factor;
      return;
    }
    for (int64_t head = 0; head < rows->rows(); head += config.head_dim) {
      rows->middleRows(head, config.rotary_dims) *= factor;
      if (bias->size() != 0) bias->segment(head, config.rotary_dims) *= factor;
    }
  };
  fold(&weights->q, &weights->q_bias, &weights->q_norm);
  fold(&weights->k, &weights->k_bias, &weights->k_norm);
}

void Limit(Matrix *values, double limit) {
  if (limit != 0) *values = values->cwiseMin(static_cast<float>(limit)).cwiseMax(static_cast<float>(-limit));
}

// Columns [heads, head_dim] as [head_dim / 16, heads, 16].
Matrix RankMajor(const Matrix &x, int64_t heads) {
  const int64_t dim = x.cols() / heads, block = LayerOrder::kRankBlock;
  Matrix out(x.rows(), x.cols());
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t rank = 0; rank < dim; rank += block) {
      out.middleCols(rank * heads + head * block, block) = x.middleCols(head * dim + rank, block);
    }
  }
  return out;
}

float Sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

// One group of windows on its way through one layer.
class GroupRun {
 public:
  GroupRun(const ModelConfig &config, const LayerWeights &weights, int64_t layer, int64_t first_token, const RopeTable &rope,
           const LayerPrefix *prefix, LayerObserver *observer)
      : config_(config),
        weights_(weights),
        layer_(layer),
        first_token_(first_token),
        rope_(rope),
        prefix_(prefix),
        observer_(observer) {}

  /// `boundaries` are those of the windows of this group, counted from its first token.
  void Run(MatrixRef x, const std::vector<int64_t> &boundaries) {
    See(Edge::kResidualIn, x);
    Matrix out(x.rows(), config_.hidden);
    const auto scale = static_cast<float>(config_.residual_scale);
    if (config_.IsStateSpace(layer_)) {
      StateSpacePart(&out, x, boundaries);
    } else {
      AttentionPart(&out, x, boundaries);
    }
    See(Edge::kOOut, out);
    x += scale * out;
    See(Edge::kResidualMid, x);
    if (config_.HasFfn(layer_)) {
      FfnPart(&out, x);
      See(Edge::kDownOut, out);
      x += scale * out;
    }
    See(Edge::kResidualOut, x);
  }

  /// One window, and what it leaves.
  LayerPrefix RunPrefix(MatrixRef x) {
    LayerPrefix left;
    left_ = &left;
    Run(x, {0, x.rows()});
    return left;
  }

 private:
  void See(Edge edge, MatrixRef values) {
    if (observer_ != nullptr && observer_->Wants(edge)) observer_->OnEdge(edge, layer_, first_token_, values);
  }

  void AttentionPart(Matrix *out, ConstMatrixRef x, const std::vector<int64_t> &boundaries) {
    const int64_t tokens = x.rows();
    const int64_t kv_width = config_.kv_heads * config_.head_dim;
    Matrix in(tokens, config_.hidden);
    NormRows(in, x, config_, weights_.attn_norm, weights_.attn_norm_bias);
    See(Edge::kAttnIn, in);
    Matrix q(tokens, config_.heads * config_.head_dim);
    Matrix k(tokens, kv_width);
    Matrix v(tokens, kv_width);
    Linear(q, in, weights_.q, weights_.q_bias);
    See(Edge::kQ, q);
    Linear(k, in, weights_.k, weights_.k_bias);
    See(Edge::kK, k);
    Linear(v, in, weights_.v, weights_.v_bias);
    Limit(&v, config_.qkv_limit);
    See(Edge::kV, v);
    if (config_.qk_norm) {
      RmsNorm(q, q, weights_.q_norm, config_.rms_eps);
      Limit(&q, config_.qkv_limit);
      See(Edge::kQNormed, q);
      RmsNorm(k, k, weights_.k_norm, config_.rms_eps);
      Limit(&k, config_.qkv_limit);
      See(Edge::kKNormed, k);
    }
    const int64_t first_position = prefix_ == nullptr ? 0 : prefix_->k.rows(), window = config_.WindowOf(layer_);
    // To the sinks, no distance is longer than that in a window that is full for the first time.
    const int64_t limit = first_position + window - 1;
    int64_t longest = 0;
    for (size_t i = 0; i + 1 < boundaries.size(); ++i) longest = std::max(longest, boundaries[i + 1] - boundaries[i]);
    const bool has_far_sinks = first_position != 0 && window != 0 && longest > window;
    Matrix sink_q;
    if (has_far_sinks) {
      sink_q = q;
      for (size_t i = 0; i + 1 < boundaries.size(); ++i) {
        const auto rows = sink_q.middleRows(boundaries[i], boundaries[i + 1] - boundaries[i]);
        ApplyRope(rows, config_, rope_, first_position, weights_.order.pairs, limit);
      }
    }
    for (size_t i = 0; i + 1 < boundaries.size(); ++i) {
      const int64_t length = boundaries[i + 1] - boundaries[i];
      ApplyRope(q.middleRows(boundaries[i], length), config_, rope_, first_position, weights_.order.pairs);
      ApplyRope(k.middleRows(boundaries[i], length), config_, rope_, first_position, weights_.order.pairs);
    }
    See(Edge::kQRotated, q);
    if (has_far_sinks) See(Edge::kQRotated, sink_q);
    See(Edge::kKRotated, k);
    if (left_ != nullptr) {
      left_->k = k;
      left_->v = v;
    }
    Matrix attended(tokens, q.cols());
    for (size_t i = 0; i + 1 < boundaries.size(); ++i) {
      const int64_t first = boundaries[i];
      const int64_t length = boundaries[i + 1] - first;
      Attention(attended.middleRows(first, length), config_, q.middleRows(first, length),
                (has_far_sinks ? sink_q : q).middleRows(first, length), k.middleRows(first, length), v.middleRows(first, length),
                prefix_, window);
    }
    if (weights_.order.rank_major) attended = RankMajor(attended, config_.heads);
    See(Edge::kAttnOut, attended);
    Linear(*out, attended, weights_.o, weights_.o_bias);
  }

  void StateSpacePart(Matrix *out, ConstMatrixRef x, const std::vector<int64_t> &boundaries) {
    const StateSpaceConfig &config = config_.ssm;
    const StateSpaceWeights &weights = weights_.ssm;
    const int64_t tokens = x.rows();
    Matrix in(tokens, config_.hidden);
    NormRows(in, x, config_, weights_.attn_norm, weights_.attn_norm_bias);
    See(Edge::kAttnIn, in);
    Matrix gate(tokens, config.inner());
    Matrix conv_in(tokens, config.conv_channels());
    Matrix step(tokens, config.heads);
    Linear(gate, in, weights.gate, {});
    See(Edge::kSsmGate, gate);
    Linear(conv_in, in, weights.conv_in, {});
    See(Edge::kSsmConvIn, conv_in);
    Linear(step, in, weights.step, {});
    See(Edge::kSsmStep, step);
    const int64_t past = config.conv_width - 1;
    const Matrix before = prefix_ == nullptr ? Matrix(Matrix::Zero(past, config.conv_channels())) : prefix_->conv;
    Matrix convolved(tokens, config.conv_channels());
    for (size_t i = 0; i + 1 < boundaries.size(); ++i) {
      const int64_t first = boundaries[i], length = boundaries[i + 1] - first;
      CausalConv(convolved.middleRows(first, length), conv_in.middleRows(first, length), before, weights.conv, weights.conv_bias);
    }
    ApplyActivation(convolved, config_.activation);
    See(Edge::kSsmConvOut, convolved);
    TimeSteps(step, config, weights.step_bias);
    See(Edge::kSsmTime, step);
    Matrix scanned(tokens, config.inner());
    const bool watched = observer_ != nullptr && observer_->Wants(Edge::kSsmState);
    Matrix states(watched ? tokens : 0, config.heads);
    Matrix state;
    for (size_t i = 0; i + 1 < boundaries.size(); ++i) {
      const int64_t first = boundaries[i], length = boundaries[i + 1] - first;
      state = prefix_ == nullptr ? Matrix(Matrix::Zero(config.inner(), config.state)) : prefix_->state;
      StateSpaceScan(scanned.middleRows(first, length), config, convolved.middleRows(first, length), step.middleRows(first, length),
                     weights.decay, weights.skip, &state, states.middleRows(watched ? first : 0, watched ? length : 0),
                     weights_.order.channel_major);
    }
    if (left_ != nullptr) {
      Matrix all(past + tokens, config.conv_channels());
      all << before, conv_in;
      left_->conv = all.bottomRows(past);
      left_->state = state;
    }
    See(Edge::kSsmState, states);
    See(Edge::kSsmScan, scanned);
    ApplyGate(scanned, gate);
    See(Edge::kSsmGated, scanned);
    GroupRmsNorm(scanned, weights.norm, config.groups, config_.rms_eps * weights.norm_eps_factor);
    See(Edge::kSsmNormed, scanned);
    Linear(*out, scanned, weights.out, {});
  }

  void FfnPart(Matrix *out, ConstMatrixRef x) {
    const int64_t tokens = x.rows();
    Matrix in(tokens, config_.hidden);
    NormRows(in, x, config_, weights_.ffn_norm, weights_.ffn_norm_bias);
    See(Edge::kFfnIn, in);
    if (config_.IsSparse(layer_)) return SparsePart(out, in);
    Matrix gate(tokens, config_.ffn);
    Matrix up(tokens, config_.ffn);
    Linear(gate, in, weights_.gate, weights_.gate_bias);
    See(Edge::kGate, gate);
    Linear(up, in, weights_.up, weights_.up_bias);
    See(Edge::kUp, up);
    ApplyActivation(gate, config_.activation);
    See(Edge::kAct, gate);
    gate.array() *= up.array();
    See(Edge::kGlu, gate);
    Linear(*out, gate, weights_.down, weights_.down_bias);
  }

  void SparsePart(Matrix *out, const Matrix &in) {
    Matrix logits(in.rows(), config_.experts);
    Linear(logits, in, weights_.router, {});
    See(Edge::kRouterLogits, logits);
    const Routing routing = Route(config_, logits);
    out->setZero();
    if (config_.shared_ffn != 0) SharedExpertPart(out, in);
    // Rows of each expert's tokens are gathered, so that its products are those of matrices.
    std::vector<std::vector<size_t>> slots(static_cast<size_t>(config_.experts));  // of `routing`
    for (size_t i = 0; i < routing.experts.size(); ++i) slots[static_cast<size_t>(routing.experts[i])].push_back(i);
    const auto slots_per_token = static_cast<size_t>(config_.experts_per_token);
    for (int64_t expert = 0; expert < config_.experts; ++expert) {
      std::vector<int64_t> rows;
      for (const size_t slot : slots[static_cast<size_t>(expert)]) rows.push_back(static_cast<int64_t>(slot / slots_per_token));
      if (rows.empty()) continue;
      const Matrix result = RunExpert(*weights_.experts(expert), in(rows, Eigen::all), expert, rows);
      for (size_t i = 0; i < rows.size(); ++i) {
        const float weight = routing.weights[slots[static_cast<size_t>(expert)][i]];
        out->row(rows[i]) += weight * result.row(static_cast<int64_t>(i));
      }
    }
  }

  void SharedExpertPart(Matrix *out, const Matrix &in) {
    std::vector<int64_t> rows(static_cast<size_t>(in.rows()));
    std::iota(rows.begin(), rows.end(), 0);
    Matrix result = RunExpert(weights_.shared, in, kSharedExpert, rows);
    if (config_.shared_gate) {
      Matrix gate = in * weights_.shared_gate.transpose();
      See(Edge::kSharedGate, gate);
      for (int64_t t = 0; t < in.rows(); ++t) result.row(t) *= Sigmoid(gate(t, 0));
    }
    *out += result;
  }

  // The outputs of an expert for `in`, whose row i is the group's row rows[i].
  Matrix RunExpert(const ExpertWeights &expert, const Matrix &in, int64_t number, const std::vector<int64_t> &rows) {
    std::vector<int64_t> tokens = rows;
    for (int64_t &token : tokens) token += first_token_;
    const auto see = [&](Edge edge, MatrixRef values) {
      if (observer_ != nullptr && observer_->Wants(edge)) observer_->OnExpertEdge(edge, layer_, number, tokens, values);
    };
    Matrix gate(in.rows(), expert.gate.rows());
    Matrix up(in.rows(), expert.up.rows());
    ExpertLinear(gate, in, expert.gate);
    see(Edge::kGate, gate);
    ExpertLinear(up, in, expert.up);
    see(Edge::kUp, up);
    ApplyActivation(gate, config_.activation);
    see(Edge::kAct, gate);
    gate.array() *= up.array();
    see(Edge::kGlu, gate);
    Matrix out(in.rows(), expert.down.rows());
    ExpertLinear(out, gate, expert.down);
    see(Edge::kDownOut, out);
    return out;
  }

  const ModelConfig &config_;
  const LayerWeights &weights_;
  int64_t layer_;
  int64_t first_token_;
  const RopeTable &rope_;
  const LayerPrefix *prefix_;
  LayerObserver *observer_;
  LayerPrefix *left_ = nullptr;  // gets what the last window leaves
};

void LoadAttention(const SourceModel &source, int64_t layer, LayerWeights *weights) {
  weights->q_norm = LoadVector(source, TensorRole::kQNorm, layer);
  weights->k_norm = LoadVector(source, TensorRole::kKNorm, layer);
  weights->q = source.Load(TensorRole::kQ, layer);
  weights->k = source.Load(TensorRole::kK, layer);
  weights->v = source.Load(TensorRole::kV, layer);
  weights->o = source.Load(TensorRole::kO, layer);
  weights->q_bias = LoadVector(source, TensorRole::kQBias, layer);
  weights->k_bias = LoadVector(source, TensorRole::kKBias, layer);
  weights->v_bias = LoadVector(source, TensorRole::kVBias, layer);
  weights->o_bias = LoadVector(source, TensorRole::kOBias, layer);
  FoldAttentionFactor(source.config(), weights);
}

StateSpaceWeights LoadStateSpace(const SourceModel &source, int64_t layer) {
  StateSpaceWeights weights;
  weights.gate = source.Load(TensorRole::kSsmGate, layer);
  weights.conv_in = source.Load(TensorRole::kSsmConvIn, layer);
  weights.step = source.Load(TensorRole::kSsmStep, layer);
  weights.conv = source.Load(TensorRole::kSsmConv, layer);
  weights.conv_bias = LoadVector(source, TensorRole::kSsmConvBias, layer);
  weights.step_bias = LoadVector(source, TensorRole::kSsmStepBias, layer);
  weights.decay = LoadVector(source, TensorRole::kSsmDecay, layer);
  weights.skip = LoadVector(source, TensorRole::kSsmSkip, layer);
  weights.norm = LoadVector(source, TensorRole::kSsmNorm, layer);
  weights.out = source.Load(TensorRole::kSsmOut, layer);
  if (weights.decay.maxCoeff() >= 0) {
    throw Error(ExitCode::kBadModel, source.path() + ": ssm_decay of layer " + std::to_string(layer) +
                                         " holds a value that is not negative: its state would grow without end");
  }
  return weights;
}

void LoadFfn(const SourceModel &source, int64_t layer, LayerWeights *weights) {
  if (!source.config().HasFfn(layer)) return;
  if (!source.config().IsSparse(layer)) {
    weights->gate = source.Load(TensorRole::kGate, layer);
    weights->up = source.Load(TensorRole::kUp, layer);
    weights->down = source.Load(TensorRole::kDown, layer);
    return;
  }
  weights->router = source.Load(TensorRole::kRouter, layer);
  weights->experts = [&source, layer](int64_t expert) {
    return std::make_shared<const ExpertWeights>(ExpertWeights{source.LoadExpert(TensorRole::kExpertGate, layer, expert),
                                                               source.LoadExpert(TensorRole::kExpertUp, layer, expert),
                                                               source.LoadExpert(TensorRole::kExpertDown, layer, expert)});
  };
  if (source.config().shared_ffn != 0) {
    weights->shared = {source.Load(TensorRole::kSharedGate, layer), source.Load(TensorRole::kSharedUp, layer),
                       source.Load(TensorRole::kSharedDown, layer)};
  }
  weights->shared_gate = LoadVector(source, TensorRole::kSharedExpertGate, layer);
}

}  // namespace

void LayerObserver::OnExpertEdge(Edge, int64_t, int64_t, const std::vector<int64_t> &, MatrixRef) {}

const char *EdgeName(Edge edge) { return kEdgeNames[static_cast<int>(edge)]; }

RowVector LoadVector(const SourceModel &source, TensorRole role, int64_t layer) {
  if (!HasRole(source.config(), role, layer)) return {};
  return source.Load(role, layer).row(0);
}

LayerWeights LoadLayer(const SourceModel &source, int64_t layer) {
  LayerWeights weights;
  weights.order = source.Order(layer);
  weights.attn_norm = LoadVector(source, TensorRole::kAttnNorm, layer);
  weights.ffn_norm = LoadVector(source, TensorRole::kFfnNorm, layer);
  weights.attn_norm_bias = LoadVector(source, TensorRole::kAttnNormBias, layer);
  weights.ffn_norm_bias = LoadVector(source, TensorRole::kFfnNormBias, layer);
  if (source.config().IsStateSpace(layer)) {
    weights.ssm = LoadStateSpace(source, layer);
  } else {
    LoadAttention(source, layer, &weights);
  }
  LoadFfn(source, layer, &weights);
  weights.gate_bias = LoadVector(source, TensorRole::kGateBias, layer);
  weights.up_bias = LoadVector(source, TensorRole::kUpBias, layer);
  weights.down_bias = LoadVector(source, TensorRole::kDownBias, layer);
  return weights;
}

void RunLayer(const ModelConfig &config, const LayerWeights &weights, int64_t layer, MatrixRef x,
              const std::vector<int64_t> &boundaries, const RopeTable &rope, const LayerPrefix *prefix, LayerObserver *observer) {
  assert(!boundaries.empty() && boundaries.front() == 0 && boundaries.back() == x.rows());
  const int64_t group_tokens = config.IsSparse(layer) ? kSparseGroupTokens : kGroupTokens;
  size_t begin = 0;
  while (begin + 1 < boundaries.size()) {
    size_t end = begin + 1;
    while (end + 1 < boundaries.size() && boundaries[end + 1] - boundaries[begin] <= group_tokens) ++end;
    const int64_t first = boundaries[begin];
    std::vector<int64_t> local;
    for (size_t i = begin; i <= end; ++i) local.push_back(boundaries[i] - first);
    GroupRun(config, weights, layer, first, rope, prefix, observer).Run(x.middleRows(first, local.back()), local);
    begin = end;
  }
}

LayerPrefix RunPrefix(const ModelConfig &config, const LayerWeights &weights, int64_t layer, MatrixRef x, const RopeTable &rope,
                      LayerObserver *observer) {
  return GroupRun(config, weights, layer, 0, rope, nullptr, observer).RunPrefix(x);
}

Matrix Embed(const SourceModel &source, const std::vector<int32_t> &ids) {
  const ModelConfig &config = source.config();
  Matrix x(static_cast<int64_t>(ids.size()), config.hidden);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= config.vocab) {
      throw Error(ExitCode::kUsage,
                  "token id " + std::to_string(ids[i]) + " is outside the vocabulary of " + std::to_string(config.vocab));
    }
    x.row(static_cast<int64_t>(i)) = source.LoadRows(TensorRole::kEmbedding, 0, ids[i], 1).row(0);
    if (config.embedding_scale != 1) x.row(static_cast<int64_t>(i)) *= static_cast<float>(config.embedding_scale);
  }
  return x;
}

std::vector<int64_t> EvenBoundaries(int64_t tokens, int64_t window) {
  std::vector<int64_t> boundaries;
  for (int64_t start = 0; start < tokens; start += window) boundaries.push_back(start);
  boundaries.push_back(tokens);
  return boundaries;
}

Matrix RunLayers(const SourceModel &source, const std::vector<int32_t> &ids, const std::vector<int64_t> &boundaries,
                 LayerObserver *observer, const std::function<void(int64_t, int64_t)> &on_layer, const LayerChange &change) {
  const ModelConfig &config = source.config();
  int64_t longest = 0;
  for (size_t i = 0; i + 1 < boundaries.size(); ++i) longest = std::max(longest, boundaries[i + 1] - boundaries[i]);
  const RopeTable rope = MakeRopeTable(config, longest);
  Matrix x = Embed(source, ids);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    LayerWeights weights = LoadLayer(source, layer);
    if (change) change(layer, &weights);
    RunLayer(config, weights, layer, x, boundaries, rope, nullptr, observer);
    if (on_layer) on_layer(layer + 1, config.layers);
  }
  return x;
}

}  // namespace acorn::compiler
