// What a device will make of a text: the perplexity of a model file, computed by the library on integers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace acorn::compiler {

/// Perplexity over windows of `window` >= 2 ids, each from an empty session, every position but the first scored, as `acorn
/// perplexity` does. NaN when the file's context cannot hold a window. Throws Error(kIo), Error(kBadModel), Error(kMemory).
double DevicePerplexity(const std::string &path, const std::vector<int32_t> &ids, int64_t window);

}  // namespace acorn::compiler
