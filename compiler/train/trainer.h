// Trainer: makes a quantised model say what its float model says. Everything that is learned is learned together, end to end,
// against the float model's own predictions; the best state on windows that training never sees is the one that is kept, the
// state at the beginning included.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "import/source_model.h"
#include "quantize/quantized_model.h"
#include "quantize/recipe.h"

namespace acorn::compiler {

enum class TrainLoss {
  kLogits,  // Kullback-Leibler divergence from the float model's predictions
  kHidden,  // squared error of the last hidden states, relative to their size (MobileQuant, section 4.3)
};

struct TrainOptions {
  int64_t steps = 0;             // windows to train on
  double time_limit_minutes = 0;  // 0: none
  uint64_t seed = 0;
  TrainLoss loss = TrainLoss::kLogits;
  std::string checkpoint;        // file to go on from and to keep for going on; empty: none
  double checkpoint_minutes = 5;
};

/// A line of the training's log.
struct TrainingPoint {
  int64_t step = 0;
  double training_loss = 0;  // smoothed
  double held_out_loss = 0;  // not a number where it was not measured
  double rate = 0;
};

struct TrainResult {
  std::vector<TrainingPoint> points;
  std::string ending;  // "all steps done", "time limit", "interrupted", "diverged: ..."
  int64_t steps = 0;   // done
  int64_t best_step = 0;
  double loss_before = 0, loss_after = 0;              // of the held-out windows
  double float_perplexity = 0;                         // of the held-out windows
  double perplexity_before = 0, perplexity_after = 0;  // the same, by the device's integers
};

/// Trains `model` in place. Same input, options, machine and number of threads: same result, interrupted and resumed or not,
/// unless time or a signal (SIGINT, SIGTERM) ended it. Throws Error(kUsage) when the windows are too few or the checkpoint is of
/// another run, Error(kIo) when a checkpoint cannot be written or read.
TrainResult Train(const SourceModel &source, const CalibrationWindows &windows, const TrainOptions &options, QuantizedModel *model);

}  // namespace acorn::compiler
