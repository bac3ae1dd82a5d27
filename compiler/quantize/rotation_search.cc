#include "quantize/rotation_search.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "base/progress.h"
#include "passes/prefix.h"

namespace acorn::compiler {
namespace {

constexpr int64_t kTrialWindows = 4;

/// A trial is for its loss alone.
class DroppingSink : public ModelSink {
 public:
  void Begin(const ModelFrame &, double, QuantizedMatrix) override {}
  void Layer(QuantizedLayer) override {}
  void Head(QuantizedHead) override {}
};

/// Evenly spread over all.
CalibrationWindows TrialWindows(const CalibrationWindows &all) {
  CalibrationWindows few;
  few.window = all.window;
  const int64_t available = static_cast<int64_t>(all.ids.size()) / all.window;
  const int64_t count = std::min(available, kTrialWindows);
  for (int64_t i = 0; i < count; ++i) {
    const auto first = all.ids.begin() + i * available / count * all.window;
    few.ids.insert(few.ids.end(), first, first + all.window);
  }
  return few;
}

double TrialPerplexity(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &recipe,
                       const std::string &what) {
  Progress progress(what, 1);
  DroppingSink sink;
  const double perplexity = QuantizeModel(source, windows, recipe, &sink).simulated_perplexity;
  char note[64];
  std::snprintf(note, sizeof note, "perplexity %.4g", perplexity);
  progress.Finish(note);
  return perplexity;
}

}  // namespace

RotationChoice ChooseRotation(const SourceModel &source, const CalibrationWindows &windows, const RotationOptions &options,
                              RecipeOptions *recipe) {
  if (options.kind == RotationKind::kNone) return {};
  recipe->prefix_tokens = PrefixOf(source, windows, *recipe);
  if (options.seeds == 1) return {std::make_unique<RotatedModel>(source, options.kind, 1), 1};
  const CalibrationWindows few = TrialWindows(windows);
  RotationChoice best;
  double lowest = TrialPerplexity(source, few, *recipe, "trial without rotation");
  for (int64_t i = 1; i <= options.seeds; ++i) {
    const auto seed = static_cast<uint64_t>(i);
    auto model = std::make_unique<RotatedModel>(source, options.kind, seed);
    const std::string what = std::string("trial of ") + RotationName(options.kind) + ", seed " + std::to_string(i);
    const double perplexity = TrialPerplexity(*model, few, *recipe, what);
    if (perplexity >= lowest) continue;
    lowest = perplexity;
    best = {std::move(model), seed};
  }
  return best;
}

}  // namespace acorn::compiler
