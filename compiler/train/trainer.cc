#include "train/trainer.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "base/parallel.h"
#include "train/model_twin.h"
#include "train/parameters.h"
#include "train/teacher.h"

namespace acorn::compiler {

void Train(const SourceModel &source, const CalibrationWindows &windows, const TrainOptions &options, QuantizedModel *model) {
  const torch::NoGradGuard no_autograd;
  torch::set_num_threads(ThreadCount());
  const Teacher teacher(source, windows.ids, windows.window);
  ModelTwin twin(source.config(), model, windows.window);
  Parameters parameters(source.config(), model);
  std::vector<int64_t> train, held;
  for (int64_t i = 0; i < teacher.windows(); ++i) {
    const int64_t stride = std::max<int64_t>(1, teacher.windows() / options.held_out);
    (i % stride == stride / 2 && static_cast<int64_t>(held.size()) < options.held_out ? held : train).push_back(i);
  }
  const auto evaluate = [&] {
    Divergence total;
    for (const int64_t w : held) {
      torch::Tensor logits = twin.Logits(teacher.Ids(w)).to(torch::kFloat) * static_cast<float>(twin.logit_scale());
      const Divergence d = DivergenceOf(teacher.LogProbabilities(w), teacher.Ids(w), &logits);
      total.kl += d.kl / static_cast<double>(held.size());
      total.cross_entropy += d.cross_entropy / static_cast<double>(held.size());
    }
    return total;
  };
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  Divergence first = evaluate();
  std::fprintf(stderr, "start: KL %.5f ppl %.4f, %lld parameters (%.1f s)\n", first.kl, std::exp(first.cross_entropy),
               static_cast<long long>(parameters.count()), seconds());
  uint64_t state = options.seed + 12345;
  const auto random = [&] {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  };
  std::vector<int64_t> order;
  double smooth = 0;
  for (int64_t step = 0; step < options.steps; ++step) {
    ModelGradients gradients;
    double kl = 0;
    for (int64_t b = 0; b < options.batch; ++b) {
      if (order.empty()) {
        order = train;
        for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
      }
      const int64_t w = order.back();
      order.pop_back();
      const std::vector<int32_t> ids = teacher.Ids(w);
      const torch::Tensor target = teacher.LogProbabilities(w);
      twin.Accumulate(
          ids,
          [&](torch::Tensor *logits) {
            const Divergence d = DivergenceOf(target, ids, logits);
            kl += d.kl / static_cast<double>(options.batch);
            return d.kl;
          },
          &gradients, false);
    }
    const double progress = static_cast<double>(step) / static_cast<double>(options.steps);
    const double rate = options.rate * std::min(1.0, (static_cast<double>(step) + 1) / 20) * (0.05 + 0.95 * 0.5 * (1 + std::cos(3.14159265 * progress)));
    parameters.Step(twin, gradients, options.batch, rate);
    parameters.Apply();
    twin.Refresh();
    smooth = step == 0 ? kl : 0.95 * smooth + 0.05 * kl;
    if ((step + 1) % 50 == 0 || step + 1 == options.steps) {
      const Divergence d = evaluate();
      std::fprintf(stderr, "step %lld: train KL %.5f held KL %.5f ppl %.4f rate %.2e (%.1f s)\n", static_cast<long long>(step + 1), smooth, d.kl,
                   std::exp(d.cross_entropy), rate, seconds());
    }
  }
}

}  // namespace acorn::compiler
