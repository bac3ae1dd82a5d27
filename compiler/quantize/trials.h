// What searches by trial share: on which tokens a trial is run, and how far it strays from the float model.
#pragma once

#include <cstdint>
#include <vector>

#include "base/matrix.h"
#include "quantize/recipe.h"

namespace acorn::compiler {

/// Tokens of a search: windows that the rounding is calibrated on, and shorter ones that trials are scored on.
struct SearchTokens {
  std::vector<int32_t> calibration, trial;
  int64_t trial_window = 0;
};

/// trial_windows: to score on, where there are as many and the hidden states of all `trials` take 1 GiB at most.
SearchTokens ChooseSearchTokens(const CalibrationWindows &windows, int64_t trial_windows, int64_t trials, int64_t hidden);

/// The scored positions of each window, of hidden states [tokens, hidden].
Matrix ScoredRows(const Matrix &x);

/// Mean divergence of the distributions of `logits` from those of `reference`, both [rows, vocab], in nats.
double Divergence(const Matrix &reference, const Matrix &logits);

}  // namespace acorn::compiler
