// Real factors as integers: multiplier / 2^shift within the bounds of docs/ARITHMETIC.md §1.
#pragma once

#include <cstdint>
#include <vector>

namespace acorn::compiler {

struct IntegerFactor {
  int32_t multiplier = 0;
  int shift = 1;
};

struct IntegerFactors {
  std::vector<int32_t> multipliers;
  int shift = 1;
};

/// The closest pair for `value` >= 0 that keeps |v| * multiplier < 2^62 for |v| <= bound: multiplier below 2^31, shift in
/// [1, 62] and as large as that allows. Throws Error(kBadModel) when the value is too large for any.
IntegerFactor MakeFactor(double value, uint64_t bound);
/// One shift for all: bound[i] belongs to values[i].
IntegerFactors MakeFactors(const std::vector<double> &values, const std::vector<uint64_t> &bounds);
/// The same with one bound for all.
IntegerFactors MakeFactors(const std::vector<double> &values, uint64_t bound);
/// A pair with the multiplier in [2^30, 2^31).  value > 0
IntegerFactor MakeNormalizedFactor(double value);

}  // namespace acorn::compiler
