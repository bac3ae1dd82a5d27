#include "write/factor.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"

namespace acorn::compiler {
namespace {

constexpr double kMultiplierLimit = 2147483647.0;

/// Largest multiplier that a bound allows: multiplier * bound < 2^62.
double LargestMultiplier(uint64_t bound) {
  const uint64_t limit = ((uint64_t{1} << 62) - 1) / std::max<uint64_t>(bound, 1);
  return std::min(kMultiplierLimit, static_cast<double>(limit));
}

}  // namespace

IntegerFactors MakeFactors(const std::vector<double> &values, const std::vector<uint64_t> &bounds) {
  IntegerFactors factors;
  for (int shift = 62; shift >= 1; --shift) {
    const double power = std::ldexp(1.0, shift);
    bool fits = true;
    for (size_t i = 0; i < values.size() && fits; ++i) {
      fits = std::floor(std::abs(values[i]) * power + 0.5) <= LargestMultiplier(bounds[i]);
    }
    if (!fits) continue;
    factors.shift = shift;
    factors.multipliers.resize(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      factors.multipliers[i] = static_cast<int32_t>(std::floor(values[i] * power + 0.5));
    }
    return factors;
  }
  throw Error(ExitCode::kBadModel, "a rescaling factor is too large for an integer multiplier");
}

IntegerFactors MakeFactors(const std::vector<double> &values, uint64_t bound) {
  return MakeFactors(values, std::vector<uint64_t>(values.size(), bound));
}

IntegerFactor MakeFactor(double value, uint64_t bound) {
  const IntegerFactors factors = MakeFactors({value}, bound);
  return {factors.multipliers[0], factors.shift};
}

IntegerFactor MakeNormalizedFactor(double value) {
  int exponent = 0;
  const double fraction = std::frexp(value, &exponent);  // in [0.5, 1)
  double multiplier = std::floor(std::ldexp(fraction, 31) + 0.5);
  int shift = 31 - exponent;
  if (multiplier > kMultiplierLimit) {
    multiplier = 1073741824.0;
    --shift;
  }
  return {static_cast<int32_t>(multiplier), shift};
}

}  // namespace acorn::compiler
