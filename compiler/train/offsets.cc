#include "train/offsets.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

namespace acorn::compiler {
namespace {

constexpr double kFirstDecay = 0.9, kSecondDecay = 0.99;  // as train/adam.cc
constexpr double kEpsilon = 1e-30;
constexpr float kFarthestStart = 0.45f;  // where the gradient of one window does not yet move the integer
constexpr int64_t kTaskRows = 32;

int64_t Tasks(int64_t rows) { return (rows + kTaskRows - 1) / kTaskRows; }

template <typename Body>  // body(task, first row, last row)
void ForRows(int64_t rows, const Body &body) {
  at::parallel_for(0, Tasks(rows), 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) body(task, task * kTaskRows, std::min(rows, (task + 1) * kTaskRows));
  });
}

}  // namespace

Offsets::Offsets(QuantizedMatrix *matrix)
    : matrix_(matrix),
      offset_(torch::zeros({matrix->n, matrix->k})),
      first_(torch::zeros({matrix->n, matrix->k})),
      rows_(torch::zeros({matrix->n})),
      columns_(torch::zeros({matrix->k})) {}

double Offsets::StepOf(int64_t row, int64_t group) const {
  const double scale = matrix_->scale[static_cast<size_t>(row)];
  if (matrix_->multipliers.empty()) return scale;
  return scale * matrix_->multipliers[static_cast<size_t>(row * (matrix_->k / matrix_->group()) + group)];
}

void Offsets::StartFrom(const Matrix &real) {
  const int64_t k = matrix_->k, width = matrix_->group() == 0 ? k : matrix_->group();
  float *offsets = offset_.data_ptr<float>();
  ForRows(matrix_->n, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t i = 0; i < k; ++i) {
        const auto units = static_cast<float>(static_cast<double>(real(r, i)) / StepOf(r, i / width));
        const float left = units - static_cast<float>(matrix_->weights[static_cast<size_t>(r * k + i)]);
        offsets[r * k + i] = std::min(std::max(left, -kFarthestStart), kFarthestStart);
      }
    }
  });
}

void Offsets::Step(const torch::Tensor &gradient, double rate) {
  ++steps_;
  const int64_t n = matrix_->n, k = matrix_->k, width = matrix_->group() == 0 ? k : matrix_->group(), groups = k / width;
  const auto first_correction = 1 - std::pow(kFirstDecay, static_cast<double>(steps_));
  const auto second_correction = 1 - std::pow(kSecondDecay, static_cast<double>(steps_));
  float *gradients = gradient.data_ptr<float>(), *rows = rows_.data_ptr<float>();
  torch::Tensor squares = torch::zeros({Tasks(n), k});
  ForRows(n, [&](int64_t task, int64_t begin, int64_t end) {
    float *sum = squares.data_ptr<float>() + task * k;
    for (int64_t r = begin; r < end; ++r) {
      double energy = 0;
      for (int64_t group = 0; group < groups; ++group) {
        const auto step = static_cast<float>(StepOf(r, group));
        float *g = gradients + r * k + group * width, *to = sum + group * width, of_group = 0;
        for (int64_t i = 0; i < width; ++i) {
          g[i] *= step;
          const float square = g[i] * g[i];
          to[i] += square;
          of_group += square;
        }
        energy += static_cast<double>(of_group);
      }
      rows[r] = static_cast<float>(kSecondDecay * static_cast<double>(rows[r]) + (1 - kSecondDecay) * energy / static_cast<double>(k));
    }
  });
  const torch::Tensor by_column = squares.sum(0) / static_cast<double>(n);
  columns_.mul_(kSecondDecay).add_(by_column, 1 - kSecondDecay);
  // second moment of (r, c) = rows[r] * columns[c] / mean(rows)
  const torch::Tensor by_columns = (columns_ / (rows_.mean() + kEpsilon) + kEpsilon).rsqrt();
  const float *column = by_columns.data_ptr<float>();
  const bool wide = matrix_->format == WeightFormat::kW8;
  const int32_t least = wide ? -127 : -8, most = wide ? 127 : 7;
  const auto decay = static_cast<float>(kFirstDecay);
  ForRows(n, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const auto factor = static_cast<float>(rate / first_correction /
                                             std::sqrt(static_cast<double>(rows[r]) / second_correction + kEpsilon));
      const float *g = gradients + r * k;
      float *f = offset_.data_ptr<float>() + r * k, *m = first_.data_ptr<float>() + r * k;
      int8_t *q = matrix_->weights.data() + r * k;
      for (int64_t i = 0; i < k; ++i) {
        m[i] = decay * m[i] + (1 - decay) * g[i];
        f[i] -= factor * column[i] * m[i];
      }
      for (int64_t i = 0; i < k; ++i) {
        if (std::abs(f[i]) <= 0.5f) continue;
        const int32_t by = f[i] > 0 ? 1 : -1;
        if (q[i] + by < least || q[i] + by > most) {
          f[i] = 0.5f * static_cast<float>(by);
        } else {
          q[i] = static_cast<int8_t>(q[i] + by);
          f[i] -= static_cast<float>(by);
        }
      }
    }
  });
}

torch::Tensor Offsets::Integers() const {
  return torch::from_blob(matrix_->weights.data(), {matrix_->n, matrix_->k}, torch::kChar).clone();
}

void Offsets::SetIntegers(const torch::Tensor &integers) {
  std::copy_n(integers.data_ptr<int8_t>(), matrix_->weights.size(), matrix_->weights.data());
}

std::vector<torch::Tensor> Offsets::State() const {
  return {torch::full({1}, steps_, torch::kLong), offset_.clone(), first_.clone(), rows_.clone(), columns_.clone()};
}

void Offsets::SetState(const torch::Tensor *state) {
  steps_ = state[0].item<int64_t>();
  offset_.copy_(state[1]);
  first_.copy_(state[2]);
  rows_.copy_(state[3]);
  columns_.copy_(state[4]);
}

}  // namespace acorn::compiler
