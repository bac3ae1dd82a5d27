// A config.json alone, without the weights that it describes.
#pragma once

#include <string>
#include <string_view>

#include "import/source_model.h"

namespace acorn::compiler {

/// The configuration that the text of a config.json states. Throws Error(kBadModel) naming `path` and the key.
ModelConfig ParseHuggingFaceConfig(std::string_view text, const std::string &path);

}  // namespace acorn::compiler
