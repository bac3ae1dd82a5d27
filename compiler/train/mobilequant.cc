#include "train/mobilequant.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <utility>

#include "quantize/edge_ranges.h"
#include "quantize/own_text.h"
#include "quantize/quantized_model.h"
#include "train/trainer.h"

namespace acorn::compiler {
namespace {

/// As many windows as the closed form asks for, evenly taken from all.
CalibrationWindows Thinned(const CalibrationWindows &windows) {
  const auto size = static_cast<size_t>(windows.window);
  const size_t available = windows.ids.size() / size, count = std::min(available, static_cast<size_t>(kClosedFormWindows));
  CalibrationWindows thinned = windows;
  thinned.ids.clear();
  for (size_t i = 0; i < count; ++i) {
    const auto first = windows.ids.begin() + static_cast<std::ptrdiff_t>(i * available / count * size);
    thinned.ids.insert(thinned.ids.end(), first, first + windows.window);
  }
  return thinned;
}

}  // namespace

RecipeResult MobileQuant(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &recipe,
                         const TrainOptions &train, ModelSink *sink) {
  QuantizedModel model;
  std::vector<LayerWeights> unrounded;
  KeepingSink keep(&model, &unrounded);
  RecipeResult result = QuantizeModel(source, Thinned(windows), recipe, &keep);
  CalibrationWindows texts = windows;
  if (train.own_windows > 0) {
    const std::vector<int32_t> own = OwnText(model, source.config(), windows, train.own_windows, train.seed, train.scratch);
    texts.ids.insert(texts.ids.end(), own.begin(), own.end());
  }
  TrainResult trained = Train(source, texts, train, std::move(unrounded), &model);
  std::fprintf(stderr,
               "acornc: training: best at step %lld; on text it never saw: loss %.4f, before %.4f; perplexity %.3f, before %.3f, "
               "float %.3f\n",
               static_cast<long long>(trained.best_step), trained.loss_after, trained.loss_before, trained.perplexity_after,
               trained.perplexity_before, trained.float_perplexity);
  ConversionReport &report = result.report;
  report.training = {std::move(trained.points), trained.end};
  const ModelConfig &config = source.config();
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const QuantizedLayer &layer = model.layers[i];
    TakeFinalRanges(LayerRanges(static_cast<int64_t>(i), layer, model.frame.writer.cache.bits, config, nullptr), &report);
  }
  TakeFinalRanges({EdgeRange(config.layers, "head_in", "", EdgeType::kS8, model.head.in_scale, model.head.in_zero, NAN)}, &report);
  result.scored_ids = std::move(trained.held_out);
  result.simulated_perplexity = trained.perplexity_after;
  result.perplexity_with_8_bit_kv.reset();  // of the closed form
  WriteModel(std::move(model), sink);
  return result;
}

}  // namespace acorn::compiler
