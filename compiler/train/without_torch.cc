// mobilequant where there is no LibTorch.
#include "base/error.h"
#include "train/mobilequant.h"

namespace acorn::compiler {

void PrepareTraining() {
  throw Error(ExitCode::kUsage,
              "convert: --recipe mobilequant: this acornc was built without LibTorch (toolchains/setup.sh --train installs it)");
}

RecipeResult MobileQuant(const SourceModel &, const CalibrationWindows &, const RecipeOptions &, const TrainOptions &, ModelSink *) {
  PrepareTraining();
  return {};
}

}  // namespace acorn::compiler
