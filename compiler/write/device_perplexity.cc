#include "write/device_perplexity.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/mapped_file.h"
#include "base/progress.h"
#include "write/opened_model.h"

namespace acorn::compiler {
namespace {

constexpr uint32_t kLogitRows = 32;  // enough for the head's weights to be read rarely
constexpr int kSpeedRuns = 5;
constexpr size_t kSpeedTokens = 32;  // of a run

struct Score {
  const int32_t *targets;  // of row 0, 1, …
  double unit;             // of a logit, in natural units
  double loss = 0;
  int64_t tokens = 0;
};

int OnLogits(void *ctx, size_t row, const int32_t *logits, size_t count) {
  auto *score = static_cast<Score *>(ctx);
  const int32_t largest = *std::max_element(logits, logits + count);
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += std::exp((static_cast<double>(logits[i]) - largest) * score->unit);
  score->loss += std::log(sum) + (static_cast<double>(largest) - logits[score->targets[row]]) * score->unit;
  ++score->tokens;
  return 0;
}

/// Tokens a second of one run.
double Decode(OpenedModel *opened, const std::vector<int32_t> &ids) {
  acorn_session_reset(opened->session());
  const int32_t *logits = nullptr;
  const size_t tokens = std::min<size_t>(ids.size(), opened->context_tokens());
  opened->Check(acorn_session_decode(opened->session(), &logits, ids[0]));
  const auto begin = std::chrono::steady_clock::now();
  for (size_t i = 1; i < tokens; ++i) opened->Check(acorn_session_decode(opened->session(), &logits, ids[i]));
  return static_cast<double>(tokens - 1) / std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

double DevicePerplexity(const std::string &path, const std::vector<int32_t> &ids, int64_t window, uint32_t rate) {
  const MappedFile file(path);
  acorn_options options = {};
  options.rate = rate;
  options.context_tokens = static_cast<uint32_t>(window);
  options.logit_rows = kLogitRows;
  OpenedModel opened(file, options);
  if (opened.context_tokens() < window) return NAN;
  acorn_model_info info = {};
  info.struct_size = sizeof info;
  opened.Check(acorn_model_get_info(opened.model(), &info));
  Score score = {};
  score.unit = std::ldexp(static_cast<double>(info.logit_multiplier), -info.logit_shift - 16);
  const int64_t windows = static_cast<int64_t>(ids.size()) / window;
  Progress progress("perplexity of the file", windows);
  for (int64_t i = 0; i < windows; ++i) {
    const int32_t *begin = ids.data() + i * window;
    score.targets = begin + 1;
    acorn_session_reset(opened.session());
    opened.Check(acorn_session_score(opened.session(), begin, static_cast<size_t>(window - 1), OnLogits, &score));
    progress.Update(i + 1);
  }
  return std::exp(score.loss / static_cast<double>(score.tokens));
}

std::vector<DeviceRate> MeasureRates(const std::string &path, const std::vector<int32_t> &ids, int64_t window) {
  const MappedFile file(path);
  acorn_options options = {};
  options.context_tokens = static_cast<uint32_t>(std::min<size_t>(kSpeedTokens + 1, ids.size()));
  OpenedModel opened(file, options);
  uint32_t all[256];
  size_t count = 0;
  opened.Check(acorn_model_rates(opened.model(), all, 256, &count));
  const std::vector<int32_t> start(ids.begin(), ids.begin() + options.context_tokens);
  std::vector<std::vector<double>> speeds(count);
  for (int run = 0; run < kSpeedRuns; ++run) {
    for (size_t i = 0; i < count; ++i) {
      acorn_session_reset(opened.session());
      opened.Check(acorn_session_set_rate(opened.session(), all[i]));
      speeds[i].push_back(Decode(&opened, start));
    }
  }
  std::vector<DeviceRate> rates;
  for (size_t i = 0; i < count; ++i) {
    acorn_rate_plan plan = {};
    plan.struct_size = sizeof plan;
    const acorn_image image = {file.data(), file.size()};
    acorn_options plain = {};
    plain.struct_size = sizeof plain;
    opened.Check(acorn_plan_rate(&plan, nullptr, &image, &plain, nullptr, i));
    std::sort(speeds[i].begin(), speeds[i].end());
    const double left_out = plan.prunable_bytes == 0 ? 0 : static_cast<double>(plan.left_out_bytes) / static_cast<double>(plan.prunable_bytes);
    rates.push_back({all[i], left_out, plan.weight_bytes, DevicePerplexity(path, ids, window, all[i]), speeds[i][kSpeedRuns / 2]});
  }
  return rates;
}

}  // namespace acorn::compiler
