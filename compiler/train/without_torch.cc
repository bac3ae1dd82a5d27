// What trains where there is no LibTorch.
#include <string>

#include "base/error.h"
#include "train/heal.h"
#include "train/mobilequant.h"

namespace acorn::compiler {
namespace {

constexpr const char *kRecipe = "--recipe mobilequant";
constexpr const char *kHeal = "--heal";

}  // namespace

void PrepareTraining(const char *option) {
  throw Error(ExitCode::kUsage, std::string(option) +
                                    ": this acornc was built without LibTorch (toolchains/setup.sh --train installs it)");
}

RecipeResult MobileQuant(const SourceModel &, const CalibrationWindows &, const RecipeOptions &, const TrainOptions &,
                         ModelSink *) {
  PrepareTraining(kRecipe);
  return {};
}

void CheckHealing(const SourceModel &, const std::vector<int> &) { PrepareTraining(kHeal); }

HealResult HealOnTexts(const SourceModel &, const std::vector<RateProfile> &, CalibrationOptions, const HealOptions &) {
  PrepareTraining(kHeal);
  return {};
}

}  // namespace acorn::compiler
