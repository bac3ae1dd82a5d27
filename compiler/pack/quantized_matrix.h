// QuantizedMatrix: the integers of one weight and what they mean, before packing. What the quantiser makes and the
// packer and the graph builder take.
#pragma once

#include <cstdint>
#include <vector>

#include "acorn_schema/layout.h"

namespace acorn::compiler {

/// w[n][k] real = scale[n] * multiplier(n, k) * weights[n][k]; the multiplier is 1 for formats without groups.
struct QuantizedMatrix {
  WeightFormat format = WeightFormat::kW8;
  int64_t n = 0;
  int64_t k = 0;
  std::vector<int8_t> weights;       // [n, k]: [-127, 127] for w8, [-8, 7] for w4, {-3, -1, 1, 3} for w2
  std::vector<uint8_t> multipliers;  // [n, k / group], empty for formats without groups
  std::vector<double> scale;         // [n], > 0

  int64_t group() const { return GroupSize(format); }
  int32_t multiplier(int64_t channel, int64_t k_index) const {
    // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): what has multipliers has groups
    return multipliers.empty() ? 1 : multipliers[static_cast<size_t>(channel * (k / group()) + k_index / group())];
  }
  int32_t weight(int64_t channel, int64_t k_index) const { return weights[static_cast<size_t>(channel * k + k_index)]; }
  /// Sum over k of |multiplier * weight| of a channel.
  int64_t AbsoluteSum(int64_t channel) const;
  /// Sum over k of multiplier * weight of a channel.
  int64_t Sum(int64_t channel) const;
  /// Bytes of the integers and multipliers, without a layout's padding and without what a channel has once.
  uint64_t PayloadBytes() const;
  /// Channels [first, first + count) as they are.
  QuantizedMatrix Channels(int64_t first, int64_t count) const;
  /// Inputs [first, first + count) of all channels; whole groups.
  QuantizedMatrix Inputs(int64_t first, int64_t count) const;
};

}  // namespace acorn::compiler
