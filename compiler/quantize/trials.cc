#include "quantize/trials.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/parallel.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kCalibrationWindows = 16;
constexpr int64_t kTrialTokens = 256;  // of a trial window, at most
constexpr int64_t kTrialBytes = int64_t{1} << 30;  // hidden states of all trials: fewer windows where more would not fit
constexpr int64_t kScoredStride = 4;  // every fourth position is scored: neighbours tell the same

}  // namespace

SearchTokens ChooseSearchTokens(const CalibrationWindows &windows, int64_t trial_windows, int64_t trials,
                                int64_t hidden) {
  const int64_t available = static_cast<int64_t>(windows.ids.size()) / windows.window;
  const auto append = [&](std::vector<int32_t> *out, int64_t index, int64_t tokens) {
    const auto first = windows.ids.begin() + index * windows.window;
    out->insert(out->end(), first, first + tokens);
  };
  SearchTokens tokens;
  tokens.trial_window = std::min(windows.window, kTrialTokens);
  // Each evenly spread over the text; a window serves both only where there are too few.
  const int64_t window_bytes = trials * tokens.trial_window * hidden * static_cast<int64_t>(sizeof(float));
  const int64_t wanted = std::max<int64_t>(1, std::min({available, trial_windows, kTrialBytes / window_bytes}));
  std::vector<int64_t> rest;
  for (int64_t i = 0, taken = 0; i < available; ++i) {
    if (taken < wanted && i == (2 * taken + 1) * available / (2 * wanted)) {
      append(&tokens.trial, i, tokens.trial_window);
      ++taken;
    } else {
      rest.push_back(i);
    }
  }
  if (rest.empty()) {
    rest.resize(static_cast<size_t>(available));
    std::iota(rest.begin(), rest.end(), 0);
  }
  const auto others = static_cast<int64_t>(rest.size());
  const int64_t used = std::min(others, kCalibrationWindows);
  for (int64_t i = 0; i < used; ++i) append(&tokens.calibration, rest[static_cast<size_t>(i * others / used)], windows.window);
  return tokens;
}

Matrix ScoredRows(const Matrix &x) {
  Matrix rows(x.rows() / kScoredStride, x.cols());
  for (int64_t i = 0; i < rows.rows(); ++i) rows.row(i) = x.row((i + 1) * kScoredStride - 1);
  return rows;
}

double Divergence(const Matrix &reference, const Matrix &logits) {
  std::vector<double> rows(static_cast<size_t>(reference.rows()));
  ParallelFor(reference.rows(), [&](int64_t r) {
    const auto p = reference.row(r).array(), q = logits.row(r).array();
    const float p_max = p.maxCoeff(), q_max = q.maxCoeff();
    const auto weight = (p - p_max).exp().cast<double>().eval();
    const double p_sum = weight.sum(), q_sum = (q - q_max).exp().cast<double>().sum();
    const double difference = (weight * (p - q).cast<double>()).sum() / p_sum;
    rows[static_cast<size_t>(r)] =
        difference - static_cast<double>(p_max) - std::log(p_sum) + static_cast<double>(q_max) + std::log(q_sum);
  });
  return std::accumulate(rows.begin(), rows.end(), 0.0) / static_cast<double>(rows.size());
}

}  // namespace acorn::compiler
