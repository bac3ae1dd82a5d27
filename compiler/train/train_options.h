// What a user may say about training.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace acorn::compiler {

enum class TrainLoss {
  kLogits,  // Kullback-Leibler divergence from the float model's predictions
  kHidden,  // squared error of the last hidden states, relative to their size (MobileQuant, section 4.3)
};

struct TrainOptions {
  int64_t steps = 0;              // windows to train on
  int64_t own_windows = 0;        // of text that the model writes itself, behind those that are given
  std::string scratch;            // a path for it while it writes
  double time_limit_minutes = 0;  // 0: none
  uint64_t seed = 0;
  TrainLoss loss = TrainLoss::kLogits;
  std::string checkpoint;         // file to go on from and to keep for going on; empty: none
  double checkpoint_minutes = 5;
  std::function<void(int64_t steps)> on_step;  // called after each, with how many are done; may be empty
};

}  // namespace acorn::compiler
