#include "graph/continuations.h"

#include "graph/float_model.h"

namespace acorn::compiler {
namespace {

constexpr size_t kBatchTokens = 32768;  // tokens whose hidden states are resident together

// Continuations [begin, end); one longer than a batch is a batch of its own.
struct Batch {
  size_t begin, end;
};

std::vector<Batch> CutBatches(const std::vector<Continuation> &continuations) {
  std::vector<Batch> batches;
  size_t tokens = 0;
  for (size_t i = 0; i < continuations.size(); ++i) {
    const size_t more = continuations[i].ids.size() - 1;
    if (batches.empty() || tokens + more > kBatchTokens) {
      batches.push_back({i, i});
      tokens = 0;
    }
    tokens += more;
    batches.back().end = i + 1;
  }
  return batches;
}

}  // namespace

std::vector<ContinuationScore> ScoreContinuations(const SourceModel &source, const std::vector<Continuation> &continuations,
                                                  const std::function<void(int64_t, int64_t)> &on_layer) {
  const HeadScorer scorer(source);
  const std::vector<Batch> batches = CutBatches(continuations);
  const int64_t steps = source.config().layers + 1;  // the head is one more
  const int64_t all_steps = static_cast<int64_t>(batches.size()) * steps;
  std::vector<ContinuationScore> scores(continuations.size());
  int64_t done_steps = 0;
  for (const Batch &batch : batches) {
    std::vector<int32_t> ids;
    std::vector<int64_t> boundaries = {0};
    std::vector<int64_t> rows;     // of x, that predict
    std::vector<int32_t> targets;  // what they predict
    for (size_t i = batch.begin; i < batch.end; ++i) {
      const Continuation &continuation = continuations[i];
      const int64_t window = boundaries.back(), count = static_cast<int64_t>(continuation.ids.size());
      ids.insert(ids.end(), continuation.ids.begin(), continuation.ids.end() - 1);  // the last one predicts nothing
      boundaries.push_back(window + count - 1);
      for (int64_t t = continuation.first; t < count; ++t) rows.push_back(window + t - 1);
      targets.insert(targets.end(), continuation.ids.begin() + continuation.first, continuation.ids.end());
    }
    const Matrix x = RunLayers(source, ids, boundaries, nullptr, [&](int64_t done, int64_t) {
      if (on_layer) on_layer(done_steps + done, all_steps);
    });
    Matrix states(static_cast<int64_t>(rows.size()), x.cols());
    for (size_t r = 0; r < rows.size(); ++r) states.row(static_cast<int64_t>(r)) = x.row(rows[r]);
    std::vector<uint8_t> likeliest;
    const std::vector<double> losses = scorer.Losses(states, targets, &likeliest);
    size_t row = 0;
    for (size_t i = batch.begin; i < batch.end; ++i) {
      for (size_t t = static_cast<size_t>(continuations[i].first); t < continuations[i].ids.size(); ++t, ++row) {
        scores[i].log_likelihood -= losses[row];
        scores[i].likeliest = scores[i].likeliest && likeliest[row] != 0;
      }
    }
    done_steps += steps;
    if (on_layer) on_layer(done_steps, all_steps);
  }
  return scores;
}

}  // namespace acorn::compiler
