#include "passes/importance.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include <Eigen/Cholesky>

namespace acorn::compiler {

std::vector<int32_t> ByFallingScore(const std::vector<double> &scores) {
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)]; });
  return order;
}

std::vector<double> RidgeLeverage(const Matrix &moments, double ridge) {
  const int64_t n = moments.rows();
  std::vector<double> leverage(static_cast<size_t>(n), 0);
  const double lambda = ridge * moments.diagonal().cast<double>().mean();
  if (lambda <= 0) return leverage;
  // C (C + lambda I)^-1 = I - lambda (C + lambda I)^-1
  Eigen::MatrixXd ridged = moments.cast<double>();
  ridged.diagonal().array() += lambda;
  const Eigen::MatrixXd inverse = ridged.llt().solve(Eigen::MatrixXd::Identity(n, n));
  for (int64_t i = 0; i < n; ++i) leverage[static_cast<size_t>(i)] = 1 - lambda * inverse(i, i);
  return leverage;
}

std::vector<int32_t> ByOutputLoss(const Matrix &moments, const Matrix &weight) {
  const int64_t n = moments.rows();
  Matrix loss = weight.transpose() * weight;
  loss.array() *= moments.array();
  // added[j]: what dropping channel j adds to the loss of the dropped ones.
  Eigen::VectorXd added = loss.diagonal().cast<double>();
  std::vector<int32_t> order(static_cast<size_t>(n));
  for (int64_t left = n; left > 0; --left) {
    int64_t least = 0;
    added.minCoeff(&least);
    order[static_cast<size_t>(left - 1)] = static_cast<int32_t>(least);
    added += 2 * loss.row(least).transpose().cast<double>();
    added[least] = std::numeric_limits<double>::infinity();
  }
  return order;
}

}  // namespace acorn::compiler
