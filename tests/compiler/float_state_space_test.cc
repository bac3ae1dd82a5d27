// The operators of state-space layers against plain loops in double, and the layer around them.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/parallel.h"
#include "graph/float_model.h"
#include "tests/compiler/expect_error.h"
#include "tests/support/shared_data.h"

namespace acorn::compiler {
namespace {

constexpr double kTolerance = 1e-5;

Matrix Random(int64_t rows, int64_t cols, uint32_t seed) {
  Matrix out(rows, cols);
  uint32_t state = seed * 2654435761u + 1;
  for (int64_t i = 0; i < out.size(); ++i) {
    state = state * 1664525u + 1013904223u;
    out.data()[i] = static_cast<float>(state >> 8) / static_cast<float>(1 << 23) - 1.0f;
  }
  return out;
}

double Silu(double x) { return x / (1 + std::exp(-x)); }

StateSpaceConfig SmallStateSpace() {
  StateSpaceConfig config;
  config.heads = 6;
  config.head_dim = 5;
  config.state = 7;
  config.groups = 3;
  config.conv_width = 4;
  return config;
}

TEST(StateSpace, ConvolutionSeesThePastAlone) {
  const Matrix x = Random(9, 130, 1), conv = Random(130, 4, 2), before = Random(3, 130, 13);
  const RowVector bias = Random(1, 130, 3).row(0);
  Matrix out(9, 130);
  CausalConv(out, x, before, conv, bias);
  for (int64_t t = 0; t < 9; ++t) {
    for (int64_t c = 0; c < 130; ++c) {
      double sum = bias(c);
      for (int64_t back = 0; back < 4; ++back) {
        sum += static_cast<double>(conv(c, 3 - back)) * (back <= t ? x(t - back, c) : before(3 + t - back, c));
      }
      EXPECT_NEAR(out(t, c), sum, kTolerance);
    }
  }
  CausalConv(out, x, Matrix(0, 130), Random(130, 1, 4), {});  // one tap, no bias
  EXPECT_NEAR(out(5, 77), Random(130, 1, 4)(77, 0) * x(5, 77), kTolerance);
}

TEST(StateSpace, TimeStepsStayWithinTheirLimits) {
  StateSpaceConfig config = SmallStateSpace();
  Matrix x(2, 3);
  x << -100, 0, 90, 1, -3, 30;
  const RowVector bias = RowVector::Constant(3, 0.5f);
  Matrix free = x;
  TimeSteps(free, config, bias);
  for (int64_t i = 0; i < x.size(); ++i) EXPECT_NEAR(free.data()[i], std::log1p(std::exp(x.data()[i] + 0.5)), kTolerance);
  config.min_step = 0.1;
  config.max_step = 2;
  TimeSteps(x, config, bias);
  EXPECT_FLOAT_EQ(x(0, 0), 0.1f);
  EXPECT_NEAR(x(0, 1), std::log1p(std::exp(0.5)), kTolerance);
  EXPECT_FLOAT_EQ(x(0, 2), 2);
}

TEST(StateSpace, ScanIsTheRecurrence) {
  const StateSpaceConfig config = SmallStateSpace();
  const int64_t tokens = 40;
  const Matrix xbc = Random(tokens, config.conv_channels(), 5);
  const Matrix dt = Random(tokens, config.heads, 6).cwiseAbs();
  const RowVector decay = -Random(1, config.heads, 7).row(0).cwiseAbs() - RowVector::Constant(config.heads, 0.1f);
  const RowVector skip = Random(1, config.heads, 8).row(0);
  Matrix out(tokens, config.inner());
  Matrix largest(tokens, config.heads), unwatched(tokens, config.inner()), none(0, config.heads);
  const Matrix before = Random(config.inner(), config.state, 14);
  Matrix state = before, state_unwatched = before;
  StateSpaceScan(out, config, xbc, dt, decay, skip, &state, largest);
  StateSpaceScan(unwatched, config, xbc, dt, decay, skip, &state_unwatched, none);
  EXPECT_EQ(unwatched, out);
  EXPECT_EQ(state_unwatched, state);
  for (int64_t head = 0; head < config.heads; ++head) {
    const int64_t b = config.inner() + head / 2 * config.state, c = b + config.groups * config.state;
    std::vector<double> reach(static_cast<size_t>(tokens));
    for (int64_t i = 0; i < config.head_dim; ++i) {
      const int64_t row = head * config.head_dim + i;
      std::vector<double> h(static_cast<size_t>(config.state));
      for (int64_t n = 0; n < config.state; ++n) h[static_cast<size_t>(n)] = before(row, n);
      for (int64_t t = 0; t < tokens; ++t) {
        const double x = xbc(t, row), step = dt(t, head);
        double y = static_cast<double>(skip(head)) * x;
        for (int64_t n = 0; n < config.state; ++n) {
          double &value = h[static_cast<size_t>(n)];
          value = std::exp(decay(head) * step) * value + step * x * xbc(t, b + n);
          y += value * xbc(t, c + n);
          reach[static_cast<size_t>(t)] = std::max(reach[static_cast<size_t>(t)], std::abs(value));
        }
        EXPECT_NEAR(out(t, row), y, 10 * kTolerance);
      }
      for (int64_t n = 0; n < config.state; ++n) EXPECT_NEAR(state(row, n), h[static_cast<size_t>(n)], kTolerance);
    }
    for (int64_t t = 0; t < tokens; ++t) EXPECT_NEAR(largest(t, head), reach[static_cast<size_t>(t)], kTolerance);
  }
}

TEST(StateSpace, NormOfGroupsBehindTheGate) {
  const Matrix x = Random(3, 12, 9), gate = 3 * Random(3, 12, 10);
  const RowVector weight = Random(1, 12, 11).row(0);
  Matrix out = x;
  ApplyGate(out, gate);
  GroupRmsNorm(out, weight, 3, 1e-3);
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t group = 0; group < 3; ++group) {
      double squares = 0;
      for (int64_t i = 4 * group; i < 4 * group + 4; ++i) squares += std::pow(x(t, i) * Silu(gate(t, i)), 2);
      for (int64_t i = 4 * group; i < 4 * group + 4; ++i) {
        EXPECT_NEAR(out(t, i), x(t, i) * Silu(gate(t, i)) / std::sqrt(squares / 4 + 1e-3) * weight(i), kTolerance);
      }
    }
  }
}

// Edges come in order, each window starts from an empty state, and threads do not matter.
TEST(StateSpace, WindowsOfALayer) {
  const auto source = OpenSourceModel(test::DataPath("small_bamba"));
  const ModelConfig &config = source->config();
  const LayerWeights weights = LoadLayer(*source, 0);
  const RopeTable rope = MakeRopeTable(config, 16);
  class Recorder : public LayerObserver {
   public:
    void OnEdge(Edge edge, int64_t, int64_t, MatrixRef) override { order.push_back(edge); }
    std::vector<Edge> order;
  } seen;
  const Matrix input = Random(20, config.hidden, 12);
  Matrix together = input, second = input.bottomRows(12), alone = input;
  RunLayer(config, weights, 0, together, {0, 8, 20}, rope, nullptr, &seen);
  EXPECT_EQ(seen.order, (std::vector<Edge>{Edge::kResidualIn, Edge::kAttnIn, Edge::kSsmGate, Edge::kSsmConvIn, Edge::kSsmStep,
                                           Edge::kSsmConvOut, Edge::kSsmTime, Edge::kSsmState, Edge::kSsmScan,
                                           Edge::kSsmGated, Edge::kSsmNormed, Edge::kOOut, Edge::kResidualMid, Edge::kFfnIn,
                                           Edge::kGate, Edge::kUp, Edge::kAct, Edge::kGlu, Edge::kDownOut, Edge::kResidualOut}));
  RunLayer(config, weights, 0, second, {0, 12}, rope, nullptr, nullptr);
  EXPECT_LE((together.bottomRows(12) - second).cwiseAbs().maxCoeff(), kTolerance);
  SetThreadCount(1);
  RunLayer(config, weights, 0, alone, {0, 8, 20}, rope, nullptr, nullptr);
  SetThreadCount(0);
  EXPECT_EQ(alone, together);
}

// What RunPrefix() gives stands for its tokens: behind it, windows are what they are behind the tokens themselves.
TEST(StateSpace, APrefixStandsForItsTokens) {
  for (const char *family : {"small_mamba2", "small_bamba", "small_granite_h", "small_granite_h_dense"}) {
    const auto source = OpenSourceModel(test::DataPath(family));
    const ModelConfig &config = source->config();
    const RopeTable rope = MakeRopeTable(config, 16);
    for (const int64_t rows : {1, 2, 5}) {  // 5: more than the convolution sees
      Matrix prefix_x = Random(rows, config.hidden, 15), windows = Random(16, config.hidden, 16);
      Matrix whole(2 * rows + 16, config.hidden);
      whole << prefix_x, windows.topRows(7), prefix_x, windows.bottomRows(9);
      for (int64_t layer = 0; layer < config.layers; ++layer) {
        const LayerWeights weights = LoadLayer(*source, layer);
        const LayerPrefix prefix = RunPrefix(config, weights, layer, prefix_x, rope, nullptr);
        EXPECT_EQ(prefix.state.size() != 0, config.IsStateSpace(layer));
        RunLayer(config, weights, layer, windows, {0, 7, 16}, rope, &prefix, nullptr);
        RunLayer(config, weights, layer, whole, {0, rows + 7, whole.rows()}, rope, nullptr, nullptr);
        const double tolerance = kTolerance * (1 + whole.cwiseAbs().maxCoeff());
        EXPECT_LE((windows.topRows(7) - whole.middleRows(rows, 7)).cwiseAbs().maxCoeff(), tolerance) << family << layer;
        EXPECT_LE((windows.bottomRows(9) - whole.bottomRows(9)).cwiseAbs().maxCoeff(), tolerance) << family << layer;
        EXPECT_LE((prefix_x - whole.topRows(rows)).cwiseAbs().maxCoeff(), tolerance) << family << layer;
      }
    }
  }
}

}  // namespace
}  // namespace acorn::compiler
