// Healing: low-rank additions to the weights of an elastic model, learned so that it says at every rate of the file what the
// whole model says, after UniQL's masked fine-tuning (arXiv 2512.03383). docs/ELASTIC.md has what was chosen and measured. An
// acornc without LibTorch has it in name only.
#pragma once

#include <cstdint>
#include <vector>

#include "passes/healed_model.h"
#include "passes/profiles.h"
#include "quantize/calibration.h"
#include "report/report.h"

namespace acorn::compiler {

struct HealOptions {
  double minutes = 0;  // of everything that Heal() does but loading the weights; 0: no limit, then steps are one
  int64_t steps = 0;   // 0: as many as the minutes allow
  uint64_t seed = 0;
};

/// A rate on windows that training never saw, before and after. Losses are divergences from the whole model, in nats a token.
struct HealedRate {
  int rate = 0;
  double loss_before = 0, loss_after = 0;
  double perplexity_before = 0, perplexity_after = 0;
};

struct HealResult {
  std::vector<LowRankAddition> additions;  // of the best state; none when no state was better than the beginning
  std::vector<HealedRate> rates;           // as in the profiles
  int64_t steps = 0, best_step = 0;
  TrainingEnd end = TrainingEnd::kAllSteps;
};

/// Throws Error(kUsage) where a model cannot be healed, or the rates (ascending) lack 0 or have nothing else.
void CheckHealing(const SourceModel &source, const std::vector<int> &rates);

/// source, profiles: as CheckHealing() lets them pass; source in the elastic order, profiles ascending. windows: texts; a part is
/// held out, and by that part the state is chosen that is kept: none in which a rate is worse than at the beginning and by more
/// than a hundredth of a nat. Ends after its steps or minutes, whichever comes first, or when it is interrupted (SIGINT,
/// SIGTERM). With steps alone: same input, options, machine and number of threads, same result. Throws Error(kUsage) when there
/// are too few windows, Error(kMemory) when memory ends.
HealResult Heal(const SourceModel &source, const std::vector<RateProfile> &profiles, const CalibrationWindows &windows,
                const HealOptions &options);

/// --heal: Heal() on up to 1,024 windows of the calibration texts, with a line on stderr for each rate.
HealResult HealOnTexts(const SourceModel &source, const std::vector<RateProfile> &profiles, CalibrationOptions texts,
                       const HealOptions &options);

}  // namespace acorn::compiler
