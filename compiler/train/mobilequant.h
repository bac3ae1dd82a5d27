// The recipe mobilequant: the closed form of `fast`, then training from there (train/trainer.h), after MobileQuant (Tan et al.,
// 2024, arXiv 2408.13933). An acornc without LibTorch has it in name only.
#pragma once

#include "import/source_model.h"
#include "quantize/recipe.h"
#include "train/train_options.h"

namespace acorn::compiler {

/// Windows that the closed form takes of the training text.
inline constexpr int64_t kClosedFormWindows = 128;

/// To be called before anything else of a command that trains: tells the numeric libraries how to behave, where the user has
/// not, and starts the program anew for it, since they read that when they are loaded. Throws Error(kUsage) without LibTorch, in
/// the name of the option that asks for it.
void PrepareTraining(const char *option);

/// windows: those that are trained on; the closed form takes its share of them. The parts of the model go to `sink`.
RecipeResult MobileQuant(const SourceModel &source, const CalibrationWindows &windows, const RecipeOptions &recipe,
                         const TrainOptions &train, ModelSink *sink);

}  // namespace acorn::compiler
