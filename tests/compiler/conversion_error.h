// How far the logits of a written file are from those of its float model.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "graph/float_model.h"
#include "quantize/quantized_model.h"
#include "tests/compiler/train/small_model.h"
#include "tests/support/temp_folder.h"
#include "write/opened_model.h"

namespace acorn::compiler {

constexpr int64_t kErrorWindow = 48;

/// Logits of the file for `ids` at a pruning rate, [ids, vocab], in natural units.
inline Matrix DeviceLogits(const std::string &path, const std::vector<int32_t> &ids, int64_t vocab, uint32_t rate = 0) {
  const MappedFile file(path);
  acorn_options options = {};
  options.context_tokens = static_cast<uint32_t>(ids.size());
  options.rate = rate;
  OpenedModel opened(file, options);
  acorn_model_info info = {};
  opened.Check(acorn_model_get_info(opened.model(), &info));
  Matrix logits(static_cast<int64_t>(ids.size()), vocab);
  struct Rows {
    Matrix *logits;
    double unit;
  } rows = {&logits, std::ldexp(static_cast<double>(info.logit_multiplier), -info.logit_shift - 16)};
  const auto collect = [](void *ctx, size_t row, const int32_t *values, size_t count) {
    auto *to = static_cast<Rows *>(ctx);
    for (size_t i = 0; i < count; ++i) {
      (*to->logits)(static_cast<int64_t>(row), static_cast<int64_t>(i)) = static_cast<float>(values[i] * to->unit);
    }
    return 0;
  };
  opened.Check(acorn_session_score(opened.session(), ids.data(), ids.size(), collect, &rows));
  return logits;
}

/// Relative error of the file's logits, squares over all positions, without what shifts a whole row. prefix: absent: the recipe's own.
inline double ErrorOf(const SourceModel &source, Recipe recipe, WeightFormat format,
                      const std::optional<std::vector<int32_t>> &prefix = {}) {
  const test::TempFolder folder;
  const ModelConfig &config = source.config();
  const CalibrationWindows windows = SomeWindows(config, 6, kErrorWindow);
  RecipeOptions options;
  options.recipe = recipe;
  options.body_format = format;
  options.prefix_tokens = prefix;
  Progress::Silence();
  FileSink sink(config, folder.File("m.acorn"));
  const RecipeResult result = QuantizeModel(source, windows, options, &sink);
  ModelFacts facts;
  facts.vocab_size = static_cast<uint32_t>(config.vocab);
  facts.max_context = static_cast<uint32_t>(config.max_context);
  sink.Finish(facts);
  std::vector<int32_t> ids = SomeWindows(config, 9, kErrorWindow).ids;
  ids.erase(ids.begin(), ids.end() - kErrorWindow);
  std::vector<int32_t> with_prefix = result.prefix_tokens;
  with_prefix.insert(with_prefix.end(), ids.begin(), ids.end());
  const Matrix x = RunLayers(source, with_prefix, {0, static_cast<int64_t>(with_prefix.size())});
  Matrix want = HeadScorer(source).Logits(x.bottomRows(kErrorWindow));
  Matrix got = DeviceLogits(folder.File("m.acorn"), ids, config.vocab);
  want.colwise() -= want.rowwise().mean().eval();
  got.colwise() -= got.rowwise().mean().eval();
  return static_cast<double>((got - want).squaredNorm() / want.squaredNorm());
}

}  // namespace acorn::compiler
