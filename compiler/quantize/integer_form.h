// Which source models can become a model file. For every command that writes one.
#pragma once

#include <string>

#include "import/source_model.h"

namespace acorn::compiler {

/// Throws Error(kBadModel) naming `path`, the architecture and what of it has no integer form yet.
void CheckIntegerForm(const ModelConfig &config, const std::string &path);

}  // namespace acorn::compiler
