#include "quantize/state_space_layer.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "write/op_integers.h"

namespace acorn::compiler {
namespace {

constexpr double kHeadroom16 = 2.0;          // 16-bit edges: room for what calibration did not see
constexpr double kStateLimit = (1 << 30) - 1;  // of a state's integers

double Step16(double largest) { return std::max(largest, 1e-6) * kHeadroom16 / 32767; }

std::vector<double> Steps16(const RowVector &largest) {
  std::vector<double> steps;
  for (const float value : largest) steps.push_back(Step16(static_cast<double>(value)));
  return steps;
}

/// Scales of the convolution's output for each head, whose channels stand in pieces.
std::vector<double> HeadScales(const RowVector &largest, const StateSpaceConfig &config, const LayerOrder &order) {
  const int64_t piece = order.channel_major ? LayerOrder::kChannelBlock : config.head_dim;
  std::vector<double> most(static_cast<size_t>(config.heads), 0);
  for (int64_t first = 0; first < config.inner(); first += piece) {
    double &of_head = most[static_cast<size_t>(first / piece % config.heads)];
    of_head = std::max(of_head, static_cast<double>(largest.segment(first, piece).maxCoeff()));
  }
  for (double &value : most) value = ConvScale(value * kHeadroom16);
  return most;
}

/// Scales of the convolution's output in stretches of `width` columns, from column `first` on.
std::vector<double> ConvScales(const RowVector &largest, int64_t first, int64_t stretches, int64_t width) {
  std::vector<double> scales;
  for (int64_t i = 0; i < stretches; ++i) {
    const float most = largest.segment(first + i * width, width).maxCoeff();
    scales.push_back(ConvScale(static_cast<double>(most) * kHeadroom16));
  }
  return scales;
}

/// Rounds a prefix to its units. limit: of the integers.
template <typename Integer>
std::vector<Integer> RoundedPrefix(double limit, const std::function<double(int64_t row, int64_t column)> &unit, Matrix *prefix) {
  std::vector<Integer> integers;
  integers.reserve(static_cast<size_t>(prefix->size()));
  for (int64_t r = 0; r < prefix->rows(); ++r) {
    for (int64_t c = 0; c < prefix->cols(); ++c) {
      float &value = (*prefix)(r, c);
      const double steps = std::round(static_cast<double>(value) / unit(r, c));
      integers.push_back(static_cast<Integer>(std::min(std::max(steps, -limit), limit)));
      value = static_cast<float>(integers.back() * unit(r, c));
    }
  }
  return integers;
}

}  // namespace

Matrix StackInputs(const StateSpaceWeights &weights) {
  Matrix all(weights.gate.rows() + weights.conv_in.rows() + weights.step.rows(), weights.gate.cols());
  all << weights.gate, weights.conv_in, weights.step;
  return all;
}

QuantizedStateSpace QuantizeStateSpace(const StateSpaceConfig &config, const StateSpaceWeights &weights,
                                       const LayerOrder &order, const RangeObserver &ranges, LayerPrefix *prefix) {
  QuantizedStateSpace out;
  out.conv = weights.conv;
  out.conv_bias = weights.conv_bias;
  out.step_bias = weights.step_bias;
  out.decay = weights.decay;
  out.skip = weights.skip;
  out.norm = weights.norm;
  StateSpaceScales &scales = out.scales;
  scales.gate16 = Step16(ranges.Reach(Edge::kSsmGate));
  scales.conv_in16 = Steps16(ranges.ColumnLargest(Edge::kSsmConvIn));
  for (int64_t c = 0; c < prefix->conv.cols(); ++c) {
    // Known to the bit, so that it needs no room above.
    const double least = static_cast<double>(prefix->conv.col(c).cwiseAbs().maxCoeff()) / 32767;
    scales.conv_in16[static_cast<size_t>(c)] = std::max(scales.conv_in16[static_cast<size_t>(c)], least);
  }
  scales.step16 = Steps16(ranges.ColumnLargest(Edge::kSsmStep));
  const RowVector &convolved = ranges.ColumnLargest(Edge::kSsmConvOut);
  const int64_t side = config.groups * config.state;
  scales.x16 = HeadScales(convolved, config, order);
  scales.b16 = ConvScales(convolved, config.inner(), config.groups, config.state);
  scales.c16 = ConvScales(convolved, config.inner() + side, config.groups, config.state);
  const auto reach_of = [&](int64_t head) {
    float state = ranges.ColumnLargest(Edge::kSsmState)[head];
    if (!prefix->empty()) {
      state = std::max(state, prefix->state.middleRows(head * config.head_dim, config.head_dim).cwiseAbs().maxCoeff());
    }
    return ScanReach{static_cast<double>(state), static_cast<double>(ranges.ScanInputLargest()[head])};
  };
  const auto group_of = [&](int64_t head) { return static_cast<size_t>(head / (config.heads / config.groups)); };
  scales.scan16 = Step16(ranges.Reach(Edge::kSsmScan));
  for (int64_t head = 0; head < config.heads; ++head) {
    const size_t group = group_of(head);
    scales.scan16 = std::max(scales.scan16, LeastScanScale(reach_of(head), scales.b16[group], scales.c16[group]));
  }
  for (int64_t head = 0; head < config.heads; ++head) {
    const size_t group = group_of(head);
    scales.state.push_back(ScanStateScale(reach_of(head), scales.b16[group], scales.c16[group], scales.scan16));
  }
  scales.gated_largest = std::max(ranges.Reach(Edge::kSsmGated), 1e-6) * kHeadroom16;
  scales.normed16 = Step16(ranges.Reach(Edge::kSsmNormed));
  out.prefix_conv = RoundedPrefix<int16_t>(
      EdgeLimit(EdgeType::kS16), [&](int64_t, int64_t column) { return scales.conv_in16[static_cast<size_t>(column)]; },
      &prefix->conv);
  out.prefix_state = RoundedPrefix<int32_t>(
      kStateLimit, [&](int64_t row, int64_t) { return scales.state[static_cast<size_t>(row / config.head_dim)]; },
      &prefix->state);
  return out;
}

void ReplaceLinears(const Matrix &in, Matrix out, StateSpaceWeights *weights) {
  weights->gate = in.topRows(weights->gate.rows());
  weights->conv_in = in.middleRows(weights->gate.rows(), weights->conv_in.rows());
  weights->step = in.bottomRows(weights->step.rows());
  weights->out = std::move(out);
}

}  // namespace acorn::compiler
