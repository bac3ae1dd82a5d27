// Head, losses and the perplexity protocol of the float reference.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/parallel.h"
#include "graph/float_model.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kScoreRows = 512;      // hidden states of one scoring task
constexpr int64_t kScoreColumns = 2048;  // logits of them that are held at a time
constexpr int64_t kBatchTokens = 32768;  // tokens whose hidden states are resident together

// Running log-sum-exp over the blocks of one row's logits, and where the largest one stands.
struct LossState {
  double max = -std::numeric_limits<double>::infinity();
  double sum = 0;
  double target = 0;
  int64_t likeliest = -1;

  template <typename Row>
  void Add(const Row &logits, int64_t first_column) {
    const float largest = logits.maxCoeff();
    const double block_max = static_cast<double>(largest);
    if (block_max > max) {
      sum *= std::exp(max - block_max);
      max = block_max;
      likeliest = first_column + (std::find(logits.begin(), logits.end(), largest) - logits.begin());
    }
    sum += (logits.array() - static_cast<float>(max)).exp().template cast<double>().sum();
  }
  double Loss() const { return max + std::log(sum) - target; }
};

}  // namespace

HeadScorer::HeadScorer(const SourceModel &source)
    : HeadScorer(source.config(), LoadVector(source, TensorRole::kFinalNorm), LoadVector(source, TensorRole::kFinalNormBias),
                 source.Load(TensorRole::kHead)) {}

HeadScorer::HeadScorer(const ModelConfig &config, RowVector final_norm, RowVector final_norm_bias, Matrix head)
    : config_(config),
      final_norm_(std::move(final_norm)),
      final_norm_bias_(std::move(final_norm_bias)),
      head_(std::move(head)) {}

Matrix HeadScorer::Logits(ConstMatrixRef x) const {
  Matrix normed(x.rows(), x.cols());
  NormRows(normed, x, config_, final_norm_, final_norm_bias_);
  normed *= static_cast<float>(config_.logit_scale);
  Matrix logits(x.rows(), head_.rows());
  Linear(logits, normed, head_, {});
  return logits;
}

std::vector<double> HeadScorer::Losses(ConstMatrixRef x, const std::vector<int32_t> &targets,
                                       std::vector<uint8_t> *likeliest) const {
  Matrix normed(x.rows(), x.cols());
  NormRows(normed, x, config_, final_norm_, final_norm_bias_);
  normed *= static_cast<float>(config_.logit_scale);
  std::vector<double> losses(targets.size());
  if (likeliest != nullptr) likeliest->assign(targets.size(), 0);
  const int64_t vocab = head_.rows();
  ParallelFor((x.rows() + kScoreRows - 1) / kScoreRows, [&](int64_t task) {
    const int64_t first = task * kScoreRows;
    const int64_t rows = std::min(kScoreRows, x.rows() - first);
    std::vector<LossState> states(static_cast<size_t>(rows));
    Matrix logits;
    for (int64_t column = 0; column < vocab; column += kScoreColumns) {
      const int64_t columns = std::min(kScoreColumns, vocab - column);
      logits.resize(rows, columns);
      logits.noalias() = normed.middleRows(first, rows) * head_.middleRows(column, columns).transpose();
      for (int64_t r = 0; r < rows; ++r) {
        LossState &state = states[static_cast<size_t>(r)];
        state.Add(logits.row(r), column);
        const int64_t target = targets[static_cast<size_t>(first + r)] - column;
        if (target >= 0 && target < columns) state.target = static_cast<double>(logits(r, target));
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      const size_t row = static_cast<size_t>(first + r);
      const LossState &state = states[static_cast<size_t>(r)];
      losses[row] = state.Loss();
      if (likeliest != nullptr) (*likeliest)[row] = state.likeliest == targets[row] ? 1 : 0;
    }
  });
  return losses;
}

PerplexityResult Perplexity(const SourceModel &source, const std::vector<int32_t> &ids, const PerplexityOptions &options,
                            const std::function<void(int64_t, int64_t)> &on_layer) {
  const int64_t window = options.window;
  if (window < 2) throw Error(ExitCode::kUsage, "--window " + std::to_string(window) + " is below 2");
  if (options.score_from < 1 || options.score_from >= window) {
    throw Error(ExitCode::kUsage,
                "--score-from " + std::to_string(options.score_from) + " is not between 1 and " + std::to_string(window - 1));
  }
  int64_t windows = static_cast<int64_t>(ids.size()) / window;
  if (options.max_windows >= 0) windows = std::min(windows, options.max_windows);
  if (windows == 0) {
    throw Error(ExitCode::kUsage,
                "the text has " + std::to_string(ids.size()) + " tokens, less than one window of " + std::to_string(window));
  }
  const HeadScorer scorer(source);
  const int64_t batch_windows = std::max<int64_t>(1, kBatchTokens / window);
  const int64_t batches = (windows + batch_windows - 1) / batch_windows;
  const int64_t steps = source.config().layers + 1;  // the head is one more
  PerplexityResult result;
  result.windows = windows;
  for (int64_t batch = 0; batch < batches; ++batch) {
    const int64_t first = batch * batch_windows;
    const int64_t count = std::min(batch_windows, windows - first);
    const std::vector<int32_t> part(ids.begin() + first * window, ids.begin() + (first + count) * window);
    const auto count_layer = [&](int64_t done, int64_t) {
      if (on_layer) on_layer(batch * steps + done, batches * steps);
    };
    const Matrix x = RunLayers(source, part, EvenBoundaries(count * window, window), nullptr, count_layer, options.change);
    const int64_t scored = window - options.score_from;
    Matrix states(count * scored, x.cols());
    std::vector<int32_t> targets;
    for (int64_t w = 0; w < count; ++w) {
      states.middleRows(w * scored, scored) = x.middleRows(w * window + options.score_from - 1, scored);
      const auto begin = part.begin() + w * window;
      targets.insert(targets.end(), begin + options.score_from, begin + window);
    }
    const std::vector<double> losses = scorer.Losses(states, targets);
    if (on_layer) on_layer((batch + 1) * steps, batches * steps);
    result.losses.insert(result.losses.end(), losses.begin(), losses.end());
  }
  double sum = 0;
  for (const double loss : result.losses) sum += loss;
  result.scored_tokens = static_cast<int64_t>(result.losses.size());
  result.mean_loss = sum / static_cast<double>(result.scored_tokens);
  result.perplexity = std::exp(result.mean_loss);
  return result;
}

}  // namespace acorn::compiler
