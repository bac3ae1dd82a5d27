// The constant prefix: one or two tokens whose keys and values start every session and take the massive activations away
// from the first real token.
#pragma once

#include <cstdint>
#include <vector>

#include "import/source_model.h"

namespace acorn::compiler {

/// The prefix of 0, 1 or 2 tokens under which calibration windows have the smallest ranges without a worse loss.
std::vector<int32_t> ChoosePrefix(const SourceModel &source, const std::vector<int32_t> &ids, int64_t window);

}  // namespace acorn::compiler
