// The operators of state-space layers in float. A head's state is its own, so that heads are the tasks; within one, tokens go
// one after the other, as on a device.
#include <algorithm>
#include <cmath>

#include "base/parallel.h"
#include "graph/float_model.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kChannelBlock = 64;  // channels of a task of the convolution

// ln(1 + e^x) without overflow.
float Softplus(float x) { return std::max(x, 0.0f) + std::log1p(std::exp(-std::abs(x))); }

}  // namespace

void CausalConv(MatrixRef out, ConstMatrixRef x, ConstMatrixRef before, const Matrix &conv, const RowVector &bias) {
  const int64_t width = conv.cols(), past = before.rows();
  ParallelFor((x.cols() + kChannelBlock - 1) / kChannelBlock, [&](int64_t task) {
    const int64_t first = task * kChannelBlock;
    const int64_t channels = std::min(kChannelBlock, x.cols() - first);
    const Matrix taps = conv.middleRows(first, channels).transpose();  // [width, channels]
    for (int64_t t = 0; t < x.rows(); ++t) {
      auto row = out.row(t).segment(first, channels).array();
      row.setZero();
      for (int64_t j = 0; j < width; ++j) {
        const int64_t seen = t + j - past;
        const auto from = seen < 0 ? before.row(t + j) : x.row(seen);
        row += taps.row(j).array() * from.segment(first, channels).array();
      }
      if (bias.size() > 0) row += bias.segment(first, channels).array();
    }
  });
}

void TimeSteps(MatrixRef x, const StateSpaceConfig &config, const RowVector &bias) {
  const auto min = static_cast<float>(config.min_step), max = static_cast<float>(config.max_step);
  for (int64_t t = 0; t < x.rows(); ++t) {
    for (int64_t head = 0; head < x.cols(); ++head) x(t, head) = std::clamp(Softplus(x(t, head) + bias(head)), min, max);
  }
}

void StateSpaceScan(MatrixRef out, const StateSpaceConfig &config, ConstMatrixRef xbc, ConstMatrixRef dt, const RowVector &decay,
                    const RowVector &skip, Matrix *state, MatrixRef largest, bool channel_major) {
  const int64_t heads_per_group = config.heads / config.groups;
  ParallelFor(config.heads, [&](int64_t head) {
    // Channels of a head stand in pieces of a block, or all in one.
    const int64_t piece = channel_major ? LayerOrder::kChannelBlock : config.head_dim, pieces = config.head_dim / piece;
    const auto piece_column = [&](int64_t i) { return (i * config.heads + head) * piece; };
    const int64_t b_column = config.inner() + head / heads_per_group * config.state;
    const int64_t c_column = b_column + config.groups * config.state;
    Matrix h = state->middleRows(head * config.head_dim, config.head_dim);
    RowVector x(config.head_dim), y(config.head_dim);
    for (int64_t t = 0; t < xbc.rows(); ++t) {
      for (int64_t i = 0; i < pieces; ++i) x.segment(i * piece, piece) = xbc.row(t).segment(piece_column(i), piece);
      const auto b = xbc.row(t).segment(b_column, config.state);
      const auto c = xbc.row(t).segment(c_column, config.state);
      const float step = dt(t, head);
      h *= std::exp(decay(head) * step);
      h.noalias() += (step * x).transpose() * b;
      if (largest.rows() != 0) largest(t, head) = h.cwiseAbs().maxCoeff();
      y = (h * c.transpose()).transpose() + skip(head) * x;
      for (int64_t i = 0; i < pieces; ++i) out.row(t).segment(piece_column(i), piece) = y.segment(i * piece, piece);
    }
    state->middleRows(head * config.head_dim, config.head_dim) = h;
  });
}

void ApplyGate(MatrixRef x, ConstMatrixRef gate) { x.array() *= gate.array() / (1.0f + (-gate.array()).exp()); }

void GroupRmsNorm(MatrixRef x, const RowVector &weight, int64_t groups, double eps) {
  const int64_t width = weight.size() / groups;
  for (int64_t group = 0; group < groups; ++group) {
    const RowVector part = weight.segment(group * width, width);
    RmsNorm(x.middleCols(group * width, width), x.middleCols(group * width, width), part, eps);
  }
}

}  // namespace acorn::compiler
