#include "quantize/cached.h"

#include <algorithm>
#include <cmath>

#include "base/parallel.h"

namespace acorn::compiler {
namespace {

constexpr int kCandidates = 40;           // of a step, from the one that reaches the largest magnitude on
constexpr double kCandidateRatio = 0.94;  // from one to the next
constexpr int kSweeps = 20;               // over the elements of a key; most settle within five
constexpr double kSmallest = 1e-6;
constexpr double kLeastFactor = 1e-3;  // of a channel, relative to the largest: one of zeros has no step

double Rounded(double value, double limit) { return std::min(std::max(std::round(value), -limit), limit); }

double BestStep(ConstMatrixRef samples, double limit) {
  const double reach = std::max(static_cast<double>(samples.cwiseAbs().maxCoeff()), kSmallest) / limit;
  double best = 0, least = 0;
  for (int i = 0; i < kCandidates; ++i) {
    const double step = reach * std::pow(kCandidateRatio, i);
    const auto scaled = samples.array() * static_cast<float>(1 / step);
    const auto rounded = scaled.round().min(static_cast<float>(limit)).max(static_cast<float>(-limit));
    const double error = static_cast<double>((scaled - rounded).square().sum()) * step * step;
    if (i == 0 || error < least) {
      least = error;
      best = step;
    }
  }
  return best;
}

/// The integers of one key of one head: coordinate descent on error * gram * error^T.
RowVector RoundKey(const RowVector &key, const Matrix &gram, double step, double limit) {
  RowVector integers(key.size());
  for (int64_t d = 0; d < key.size(); ++d) integers[d] = static_cast<float>(Rounded(static_cast<double>(key[d]) / step, limit));
  RowVector slope = (integers * static_cast<float>(step) - key) * gram;
  bool changed = true;
  for (int sweep = 0; sweep < kSweeps && changed; ++sweep) {
    changed = false;
    for (int64_t d = 0; d < key.size(); ++d) {
      if (gram(d, d) <= 0) continue;
      const double best = static_cast<double>(integers[d]) - static_cast<double>(slope[d] / gram(d, d)) / step;
      const auto integer = static_cast<float>(Rounded(best, limit));
      if (integer == integers[d]) continue;
      slope += (integer - integers[d]) * static_cast<float>(step) * gram.row(d);
      integers[d] = integer;
      changed = true;
    }
  }
  return integers;
}

}  // namespace

std::vector<double> BestHeadSteps(const Matrix &samples, int64_t head_dim, double limit) {
  std::vector<double> steps(static_cast<size_t>(samples.cols() / head_dim));
  ParallelFor(static_cast<int64_t>(steps.size()), [&](int64_t h) {
    steps[static_cast<size_t>(h)] = BestStep(samples.middleCols(h * head_dim, head_dim), limit);
  });
  return steps;
}

RowVector ChannelFactors(const Matrix &values, double limit) {
  const std::vector<double> steps = BestHeadSteps(values, 1, limit);
  const double least = *std::max_element(steps.begin(), steps.end()) * kLeastFactor;
  RowVector logs(values.cols());
  for (int64_t c = 0; c < logs.size(); ++c) {
    logs[c] = static_cast<float>(std::log(std::max(steps[static_cast<size_t>(c)], least)));
  }
  logs.array() -= logs.mean();
  return logs.array().exp().matrix();
}

Matrix RoundForQueries(const Matrix &keys, const Matrix &queries, int64_t head_dim, const std::vector<double> &steps,
                       double limit) {
  Matrix integers(keys.rows(), keys.cols());
  const auto kv_heads = static_cast<int64_t>(steps.size());
  const int64_t group = queries.cols() / head_dim / kv_heads;
  ParallelFor(kv_heads, [&](int64_t h) {
    Matrix gram = Matrix::Zero(head_dim, head_dim);
    for (int64_t g = 0; g < group; ++g) {
      const auto q = queries.middleCols((h * group + g) * head_dim, head_dim);
      gram += q.transpose() * q;
    }
    for (int64_t row = 0; row < keys.rows(); ++row) {
      integers.row(row).segment(h * head_dim, head_dim) =
          RoundKey(keys.row(row).segment(h * head_dim, head_dim), gram, steps[static_cast<size_t>(h)], limit);
    }
  });
  return integers;
}

}  // namespace acorn::compiler
