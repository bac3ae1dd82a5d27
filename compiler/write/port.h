// Port and WeightInfo: what an operator needs to know of its edges and its weight to get its integers.
#pragma once

#include <cstdint>
#include <vector>

#include "pack/quantized_matrix.h"

namespace acorn::compiler {

/// Data types of activation edges, numbered as in the schema.
enum class EdgeType : uint8_t { kS8 = 1, kS15 = 2, kS16 = 3, kS32 = 4 };
/// Largest magnitude that an edge of a type holds.
double EdgeLimit(EdgeType type);
/// Largest magnitude of an input of a linear layer that a bound must cover; -2^14 + 64 is the lowest s15 value.
uint64_t InputLimit(EdgeType type);

/// Columns [offset, offset + width) of a value. A unit q stands for the real number scale * (q - zero_point).
struct Port {
  uint16_t value = 0;
  uint32_t offset = 0;
  uint32_t width = 0;
  EdgeType type = EdgeType::kS16;
  double scale = 1.0;
  int32_t zero_point = 0;  // of s8 edges that a linear layer reads, in [-127, 127]
};
Port Columns(const Port &port, uint32_t offset, uint32_t width, double scale);
Port Scaled(Port port, double scale, int32_t zero_point = 0);

/// Rows or columns [first, first + count).
struct IndexRun {
  uint32_t first = 0, count = 0;
};

/// A weight known to the graph, or some of its rows and the first of its columns: what the operators that use it need to know
/// about its integers.
struct WeightInfo {
  uint16_t index = 0;
  int64_t n = 0;
  int64_t k = 0;
  std::vector<IndexRun> rows;               // of the weight that are meant, in this order; empty: all
  std::vector<double> scale;           // [n]
  int64_t largest_sum = 0;             // of the whole weight: largest over its rows of the sum over k of |multiplier * weight|
  std::vector<int64_t> absolute_sums;  // [n], over k of |multiplier * weight|
  std::vector<int64_t> sums;           // [n], over k of multiplier * weight
};
WeightInfo DescribeWeight(uint16_t index, const QuantizedMatrix &matrix);
/// The first k columns of `rows` of a weight. Where that is everything: the weight itself.
WeightInfo DescribePart(const WeightInfo &whole, const QuantizedMatrix &matrix, std::vector<IndexRun> rows, int64_t k);

}  // namespace acorn::compiler
