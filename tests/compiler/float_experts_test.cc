// Sparse layers of the float reference: the router against its rule, the layer against plain loops of double, what an observer
// sees and changes, and which experts are asked for.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "base/parallel.h"
#include "graph/float_model.h"
#include "tests/support/shared_data.h"

namespace acorn::compiler {
namespace {

constexpr double kTolerance = 2e-5;

Matrix Random(int64_t rows, int64_t columns, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Matrix out(rows, columns);
  for (int64_t i = 0; i < out.size(); ++i) out.data()[i] = normal(generator);
  return out;
}

ModelConfig SparseConfig() {
  ModelConfig config;
  config.hidden = 24;
  config.ffn = 40;
  config.heads = 3;
  config.kv_heads = 3;
  config.head_dim = 8;
  config.rotary_dims = 8;
  config.layers = 1;
  config.vocab = 50;
  config.max_context = 64;
  config.experts = 5;
  config.experts_per_token = 2;
  config.expert_ffn = 12;
  config.sparse_layers = {true};
  return config;
}

/// A layer whose attention adds nothing. `asked` (may be null) gets the number of every expert that is loaded.
LayerWeights RandomLayer(const ModelConfig &config, std::vector<int64_t> *asked = nullptr) {
  LayerWeights weights;
  weights.attn_norm = RowVector::Ones(24);
  weights.ffn_norm = Random(1, 24, 1).row(0);
  weights.q = weights.k = weights.v = weights.o = Matrix::Zero(24, 24);
  weights.router = 0.3f * Random(config.experts, 24, 2);
  weights.experts = [asked, config](int64_t expert) {
    if (asked != nullptr) asked->push_back(expert);
    const auto seed = static_cast<uint32_t>(10 * (expert + 1));
    return std::make_shared<const ExpertWeights>(ExpertWeights{0.2f * Random(config.expert_ffn, 24, seed),
                                                               0.2f * Random(config.expert_ffn, 24, seed + 1),
                                                               0.2f * Random(24, config.expert_ffn, seed + 2)});
  };
  if (config.shared_ffn != 0) {
    weights.shared = {0.2f * Random(config.shared_ffn, 24, 3), 0.2f * Random(config.shared_ffn, 24, 4),
                      0.2f * Random(24, config.shared_ffn, 5)};
  }
  if (config.shared_gate) weights.shared_gate = 0.2f * Random(1, 24, 6).row(0);
  return weights;
}

Matrix RunOne(const ModelConfig &config, const LayerWeights &weights, Matrix x, LayerObserver *observer = nullptr) {
  const int64_t tokens = x.rows();
  RunLayer(config, weights, 0, x, {0, tokens}, MakeRopeTable(config, tokens), nullptr, observer);
  return x;
}

std::vector<double> NaiveExpert(const ExpertWeights &expert, const std::vector<double> &in) {
  std::vector<double> inner, out;
  for (int64_t n = 0; n < expert.gate.rows(); ++n) {
    double gate = 0, up = 0;
    for (size_t i = 0; i < in.size(); ++i) {
      gate += in[i] * expert.gate(n, static_cast<int64_t>(i));
      up += in[i] * expert.up(n, static_cast<int64_t>(i));
    }
    inner.push_back(gate / (1 + std::exp(-gate)) * up);
  }
  for (int64_t n = 0; n < expert.down.rows(); ++n) {
    double sum = 0;
    for (size_t i = 0; i < inner.size(); ++i) sum += inner[i] * expert.down(n, static_cast<int64_t>(i));
    out.push_back(sum);
  }
  return out;
}

/// One token through the whole layer: routing by repeated search for the largest.
std::vector<double> NaiveToken(const ModelConfig &config, const LayerWeights &weights, const RowVector &x) {
  double squares = 0;
  for (int64_t i = 0; i < 24; ++i) squares += static_cast<double>(x(i)) * x(i);
  std::vector<double> in, out;
  for (int64_t i = 0; i < 24; ++i) {
    in.push_back(x(i) / std::sqrt(squares / 24 + config.rms_eps) * weights.ffn_norm(i));
    out.push_back(x(i));
  }
  const auto dot = [&](const RowVector &row) {
    double sum = 0;
    for (size_t i = 0; i < in.size(); ++i) sum += in[i] * row(static_cast<int64_t>(i));
    return sum;
  };
  std::vector<double> scores;
  double whole = 0;
  for (int64_t e = 0; e < config.experts; ++e) scores.push_back(std::exp(dot(weights.router.row(e))));
  for (const double score : scores) whole += score;
  std::vector<int64_t> chosen;
  double chosen_sum = 0;
  for (int64_t i = 0; i < config.experts_per_token; ++i) {
    int64_t best = -1;
    for (int64_t e = 0; e < config.experts; ++e) {
      const bool is_free = std::find(chosen.begin(), chosen.end(), e) == chosen.end();
      if (is_free && (best < 0 || scores[static_cast<size_t>(e)] > scores[static_cast<size_t>(best)])) best = e;
    }
    chosen.push_back(best);
    chosen_sum += scores[static_cast<size_t>(best)];
  }
  const auto add = [&](double weight, const ExpertWeights &expert) {
    const std::vector<double> result = NaiveExpert(expert, in);
    for (size_t i = 0; i < out.size(); ++i) out[i] += weight * result[i];
  };
  for (const int64_t e : chosen) {
    add(scores[static_cast<size_t>(e)] / (config.normalised_experts ? chosen_sum : whole), *weights.experts(e));
  }
  if (config.shared_ffn != 0) add(config.shared_gate ? 1 / (1 + std::exp(-dot(weights.shared_gate))) : 1, weights.shared);
  return out;
}

TEST(Route, LargestLogitsAndTheLowerNumberAmongEqualOnes) {
  ModelConfig config = SparseConfig();
  Matrix logits(3, 5);
  logits << 0, 3, 1, 3, 2,  //
      7, 7, 7, 7, 7,        //
      -5, -4, -3, -2, -1;
  config.experts_per_token = 3;
  EXPECT_EQ(Route(config, logits).experts, (std::vector<int32_t>{1, 3, 4, 0, 1, 2, 4, 3, 2}));
  config.experts_per_token = 5;
  EXPECT_EQ(Route(config, logits.row(1)).experts, (std::vector<int32_t>{0, 1, 2, 3, 4}));
}

TEST(Route, WeightsOfEveryKind) {
  ModelConfig config = SparseConfig();
  const float l[5] = {0.5f, 2, -1, 1.25f, -80};
  const Matrix logits = Eigen::Map<const Matrix>(l, 1, 5);
  const auto expect = [&](double first, double second) {
    const Routing routing = Route(config, logits);
    ASSERT_EQ(routing.experts, (std::vector<int32_t>{1, 3}));
    EXPECT_NEAR(routing.weights[0], first, 1e-7);
    EXPECT_NEAR(routing.weights[1], second, 1e-7);
  };
  const double a = std::exp(2), b = std::exp(1.25), all = std::exp(0.5) + a + std::exp(-1) + b;
  expect(a / all, b / all);
  config.normalised_experts = true;
  expect(a / (a + b), b / (a + b));
  config.router_score = RouterScore::kSigmoid;
  const double c = 1 / (1 + std::exp(-2)), d = 1 / (1 + std::exp(-1.25));
  expect(c / (c + d), d / (c + d));
  config.normalised_experts = false;
  expect(c, d);
}

TEST(Route, LargeLogitsDoNotOverflow) {
  ModelConfig config = SparseConfig();
  Matrix logits(1, 5);
  logits << 3000, -3000, 2999, 0, 0;
  const Routing routing = Route(config, logits);
  EXPECT_EQ(routing.experts, (std::vector<int32_t>{0, 2}));
  EXPECT_NEAR(routing.weights[0], 1 / (1 + std::exp(-1.0)), 1e-6);
}

TEST(SparseLayer, EqualsPlainLoops) {
  for (const int kind : {0, 1, 2, 3}) {
    SCOPED_TRACE(kind);
    ModelConfig config = SparseConfig();
    config.normalised_experts = kind % 2 == 1;
    config.shared_ffn = kind < 2 ? 0 : 20;
    config.shared_gate = kind == 3;
    const LayerWeights weights = RandomLayer(config);
    const Matrix x = Random(40, 24, 7), got = RunOne(config, weights, x);
    for (int64_t t = 0; t < x.rows(); ++t) {
      const std::vector<double> want = NaiveToken(config, weights, x.row(t));
      for (int64_t i = 0; i < 24; ++i) ASSERT_NEAR(got(t, i), want[static_cast<size_t>(i)], kTolerance) << t << ", " << i;
    }
  }
}

/// Keeps every expert edge of a run and adds up what the FFN must put out.
class ExpertRecorder : public LayerObserver {
 public:
  struct Seen {
    Edge edge;
    int64_t expert;
    std::vector<int64_t> tokens;
    Matrix values;
  };
  void OnEdge(Edge edge, int64_t, int64_t, MatrixRef values) override {
    order.push_back(edge);
    if (edge == Edge::kRouterLogits) logits = values;
    if (edge == Edge::kSharedGate) shared_gate = values;
    if (edge == Edge::kDownOut) sum = values;
    if (edge == Edge::kFfnIn) in = values;
  }
  void OnExpertEdge(Edge edge, int64_t, int64_t expert, const std::vector<int64_t> &tokens, MatrixRef values) override {
    experts.push_back({edge, expert, tokens, values});
  }
  std::vector<Edge> order;
  std::vector<Seen> experts;
  Matrix in, logits, shared_gate, sum;
};

TEST(SparseLayer, ObserverSeesEveryExpert) {
  ModelConfig config = SparseConfig();
  config.shared_ffn = 20;
  config.shared_gate = true;
  const LayerWeights weights = RandomLayer(config);
  ExpertRecorder seen;
  RunOne(config, weights, Random(30, 24, 8), &seen);
  EXPECT_EQ(seen.logits.cols(), 5);
  EXPECT_EQ(seen.shared_gate.cols(), 1);
  for (const Edge edge : {Edge::kGate, Edge::kUp, Edge::kAct, Edge::kGlu}) {
    EXPECT_EQ(std::count(seen.order.begin(), seen.order.end(), edge), 0) << EdgeName(edge);
  }
  const Routing routing = Route(config, seen.logits);
  Matrix sum = Matrix::Zero(30, 24);
  int64_t last = kSharedExpert - 1;
  size_t visits = 0;
  ASSERT_EQ(seen.experts.size() % 5, 0u);
  for (size_t i = 0; i < seen.experts.size(); i += 5) {
    const Edge edges[] = {Edge::kGate, Edge::kUp, Edge::kAct, Edge::kGlu, Edge::kDownOut};
    for (size_t e = 0; e < 5; ++e) {
      EXPECT_EQ(seen.experts[i + e].edge, edges[e]);
      EXPECT_EQ(seen.experts[i + e].expert, seen.experts[i].expert);
      EXPECT_EQ(seen.experts[i + e].tokens, seen.experts[i].tokens);
      EXPECT_EQ(seen.experts[i + e].values.rows(), static_cast<int64_t>(seen.experts[i].tokens.size()));
    }
    const ExpertRecorder::Seen &gate = seen.experts[i], &down = seen.experts[i + 4];
    EXPECT_GT(gate.expert, last);
    last = gate.expert;
    EXPECT_TRUE(std::is_sorted(gate.tokens.begin(), gate.tokens.end()));
    const bool is_shared = gate.expert == kSharedExpert;
    EXPECT_EQ(gate.values.cols(), is_shared ? 20 : 12);
    const Matrix weight = is_shared ? weights.shared.gate : weights.experts(gate.expert)->gate;
    EXPECT_LE((seen.in(gate.tokens, Eigen::all) * weight.transpose() - gate.values).cwiseAbs().maxCoeff(), kTolerance);
    for (size_t row = 0; row < gate.tokens.size(); ++row) {
      const int64_t token = gate.tokens[row];
      float factor = 0;
      if (is_shared) factor = 1 / (1 + std::exp(-seen.shared_gate(token, 0)));
      for (size_t slot = 0; slot < 2; ++slot) {
        const size_t place = static_cast<size_t>(token) * 2 + slot;
        if (routing.experts[place] == gate.expert) factor = routing.weights[place], ++visits;
      }
      EXPECT_GT(factor, 0);
      sum.row(token) += factor * down.values.row(static_cast<int64_t>(row));
    }
  }
  EXPECT_EQ(visits, 60u);
  EXPECT_LE((sum - seen.sum).cwiseAbs().maxCoeff(), kTolerance);
}

TEST(SparseLayer, WhatAnObserverChangesCounts) {
  ModelConfig config = SparseConfig();
  const Matrix x = Random(20, 24, 9);
  class Changer : public LayerObserver {
   public:
    bool Wants(Edge edge) const override { return edge == Edge::kRouterLogits || edge == Edge::kDownOut; }
    void OnEdge(Edge edge, int64_t, int64_t, MatrixRef values) override {
      if (edge == Edge::kRouterLogits) values.col(3).setConstant(100), values.col(1).setConstant(90);
    }
    void OnExpertEdge(Edge, int64_t, int64_t expert, const std::vector<int64_t> &, MatrixRef values) override {
      if (expert == 3) values.setConstant(2);
    }
  } changer;
  std::vector<int64_t> asked;
  const Matrix got = RunOne(config, RandomLayer(config, &asked), x, &changer);
  EXPECT_EQ(asked, (std::vector<int64_t>{1, 3}));  // the others have no token and are not loaded
  EXPECT_LE(((got - x).array() - 2).cwiseAbs().maxCoeff(), 0.01f);
}

// An expert is loaded once for each group of 8192 tokens and let go behind its part.
TEST(SparseLayer, OneExpertIsResident) {
  ModelConfig config = SparseConfig();
  std::vector<int64_t> asked;
  LayerWeights weights = RandomLayer(config, &asked);
  std::weak_ptr<const ExpertWeights> before;
  weights.experts = [&, load = weights.experts](int64_t expert) {
    EXPECT_TRUE(before.expired());
    const auto loaded = load(expert);
    before = loaded;
    return loaded;
  };
  Matrix x = Random(9000, 24, 10);
  ExpertRecorder seen;
  RunLayer(config, weights, 0, x, EvenBoundaries(9000, 500), MakeRopeTable(config, 500), nullptr, &seen);
  EXPECT_TRUE(before.expired());
  EXPECT_EQ(asked, (std::vector<int64_t>{0, 1, 2, 3, 4, 0, 1, 2, 3, 4}));
  EXPECT_EQ(seen.experts.back().tokens.back() / 500, 17);  // tokens are counted from the run's first
}

TEST(SparseLayer, ThreadsDoNotMatter) {
  ModelConfig config = SparseConfig();
  config.expert_ffn = 600;
  config.shared_ffn = 300;
  const LayerWeights weights = RandomLayer(config);
  const Matrix x = Random(700, 24, 11);
  Matrix results[3];
  for (int threads = 1; threads <= 3; ++threads) {
    SetThreadCount(threads);
    results[threads - 1] = RunOne(config, weights, x);
  }
  SetThreadCount(0);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

// Norms of whole rows with their limit, as in OLMoE, under rotations whose factor is part of the weights.
TEST(SparseLayer, NormOfRowsAndLimit) {
  ModelConfig config = SparseConfig();
  config.qk_norm = config.qk_norm_rows = true;
  config.qkv_limit = 1.25;
  LayerWeights weights = RandomLayer(config);
  weights.q = Random(24, 24, 12);
  weights.k = Random(24, 24, 13);
  weights.v = Random(24, 24, 14);
  weights.q_norm = Random(1, 24, 15).row(0);
  weights.k_norm = Random(1, 24, 16).row(0);
  class Heads : public LayerObserver {
   public:
    void OnEdge(Edge edge, int64_t, int64_t, MatrixRef values) override { seen[static_cast<size_t>(edge)] = values; }
    const Matrix &at(Edge edge) const { return seen[static_cast<size_t>(edge)]; }
    Matrix seen[kEdges];
  } heads;
  RunOne(config, weights, Random(10, 24, 17), &heads);
  Matrix want(10, 24);
  RmsNorm(want, heads.at(Edge::kQ), weights.q_norm, config.rms_eps);
  EXPECT_GT(want.cwiseAbs().maxCoeff(), 1.25f);
  EXPECT_EQ(heads.at(Edge::kQNormed), want.cwiseMin(1.25f).cwiseMax(-1.25f));
  for (const Edge edge : {Edge::kKNormed, Edge::kV}) EXPECT_EQ(heads.at(edge).cwiseAbs().maxCoeff(), 1.25f) << EdgeName(edge);
}

TEST(LoadLayer, DenseAndSparse) {
  const auto source = OpenSourceModel(test::DataPath("small_qwen2_moe"));
  const LayerWeights dense = LoadLayer(*source, 0), sparse = LoadLayer(*source, 1);
  EXPECT_EQ(dense.gate.rows(), 40);
  EXPECT_EQ(dense.router.size() + dense.shared.gate.size() + dense.shared_gate.size(), 0);
  EXPECT_EQ(dense.experts, nullptr);
  EXPECT_EQ(sparse.gate.size() + sparse.up.size() + sparse.down.size(), 0);
  EXPECT_EQ(sparse.router.rows(), 5);
  EXPECT_EQ(sparse.shared.down.cols(), 24);
  EXPECT_EQ(sparse.shared_gate.size(), 32);
  EXPECT_EQ(sparse.experts(4)->down, source->LoadExpert(TensorRole::kExpertDown, 1, 4));
}

}  // namespace
}  // namespace acorn::compiler
