#include "train/state_space_backward.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/matrix.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kTaskChannels = 64;  // of a convolution: a few rows of them stay in L1
constexpr int64_t kBlockRows = 32;     // about the square root of a window: as many states are kept as computed anew at a time
constexpr float kLimit16 = 32767;

const int16_t *RowOf(const EdgeRows &edge, int64_t row) {
  return static_cast<const int16_t *>(edge.data) + row * static_cast<int64_t>(edge.stride);
}

/// out->size() integers.
void Read(const int16_t *integers, double unit, RowVector *out) {
  const Eigen::Map<const Eigen::Matrix<int16_t, 1, Eigen::Dynamic>> from(integers, out->size());
  *out = from.cast<float>() * static_cast<float>(unit);
}

/// Columns [first, first + out->size()) of a row.
void ReadColumns(const EdgeRows &edge, int64_t row, int64_t first, double unit, RowVector *out) {
  Read(RowOf(edge, row) + first, unit, out);
}

/// What a head's time steps come to.
struct TimeSteps {
  std::vector<float> size, slope, decay;  // dt, its slope by what enters, e^(A dt)
};
TimeSteps TimeStepsOf(int64_t rows, int64_t head, const ScanSpec &spec, const EdgeRows &edge) {
  const auto h = static_cast<size_t>(head);
  TimeSteps steps;
  for (int64_t t = 0; t < rows; ++t) {
    const double v = RowOf(edge, t)[head] * spec.step[h] + spec.step_bias[h];
    const double soft = std::max(v, 0.0) + std::log1p(std::exp(-std::abs(v)));
    const double size = std::min(std::max(soft, spec.min_step), spec.max_step);
    steps.size.push_back(static_cast<float>(size));
    steps.slope.push_back(size == soft ? static_cast<float>(1 / (1 + std::exp(-v))) : 0.0f);
    steps.decay.push_back(static_cast<float>(std::exp(spec.decay[h] * size)));
  }
  return steps;
}

/// One head, whose B and C are its group's. by_b, by_c: [rows, columns], of this head alone.
class HeadBackward {
 public:
  HeadBackward(const ScanShape &shape, const ScanSpec &spec, const ScanEdges &edges, int64_t head)
      : shape_(shape),
        spec_(spec),
        edges_(edges),
        head_(head),
        group_(head / (spec.heads() / spec.groups)),
        first_(head * shape.head_dim),
        whole_(spec.heads() * shape.head_dim),
        steps_(TimeStepsOf(shape.rows, head, spec, edges.time_step)),
        x_(shape.head_dim),
        gradient_(shape.head_dim),
        b_(shape.columns),
        c_(shape.columns) {}

  void Run(const float *gradient, const ScanGradients &to, Matrix *by_b, Matrix *by_c) {
    std::vector<Matrix> starts;
    Matrix state = Start();
    for (int64_t t = 0; t < shape_.rows; ++t) {
      if (t % kBlockRows == 0) starts.push_back(state);
      Advance(t, state, &state);
    }
    by_state_ = Matrix::Zero(shape_.head_dim, shape_.columns);
    std::vector<Matrix> states(kBlockRows + 1, state);
    for (auto block = static_cast<int64_t>(starts.size()) - 1; block >= 0; --block) {
      const int64_t first = block * kBlockRows, count = std::min(kBlockRows, shape_.rows - first);
      states[0] = starts[static_cast<size_t>(block)];
      for (int64_t i = 0; i < count; ++i) Advance(first + i, states[static_cast<size_t>(i)], &states[static_cast<size_t>(i) + 1]);
      for (int64_t i = count - 1; i >= 0; --i) {
        Back(first + i, states[static_cast<size_t>(i)], states[static_cast<size_t>(i) + 1], gradient, to, by_b, by_c);
      }
    }
  }

 private:
  Matrix Start() const {
    if (edges_.before == nullptr) return Matrix::Zero(shape_.head_dim, shape_.columns);
    using Integers = Eigen::Matrix<int32_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Eigen::Map<const Integers> from(edges_.before + first_ * shape_.columns, shape_.head_dim, shape_.columns);
    return from.cast<float>() * static_cast<float>(spec_.state[static_cast<size_t>(head_)]);
  }

  void Advance(int64_t t, const Matrix &from, Matrix *to) {
    const auto h = static_cast<size_t>(head_), g = static_cast<size_t>(group_), row = static_cast<size_t>(t);
    ReadColumns(edges_.x, t, first_, spec_.x[h], &x_);
    ReadColumns(edges_.b, t, group_ * shape_.columns, spec_.b[g], &b_);
    for (int64_t p = 0; p < shape_.head_dim; ++p) {
      to->row(p) = from.row(p) * steps_.decay[row] + b_ * (x_[p] * steps_.size[row]);
    }
  }

  /// before, after: the states that row t reads and leaves. by_state_: on entry the gradient by the latter from all later rows.
  void Back(int64_t t, const Matrix &before, const Matrix &after, const float *gradient, const ScanGradients &to, Matrix *by_b,
            Matrix *by_c) {
    const auto h = static_cast<size_t>(head_), g = static_cast<size_t>(group_), row = static_cast<size_t>(t);
    ReadColumns(edges_.x, t, first_, spec_.x[h], &x_);
    ReadColumns(edges_.b, t, group_ * shape_.columns, spec_.b[g], &b_);
    ReadColumns(edges_.c, t, group_ * shape_.columns, spec_.c[g], &c_);
    const int16_t *y = RowOf(edges_.y, t) + first_;
    const float *from = gradient + t * whole_ + first_;
    for (int64_t p = 0; p < shape_.head_dim; ++p) gradient_[p] = std::abs(static_cast<float>(y[p])) < kLimit16 ? from[p] : 0.0f;
    const float size = steps_.size[row], decay = steps_.decay[row], skip = static_cast<float>(spec_.skip[h]);
    float by_size = 0, by_decay = 0;
    auto b_sum = by_b->row(t), c_sum = by_c->row(t);
    b_sum.setZero();
    c_sum.setZero();
    for (int64_t p = 0; p < shape_.head_dim; ++p) {
      auto by_row = by_state_.row(p);
      by_row += c_ * gradient_[p];
      c_sum += after.row(p) * gradient_[p];
      b_sum += by_row * (x_[p] * size);
      by_decay += by_row.dot(before.row(p));
      const float by_input = by_row.dot(b_);
      by_size += by_input * x_[p];
      to.x[t * whole_ + first_ + p] = by_input * size + skip * gradient_[p];
      by_row *= decay;
    }
    const float by_exponent = by_decay * decay;
    to.time_step[t * spec_.heads() + head_] = (by_size + by_exponent * static_cast<float>(spec_.decay[h])) * steps_.slope[row];
    to.decay[head_] += by_exponent * size;
    to.skip[head_] += gradient_.dot(x_);
  }

  const ScanShape &shape_;
  const ScanSpec &spec_;
  const ScanEdges &edges_;
  int64_t head_, group_, first_, whole_;
  TimeSteps steps_;
  RowVector x_, gradient_, b_, c_;  // of one row
  Matrix by_state_;
};

}  // namespace

void ConvBackward(int64_t rows, const ConvSpec &spec, const EdgeRows &x, const int16_t *before, const float *gradient, float *dx) {
  const int64_t channels = spec.taps.rows(), taps = spec.taps.cols();
  const std::vector<float> table(spec.factor.begin(), spec.factor.end());
  at::parallel_for(0, (channels + kTaskChannels - 1) / kTaskChannels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task * kTaskChannels, width = std::min(kTaskChannels, channels - first);
      Matrix by_input = spec.taps.middleRows(first, width).transpose(), by_integer = by_input;  // [taps, width]
      RowVector v(width), reach(width), bias = RowVector::Zero(width), input(width);
      for (int64_t i = 0; i < width; ++i) {
        by_integer.col(i) *= static_cast<float>(spec.in_scales[static_cast<size_t>(first + i)]);
        reach[i] = static_cast<float>(spec.out_scales[static_cast<size_t>(first + i)]) * (kLimit16 + 0.5f);
      }
      if (spec.bias.size() != 0) bias = spec.bias.segment(first, width);
      for (int64_t t = 0; t < rows; ++t) {
        const int64_t oldest = std::max<int64_t>(0, taps - 1 - t);  // tap whose row exists
        v = bias;
        for (int64_t j = before == nullptr ? oldest : 0; j < taps; ++j) {
          const int64_t seen = t - (taps - 1) + j;
          Read(seen < 0 ? before + (t + j) * channels + first : RowOf(x, seen) + first, 1, &input);
          v.array() += input.array() * by_integer.row(j).array();
        }
        const float *g = gradient + t * channels + first;
        for (int64_t i = 0; i < width; ++i) {
          const ActivationFactor factor = FactorAt(table.data(), v[i]);
          v[i] = std::abs(v[i]) <= reach[i] ? g[i] * (factor.value + v[i] * factor.slope) : 0.0f;
        }
        Eigen::Map<RowVector>(dx + t * channels + first, width).setZero();
        for (int64_t j = oldest; j < taps; ++j) {
          float *to = dx + (t - (taps - 1) + j) * channels + first;
          Eigen::Map<RowVector>(to, width).array() += v.array() * by_input.row(j).array();
        }
      }
    }
  });
}

void ScanBackward(const ScanShape &shape, const ScanSpec &spec, const ScanEdges &edges, const float *gradient,
                  const ScanGradients &to) {
  const int64_t heads = spec.heads(), heads_per_group = heads / spec.groups, side = spec.groups * shape.columns;
  // Of each head apart; heads of one group are added up in order afterwards.
  std::vector<Matrix> by_b(static_cast<size_t>(heads)), by_c(by_b.size());
  at::parallel_for(0, heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) {
      Matrix &b = by_b[static_cast<size_t>(head)], &c = by_c[static_cast<size_t>(head)];
      b.resize(shape.rows, shape.columns);
      c.resize(shape.rows, shape.columns);
      HeadBackward(shape, spec, edges, head).Run(gradient, to, &b, &c);
    }
  });
  using Columns = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;
  for (int64_t group = 0; group < spec.groups; ++group) {
    Columns b(to.b + group * shape.columns, shape.rows, shape.columns, Eigen::OuterStride<>(side));
    Columns c(to.c + group * shape.columns, shape.rows, shape.columns, Eigen::OuterStride<>(side));
    b.setZero();
    c.setZero();
    for (int64_t head = group * heads_per_group; head < (group + 1) * heads_per_group; ++head) {
      b += by_b[static_cast<size_t>(head)];
      c += by_c[static_cast<size_t>(head)];
    }
  }
}

}  // namespace acorn::compiler
