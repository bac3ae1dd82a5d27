// Which merged rotation a model takes: a few seeds and the model as it is, each rounded on a few calibration windows.
#pragma once

#include <cstdint>
#include <memory>

#include "passes/rotate.h"
#include "quantize/recipe.h"

namespace acorn::compiler {

struct RotationOptions {
  RotationKind kind = RotationKind::kNone;
  int64_t seeds = 4;  // rotations to try; 1: it is taken without a trial, not even against the model as it is
};

struct RotationChoice {
  std::unique_ptr<RotatedModel> model;  // null: the model as it is does best, or no rotation was asked for
  uint64_t seed = 0;                    // of `model`
};

/// The rotation with which the rounded model predicts a few of the calibration windows best, by the steps of QuantizeModel()
/// on them. Also chooses the recipe's prefix, on the model as it is: a rotated stream hides from that search what massive
/// tokens still do to the input of down. `source` outlives the choice.
RotationChoice ChooseRotation(const SourceModel &source, const CalibrationWindows &windows, const RotationOptions &options,
                              RecipeOptions *recipe);

}  // namespace acorn::compiler
