#include "write/device_perplexity.h"

#include <algorithm>
#include <cmath>

#include "base/mapped_file.h"
#include "base/progress.h"
#include "write/opened_model.h"

namespace acorn::compiler {
namespace {

constexpr uint32_t kLogitRows = 32;  // enough for the head's weights to be read rarely

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

}  // namespace

double DevicePerplexity(const std::string &path, const std::vector<int32_t> &ids, int64_t window) {
  const MappedFile file(path);
  acorn_options options = {};
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

}  // namespace acorn::compiler
