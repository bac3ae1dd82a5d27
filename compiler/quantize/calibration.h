// Calibration tokens: texts cut into windows, a share of them from each text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "import/source_model.h"
#include "quantize/recipe.h"

namespace acorn::compiler {

struct CalibrationOptions {
  std::vector<std::string> files;  // empty: the built-in text
  int64_t window = 512;
  int64_t windows = 0;  // at least 1
  uint64_t seed = 0;  // 0: the first windows of each text, else a seeded choice
};

/// True when the source brings material for a tokenizer that can read text.
bool HasTokenizer(const SourceModel &source);
/// True for a GGUF whose byte-level vocabulary has no token for any byte, as files for timing have.
bool HasMadeUpTokenizer(const SourceModel &source);

/// Tokenises each text once, with special tokens recognised and no start token added. Every text gives an equal share
/// of the windows as far as it reaches. A source without a tokenizer gets seeded random tokens in place of the built-in
/// text. Throws Error(kUsage) when there is no whole window.
CalibrationWindows MakeCalibration(const SourceModel &source, const CalibrationOptions &options);

/// Which of `available` windows are taken, ascending: for tests.
std::vector<int64_t> ChooseWindows(int64_t available, int64_t wanted, uint64_t seed);

}  // namespace acorn::compiler
