#include "train/teacher.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "base/progress.h"
#include "graph/float_model.h"
#include "train/product.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kWindowsAtOnce = 64;

}  // namespace

Teacher::Teacher(const SourceModel &source, const std::vector<int32_t> &ids, int64_t window)
    : ids_(ids), window_(window), config_(source.config()) {
  const HeadScorer scorer(source);
  const int64_t windows = static_cast<int64_t>(ids.size()) / window;
  Progress progress("float model", windows);
  for (int64_t first = 0; first < windows; first += kWindowsAtOnce) {
    const int64_t count = std::min(kWindowsAtOnce, windows - first);
    const std::vector<int32_t> part(ids.begin() + first * window, ids.begin() + (first + count) * window);
    Matrix x = compiler::RunLayers(source, part, EvenBoundaries(static_cast<int64_t>(part.size()), window));
    for (int64_t i = 0; i < count; ++i) {
      hidden_.push_back(
          torch::from_blob(x.data() + i * window * x.cols(), {window, x.cols()}, torch::kFloat).clone());
    }
    progress.Update(first + count);
  }
  progress.Finish();
  const Matrix &head = scorer.head();
  head_ = torch::from_blob(const_cast<float *>(head.data()), {head.rows(), head.cols()}, torch::kFloat).clone();
  norm_ = scorer.final_norm();
  norm_bias_ = scorer.final_norm_bias();
}

std::vector<int32_t> Teacher::Ids(int64_t window) const {
  return {ids_.begin() + window * window_, ids_.begin() + (window + 1) * window_};
}

torch::Tensor Teacher::Logits(int64_t window) const {
  const torch::NoGradGuard no_autograd;
  const torch::Tensor &x = Hidden(window);
  torch::Tensor normed = torch::empty_like(x);
  Eigen::Map<Matrix> out(normed.data_ptr<float>(), x.size(0), x.size(1));
  NormRows(out, Eigen::Map<const Matrix>(x.data_ptr<float>(), x.size(0), x.size(1)), config_, norm_, norm_bias_);
  return Product(normed, head_.t());
}

Divergence DivergenceOf(const torch::Tensor &teacher, const std::vector<int32_t> &ids, torch::Tensor *logits) {
  using Row = Eigen::Map<Eigen::ArrayXf>;
  using ConstRow = Eigen::Map<const Eigen::ArrayXf>;
  const int64_t tokens = teacher.size(0), vocab = teacher.size(1);
  const float share = 1 / static_cast<float>(tokens);
  std::vector<double> kl(static_cast<size_t>(tokens)), cross_entropy(static_cast<size_t>(tokens));
  const float *const from = teacher.data_ptr<float>();
  float *const to = logits->data_ptr<float>();
  at::parallel_for(0, tokens, 1, [&](int64_t begin, int64_t end) {
    Eigen::ArrayXf p(vocab), q(vocab);
    for (int64_t t = begin; t < end; ++t) {
      const ConstRow wanted(from + t * vocab, vocab);
      Row given(to + t * vocab, vocab);
      const float wanted_max = wanted.maxCoeff(), given_max = given.maxCoeff();
      p = (wanted - wanted_max).exp();
      q = (given - given_max).exp();
      const float p_sum = p.sum(), q_sum = q.sum();
      p /= p_sum;
      const float offset = given_max + std::log(q_sum) - wanted_max - std::log(p_sum);
      kl[static_cast<size_t>(t)] = static_cast<double>((p * (wanted - given)).sum() + offset);
      if (t + 1 < tokens) {
        cross_entropy[static_cast<size_t>(t)] =
            static_cast<double>(given_max + std::log(q_sum) - given[ids[static_cast<size_t>(t + 1)]]);
      }
      given = (q / q_sum - p) * share;
    }
  });
  Divergence result;
  for (int64_t t = 0; t < tokens; ++t) {
    result.kl += kl[static_cast<size_t>(t)] / static_cast<double>(tokens);
    result.cross_entropy += cross_entropy[static_cast<size_t>(t)] / static_cast<double>(std::max<int64_t>(tokens - 1, 1));
  }
  return result;
}

}  // namespace acorn::compiler
