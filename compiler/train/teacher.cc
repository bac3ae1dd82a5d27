#include "train/teacher.h"

#include <algorithm>

#include "base/progress.h"
#include "graph/float_model.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kWindowsAtOnce = 64;

}  // namespace

Teacher::Teacher(const SourceModel &source, const std::vector<int32_t> &ids, int64_t window) : ids_(ids), window_(window) {
  const ModelConfig &config = source.config();
  const HeadScorer scorer(source);
  const int64_t windows = static_cast<int64_t>(ids.size()) / window;
  Progress progress("float model", windows);
  for (int64_t first = 0; first < windows; first += kWindowsAtOnce) {
    const int64_t count = std::min(kWindowsAtOnce, windows - first);
    const std::vector<int32_t> part(ids.begin() + first * window, ids.begin() + (first + count) * window);
    Matrix x = compiler::RunLayers(source, part, EvenBoundaries(static_cast<int64_t>(part.size()), window));
    RmsNorm(x, x, scorer.final_norm(), config.rms_eps);
    for (int64_t i = 0; i < count; ++i) {
      hidden_.push_back(
          torch::from_blob(x.data() + i * window * x.cols(), {window, x.cols()}, torch::kFloat).to(torch::kHalf));
    }
    progress.Update(first + count);
  }
  progress.Finish();
  const Matrix &head = scorer.head();
  head_ = torch::from_blob(const_cast<float *>(head.data()), {head.rows(), head.cols()}, torch::kFloat).clone();
}

std::vector<int32_t> Teacher::Ids(int64_t window) const {
  return {ids_.begin() + window * window_, ids_.begin() + (window + 1) * window_};
}

torch::Tensor Teacher::LogProbabilities(int64_t window) const {
  const torch::NoGradGuard no_autograd;
  return torch::log_softmax(torch::mm(hidden_[static_cast<size_t>(window)].to(torch::kFloat), head_.t()), 1);
}

Divergence DivergenceOf(const torch::Tensor &teacher, const std::vector<int32_t> &ids, torch::Tensor *logits) {
  const int64_t tokens = teacher.size(0);
  torch::Tensor student = torch::log_softmax(*logits, 1);
  Divergence result;
  const torch::Tensor next = torch::tensor(std::vector<int64_t>(ids.begin() + 1, ids.end()));
  result.cross_entropy = -student.narrow(0, 0, tokens - 1).gather(1, next.unsqueeze(1)).mean().item<double>();
  const torch::Tensor p = torch::exp(teacher);
  result.kl = (teacher - student).mul_(p).sum().item<double>() / static_cast<double>(tokens);
  *logits = student.exp_().sub_(p).div_(static_cast<double>(tokens));
  return result;
}

}  // namespace acorn::compiler
