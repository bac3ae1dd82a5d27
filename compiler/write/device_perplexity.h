// What a device will make of a text: the perplexity of a model file, computed by the library on integers, and what each of its
// rates costs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace acorn::compiler {

/// Perplexity at a pruning rate over windows of `window` >= 2 ids, each from an empty session, every position but the first scored, as
/// `acorn perplexity` does. NaN when the file's context cannot hold a window. Throws Error(kIo), Error(kBadModel), Error(kMemory).
double DevicePerplexity(const std::string &path, const std::vector<int32_t> &ids, int64_t window, uint32_t rate = 0);

/// One of a file's rates.
struct DeviceRate {
  uint32_t rate = 0;
  double left_out = 0;            // part of the prunable bytes
  uint64_t weight_bytes = 0;      // that a token reads
  double perplexity = 0;          // as DevicePerplexity()
  double tokens_per_second = 0;   // decoding, on this machine; the median of some runs, the rates taking turns
};
/// All of a file's rates, rising. Throws as DevicePerplexity().
std::vector<DeviceRate> MeasureRates(const std::string &path, const std::vector<int32_t> &ids, int64_t window);

}  // namespace acorn::compiler
