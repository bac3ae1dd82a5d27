// What a model file cannot hold (schema/FORMAT.md §4), told before a conversion begins and not at its end.
#pragma once

#include <cstdint>
#include <string>

#include "import/source_model.h"

namespace acorn::compiler {

/// Throws Error(kBadModel) that names `path`, the size that is too large and its limit.
void CheckDeviceLimits(const ModelConfig &config, const std::string &path);

/// Tokens of a session: the model's own context, or what the runtime reaches with any constant prefix.
int64_t LongestContext(const ModelConfig &config);

}  // namespace acorn::compiler
