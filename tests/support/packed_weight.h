// Random weight matrices and their packed bytes, for models made by tests. Packs through the layout functions of the
// schema alone; knows nothing of the compiler or the kernels.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "acorn_schema/layout.h"

namespace acorn::test {

/// A seeded generator with the same numbers everywhere (SplitMix64).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  /// A number in [low, high], a range of fewer than 2^64.
  int64_t Between(int64_t low, int64_t high);
  /// A number in [low, high).
  double Real(double low, double high);

 private:
  uint64_t state_;
  uint64_t count_ = 1, reciprocal_ = UINT64_MAX;  // of the last range
};

/// How a weight matrix is stored.
struct WeightKind {
  WeightFormat format = WeightFormat::kW8;
  Layout layout = Layout::kX16C8;
  uint32_t k_panel = 0;  // 0: one panel; per-channel formats only
};

/// A weight matrix as integers.
struct WeightMatrix {
  WeightKind kind;
  uint32_t n = 0, k = 0;
  std::vector<int8_t> w;             // [n, k]
  std::vector<uint8_t> multipliers;  // [n, k / group]; empty without groups

  /// Multiplier times weight.
  int32_t At(uint32_t row, uint32_t column) const;
  /// Root mean square of At over the matrix.
  double Rms() const;
  /// Σ_k At(row, k) and Σ_k |At(row, k)|
  int64_t RowSum(uint32_t row) const;
  int64_t RowSumOfMagnitudes(uint32_t row) const;
  /// The largest row sum of magnitudes times the largest input: the `acc_bound` of the file.
  uint64_t AccBound(int32_t largest_input) const;
  /// Depth of a panel as the file states it.
  uint32_t PanelDepth() const { return kind.k_panel == 0 ? k : kind.k_panel; }
};

/// Uniformly random weights over the whole range of the format.  k is a multiple of the format's group
WeightMatrix RandomWeights(WeightKind kind, uint32_t n, uint32_t k, Random *random);

/// A matrix that has `matrix` in its first columns and in the rows of `runs` (first, count), one after the other; random weights
/// elsewhere. Its depth is larger by half where the layout allows columns to be left out.
WeightMatrix Widen(const WeightMatrix &matrix, const std::vector<std::pair<uint32_t, uint32_t>> &runs, Random *random);

/// The bytes of `matrix` in its layout.
std::vector<uint8_t> Pack(const WeightMatrix &matrix);

}  // namespace acorn::test
