// Each operator of the float reference against its formula in plain loops of double.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/parallel.h"
#include "graph/float_model.h"

namespace acorn::compiler {
namespace {

// float32 inputs of magnitude about 1 and sums of at most a few hundred terms: rounding stays far below this.
constexpr double kTolerance = 2e-5;

Matrix Random(int64_t rows, int64_t columns, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Matrix out(rows, columns);
  for (int64_t i = 0; i < out.size(); ++i) out.data()[i] = normal(generator);
  return out;
}

ModelConfig SmallConfig() {
  ModelConfig config;
  config.hidden = 24;
  config.ffn = 40;
  config.heads = 6;
  config.kv_heads = 2;
  config.head_dim = 8;
  config.rotary_dims = 8;
  config.layers = 1;
  config.vocab = 50;
  config.max_context = 64;
  config.rope.theta = 100.0;
  return config;
}

void ExpectNear(const Matrix &got, const std::vector<double> &want, const char *what) {
  ASSERT_EQ(static_cast<size_t>(got.size()), want.size());
  for (int64_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got.data()[i], want[static_cast<size_t>(i)], kTolerance * std::max(1.0, std::abs(want[static_cast<size_t>(i)])))
        << what << ", element " << i;
  }
}

std::vector<double> NaiveAttention(const ModelConfig &config, const Matrix &q, const Matrix &sink_q, const Matrix &k, const Matrix &v,
                                   const LayerPrefix &prefix) {
  const int64_t dim = config.head_dim;
  const int64_t before = prefix.k.rows();
  std::vector<double> out(static_cast<size_t>(q.size()), 0.0);
  for (int64_t t = 0; t < q.rows(); ++t) {
    for (int64_t head = 0; head < config.heads; ++head) {
      const int64_t kv = head / (config.heads / config.kv_heads) * dim;
      std::vector<double> weights;
      double sum = 0;
      for (int64_t j = 0; j < before + t + 1; ++j) {
        const bool is_prefix = j < before;
        double score = 0;
        for (int64_t d = 0; d < dim; ++d) {
          const double key = is_prefix ? prefix.k(j, kv + d) : k(j - before, kv + d);
          score += (is_prefix ? sink_q : q)(t, head * dim + d) * key;
        }
        const bool is_seen = is_prefix || config.sliding_window == 0 || before + t - j < config.sliding_window;
        weights.push_back(is_seen ? std::exp(score / std::sqrt(static_cast<double>(dim))) : 0.0);
        sum += weights.back();
      }
      for (size_t j = 0; j < weights.size(); ++j) {
        const int64_t row = static_cast<int64_t>(j);
        for (int64_t d = 0; d < dim; ++d) {
          const double value = row < before ? prefix.v(row, kv + d) : v(row - before, kv + d);
          out[static_cast<size_t>(t * q.cols() + head * dim + d)] += weights[j] / sum * value;
        }
      }
    }
  }
  return out;
}

TEST(FloatOps, RmsNormOverRowsAndHeads) {
  const Matrix x = Random(300, 24, 1);
  for (const int64_t width : {24, 8}) {
    const RowVector weight = Random(1, width, 2).row(0);
    Matrix out(300, 24);
    RmsNorm(out, x, weight, 1e-3);
    std::vector<double> want;
    for (int64_t t = 0; t < 300; ++t) {
      for (int64_t c = 0; c < 24; ++c) {
        double sum = 0;
        for (int64_t i = c / width * width; i < (c / width + 1) * width; ++i) sum += static_cast<double>(x(t, i)) * x(t, i);
        want.push_back(x(t, c) / std::sqrt(sum / static_cast<double>(width) + 1e-3) * weight(c % width));
      }
    }
    ExpectNear(out, want, "rmsnorm");
  }
}

TEST(FloatOps, LayerNormTakesMeanAndVariance) {
  const Matrix x = (Random(300, 24, 1).array() + 0.7f).matrix();
  const RowVector weight = Random(1, 24, 2).row(0), bias = Random(1, 24, 3).row(0);
  std::vector<double> want;
  for (int64_t t = 0; t < 300; ++t) {
    const auto row = x.row(t).cast<double>();
    const double mean = row.sum() / 24, variance = row.squaredNorm() / 24 - mean * mean;
    for (int64_t c = 0; c < 24; ++c) want.push_back((row(c) - mean) / std::sqrt(variance + 1e-3) * weight(c) + bias(c));
  }
  Matrix out(300, 24);
  LayerNorm(out, x, weight, bias, 1e-3);
  ExpectNear(out, want, "layernorm");
  out = x;
  ModelConfig config = SmallConfig();
  config.norm = NormKind::kLayer;
  config.rms_eps = 1e-3;
  NormRows(out, out, config, weight, bias);
  ExpectNear(out, want, "in place");
}

TEST(FloatOps, RopeFrequencies) {
  ModelConfig config = SmallConfig();
  const std::vector<double> plain = RopeFrequencies(config);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(plain[i], std::pow(100.0, -i / 4.0), 1e-15);
  config.rope.kind = RopeKind::kLinear;
  config.rope.factor = 4;
  EXPECT_NEAR(RopeFrequencies(config)[3], plain[3] / 4, 1e-15);
  config.rope.kind = RopeKind::kDivisors;
  config.rope.divisors = {1, 2, 4, 8};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(RopeFrequencies(config)[i], plain[i] / config.rope.divisors[i], 1e-15);
  // Wavelengths 6.3, 20, 63, 199 against limits of 12.8 (kept below) and 51.2 (divided above).
  config.rope.kind = RopeKind::kLlama3;
  config.rope.original_context = 51;
  config.rope.low_freq_factor = 1;
  config.rope.high_freq_factor = 4;
  const std::vector<double> scaled = RopeFrequencies(config);
  const double smooth = (51 * plain[1] / (2 * std::acos(-1.0)) - 1) / 3;
  EXPECT_NEAR(scaled[0], plain[0], 1e-15);
  EXPECT_NEAR(scaled[1], (1 - smooth) * plain[1] / 4 + smooth * plain[1], 1e-15);
  EXPECT_NEAR(scaled[2], plain[2] / 4, 1e-15);
  EXPECT_NEAR(scaled[3], plain[3] / 4, 1e-15);
}

TEST(FloatOps, RopeRotatesHalvesOfTheRotaryDims) {
  for (const int64_t rotary : {8, 4}) {
    ModelConfig config = SmallConfig();
    config.rotary_dims = rotary;
    const Matrix x = Random(20, 48, 3);
    Matrix out = x;
    ApplyRope(out, config, MakeRopeTable(config, 27), 7);
    std::vector<double> want(x.data(), x.data() + x.size());
    for (int64_t t = 0; t < 20; ++t) {
      for (int64_t head = 0; head < 6; ++head) {
        for (int64_t i = 0; i < rotary / 2; ++i) {
          const double angle = static_cast<double>(t + 7) * std::pow(100.0, -2.0 * i / rotary);
          const int64_t a = head * 8 + i, b = a + rotary / 2;
          want[t * 48 + a] = x(t, a) * std::cos(angle) - x(t, b) * std::sin(angle);
          want[t * 48 + b] = x(t, b) * std::cos(angle) + x(t, a) * std::sin(angle);
        }
      }
    }
    ExpectNear(out, want, "rope");
  }
}

TEST(FloatOps, AttentionWithGroupsPrefixAndWindow) {
  for (const int64_t prefix_rows : {0, 2}) {
    for (const int64_t sliding_window : {0, 5}) {
      for (const int64_t tokens : {1, 7, 131}) {
        ModelConfig config = SmallConfig();
        config.sliding_window = sliding_window;
        const Matrix q = Random(tokens, 48, 4), k = Random(tokens, 16, 5), v = Random(tokens, 16, 6);
        const LayerPrefix prefix{Random(prefix_rows, 16, 7), Random(prefix_rows, 16, 8), {}, {}};
        Matrix out(tokens, 48);
        Attention(out, config, q, q, k, v, prefix_rows == 0 ? nullptr : &prefix, sliding_window);
        ExpectNear(out, NaiveAttention(config, q, q, k, v, prefix), "attention");
        const Matrix sink_q = Random(tokens, 48, 9);
        Attention(out, config, q, sink_q, k, v, prefix_rows == 0 ? nullptr : &prefix, sliding_window);
        ExpectNear(out, NaiveAttention(config, q, sink_q, k, v, prefix), "attention of another query for sinks");
      }
    }
  }
}

TEST(FloatOps, Activations) {
  const Matrix x = 3.0f * Random(5, 33, 9);
  for (const ActivationKind kind : {ActivationKind::kSilu, ActivationKind::kGeluTanh, ActivationKind::kGelu}) {
    Matrix out = x;
    ApplyActivation(out, kind);
    std::vector<double> want;
    for (int64_t i = 0; i < x.size(); ++i) {
      const double z = x.data()[i];
      if (kind == ActivationKind::kSilu) want.push_back(z / (1 + std::exp(-z)));
      if (kind == ActivationKind::kGelu) want.push_back(0.5 * z * (1 + std::erf(z / std::sqrt(2.0))));
      if (kind == ActivationKind::kGeluTanh) {
        want.push_back(0.5 * z * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (z + 0.044715 * z * z * z))));
      }
    }
    ExpectNear(out, want, "activation");
  }
}

TEST(FloatOps, LinearOverTaskEdges) {
  for (const int64_t rows : {1, 255, 257}) {
    const Matrix x = Random(rows, 17, 10), weight = Random(2049, 17, 11);
    const RowVector bias = Random(1, 2049, 12).row(0);
    Matrix out(rows, 2049);
    Linear(out, x, weight, bias);
    std::vector<double> want;
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t n = 0; n < 2049; ++n) {
        double sum = bias(n);
        for (int64_t i = 0; i < 17; ++i) sum += static_cast<double>(x(t, i)) * weight(n, i);
        want.push_back(sum);
      }
    }
    ExpectNear(out, want, "linear");
  }
}

// Edges of a dense layer.
constexpr int kDenseEdges = kEdges - 11;  // nine are of state-space layers, two of sparse ones

// An observer that keeps what it sees.
class Recorder : public LayerObserver {
 public:
  void OnEdge(Edge edge, int64_t, int64_t first_token, MatrixRef values) override {
    order.push_back(edge);
    first_tokens.push_back(first_token);
    seen[static_cast<size_t>(edge)] = values;
  }
  std::vector<Edge> order;
  std::vector<int64_t> first_tokens;
  Matrix seen[kEdges];
};

LayerWeights RandomLayer(const ModelConfig &config) {
  LayerWeights weights;
  weights.attn_norm = Random(1, 24, 20).row(0);
  weights.ffn_norm = Random(1, 24, 21).row(0);
  weights.q_norm = Random(1, 8, 22).row(0);
  weights.k_norm = Random(1, 8, 23).row(0);
  weights.q = 0.2f * Random(48, 24, 24);
  weights.k = 0.2f * Random(16, 24, 25);
  weights.v = 0.2f * Random(16, 24, 26);
  weights.o = 0.2f * Random(24, 48, 27);
  weights.gate = 0.2f * Random(config.ffn, 24, 28);
  weights.up = 0.2f * Random(config.ffn, 24, 29);
  weights.down = 0.2f * Random(24, config.ffn, 30);
  weights.q_bias = Random(1, 48, 31).row(0);
  weights.down_bias = Random(1, 24, 32).row(0);
  return weights;
}

TEST(RunLayer, ObserverSeesEveryEdgeAndEdgesFit) {
  ModelConfig config = SmallConfig();
  config.qk_norm = true;
  const LayerWeights weights = RandomLayer(config);
  const RopeTable rope = MakeRopeTable(config, 16);
  Matrix x = Random(21, 24, 33);
  Recorder seen;
  RunLayer(config, weights, 0, x, {0, 10, 21}, rope, nullptr, &seen);
  ASSERT_EQ(seen.order.size(), static_cast<size_t>(kDenseEdges));
  EXPECT_TRUE(std::is_sorted(seen.order.begin(), seen.order.end()));
  EXPECT_EQ(std::count(seen.order.begin(), seen.order.end(), Edge::kRouterLogits), 0);
  EXPECT_EQ(std::count(seen.order.begin(), seen.order.end(), Edge::kSharedGate), 0);
  const auto edge = [&](Edge e) -> const Matrix & { return seen.seen[static_cast<size_t>(e)]; };
  EXPECT_EQ(edge(Edge::kResidualOut), x);
  EXPECT_EQ(edge(Edge::kResidualMid), edge(Edge::kResidualIn) + edge(Edge::kOOut));
  EXPECT_EQ(x, edge(Edge::kResidualMid) + edge(Edge::kDownOut));
  EXPECT_EQ(edge(Edge::kGlu), Matrix(edge(Edge::kAct).array() * edge(Edge::kUp).array()));
  Matrix q = edge(Edge::kAttnIn) * weights.q.transpose();
  q.rowwise() += weights.q_bias;
  EXPECT_LE((q - edge(Edge::kQ)).cwiseAbs().maxCoeff(), kTolerance * q.cwiseAbs().maxCoeff());
}

// Windows do not see each other; an observer may change what follows; a prefix equals the tokens it stands for.
TEST(RunLayer, WindowsPrefixAndChanges) {
  ModelConfig config = SmallConfig();
  config.qk_norm = true;
  const LayerWeights weights = RandomLayer(config);
  const RopeTable rope = MakeRopeTable(config, 32);
  const Matrix input = Random(20, 24, 34);
  Matrix together = input;
  RunLayer(config, weights, 0, together, {0, 8, 20}, rope, nullptr, nullptr);
  Matrix second = input.bottomRows(12);
  RunLayer(config, weights, 0, second, {0, 12}, rope, nullptr, nullptr);
  EXPECT_LE((together.bottomRows(12) - second).cwiseAbs().maxCoeff(), kTolerance);

  Matrix whole = input;
  Recorder seen;
  RunLayer(config, weights, 0, whole, {0, 20}, rope, nullptr, &seen);
  const LayerPrefix prefix{seen.seen[static_cast<size_t>(Edge::kKRotated)].topRows(2),
                           seen.seen[static_cast<size_t>(Edge::kV)].topRows(2), {}, {}};
  Matrix rest = input.bottomRows(18);
  RunLayer(config, weights, 0, rest, {0, 18}, rope, &prefix, nullptr);
  EXPECT_LE((whole.bottomRows(18) - rest).cwiseAbs().maxCoeff(), 10 * kTolerance);

  class Eraser : public LayerObserver {
   public:
    bool Wants(Edge edge) const override { return edge == Edge::kOOut || edge == Edge::kDownOut; }
    void OnEdge(Edge, int64_t, int64_t, MatrixRef values) override { values.setZero(); }
  } eraser;
  Matrix kept = input;
  RunLayer(config, weights, 0, kept, {0, 20}, rope, nullptr, &eraser);
  EXPECT_EQ(kept, input);
}

TEST(RunLayer, ThreadsDoNotMatter) {
  ModelConfig config = SmallConfig();
  config.qk_norm = true;
  const LayerWeights weights = RandomLayer(config);
  const RopeTable rope = MakeRopeTable(config, 600);
  const Matrix input = Random(1200, 24, 35);
  Matrix results[3];
  for (int threads = 1; threads <= 3; ++threads) {
    SetThreadCount(threads);
    results[threads - 1] = input;
    RunLayer(config, weights, 0, results[threads - 1], {0, 600, 1200}, rope, nullptr, nullptr);
  }
  SetThreadCount(0);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

// 4096 tokens go through a layer together: the observer is called once for each group, with its first token.
TEST(RunLayer, GroupsOfWindows) {
  ModelConfig config = SmallConfig();
  config.qk_norm = true;
  Matrix x = Random(5000, 24, 36);
  Recorder seen;
  RunLayer(config, RandomLayer(config), 0, x, EvenBoundaries(5000, 500), MakeRopeTable(config, 500), nullptr, &seen);
  ASSERT_EQ(seen.first_tokens.size(), static_cast<size_t>(2 * kDenseEdges));
  EXPECT_EQ(seen.first_tokens.front(), 0);
  EXPECT_EQ(seen.first_tokens.back(), 4000);
}

TEST(HeadScorer, LossesAreNegativeLogProbabilities) {
  ModelConfig config = SmallConfig();
  const Matrix head = Random(5000, 24, 40), x = Random(600, 24, 41);
  const HeadScorer scorer(config, Random(1, 24, 42).row(0), {}, head);
  std::vector<int32_t> targets;
  for (int i = 0; i < 600; ++i) targets.push_back(i * 8 % 5000);
  const std::vector<double> losses = scorer.Losses(x, targets);
  const Matrix logits = scorer.Logits(x);
  for (int i = 0; i < 600; i += 37) {
    double sum = 0;
    for (int64_t n = 0; n < 5000; ++n) sum += std::exp(static_cast<double>(logits(i, n)));
    EXPECT_NEAR(losses[static_cast<size_t>(i)], std::log(sum) - logits(i, targets[static_cast<size_t>(i)]), 1e-4);
  }
}

}  // namespace
}  // namespace acorn::compiler
