// Text that the quantised model writes itself, to be trained on: it covers what the source knows, where calibration text covers
// what it is about. After LLM-QAT (Liu et al., 2023, arXiv 2305.17888, section 3.1), there by the float model, here by the device's
// own operators, which are some fifty times as fast.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "import/source_model.h"
#include "quantize/quantized_model.h"

namespace acorn::compiler {

/// `windows` windows of prompts.window tokens, each of continuations of a few tokens out of `prompts`, without tokens that end a
/// text. The same for the same integers and seed, on every machine.
/// scratch: a path for the model while it writes; nothing stays there. Throws Error(kIo).
std::vector<int32_t> OwnText(const QuantizedModel &model, const ModelConfig &config, const CalibrationWindows &prompts,
                             int64_t windows, uint64_t seed, const std::string &scratch);

}  // namespace acorn::compiler
