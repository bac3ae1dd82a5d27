// Geometries of known models, dense and mixtures of experts, for model files that are made up.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "import/source_model.h"

namespace acorn::compiler {

/// Names that FindGeometry() knows.
std::vector<std::string> GeometryNames();

/// like: one of those names, or the path of a config.json. experts, layers: 0, or what to have in place of its own.
/// Throws Error: kUsage for a name that is neither, or a number that does not go with the rest; kBadModel for what a file holds.
ModelConfig FindGeometry(const std::string &like, int64_t experts, int64_t layers);

}  // namespace acorn::compiler
