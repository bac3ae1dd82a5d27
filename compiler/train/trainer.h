// Trainer: makes a quantised model say what its float model says. Everything that is learned is learned together, end to end,
// against the float model's own predictions; the best state on windows that training never sees is the one that is kept, the
// state at the beginning included.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "import/source_model.h"
#include "quantize/quantized_model.h"
#include "quantize/recipe.h"
#include "report/report.h"
#include "train/train_options.h"

namespace acorn::compiler {

struct TrainResult {
  std::vector<TrainingPoint> points;
  TrainingEnd end = TrainingEnd::kAllSteps;
  int64_t steps = 0;   // done
  int64_t best_step = 0;
  double loss_before = 0, loss_after = 0;              // divergence on the held-out windows
  double loss_shaped = NAN;                            // the same after the first stage, or the closed form's
  std::vector<int32_t> held_out;                       // tokens that training never saw, whole windows
  double float_perplexity = 0;                         // of the held-out windows
  double perplexity_before = 0, perplexity_after = 0;  // the same, by the device's integers
};

/// Trains `model` in place, in three stages: scales, clipping and ranges (train/shaping.h); the integers (train/offsets.h) with all
/// that the last one moves; what can move while the integers stay (train/parameters.h). unrounded: the layers' weights before
/// rounding; empty: without the first stage, and the second knows nothing of what rounding left over.
/// Same input, options, machine and number of threads: same result, interrupted and resumed or not, unless time or a signal
/// (SIGINT, SIGTERM) ended it; then, and from time to time, the checkpoint is written.
/// Throws Error(kUsage) when the windows are too few or the checkpoint is of another run, Error(kIo) when a checkpoint cannot be
/// written or read.
TrainResult Train(const SourceModel &source, const CalibrationWindows &windows, const TrainOptions &options,
                  std::vector<LayerWeights> unrounded, QuantizedModel *model);

}  // namespace acorn::compiler
