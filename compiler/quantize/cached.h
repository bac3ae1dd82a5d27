// Keys and values in a cache of 4 bits: what makes fifteen steps do for them.
#pragma once

#include <cstdint>
#include <vector>

#include "base/matrix.h"

namespace acorn::compiler {

/// Largest integer of a cache of 4 bits.
inline constexpr double kNibbleLimit = 7;
/// Of one of 8 or 4 bits.
inline constexpr double CacheLimit(int bits) { return bits == 4 ? kNibbleLimit : 127; }

/// For each `head_dim` columns of `samples` [t, heads * head_dim], the step for which rounding to [-limit, limit] steps changes
/// them least (squares); never 0.
std::vector<double> BestHeadSteps(const Matrix &samples, int64_t head_dim, double limit);

/// Factors by which the columns of `values` [t, width] are to be divided so that the same step is the best one for each;
/// geometric mean 1.
RowVector ChannelFactors(const Matrix &values, double limit);

/// Integers in [-limit, limit] for rows of keys [rows, kv_heads * head_dim], in units of `steps` [kv_heads], for which the scores
/// of `queries` [t, heads * head_dim] change least: keys of the constant prefix lie outside of the range that serves all others,
/// and every query attends to them. Element by element, from the nearest integers on.
Matrix RoundForQueries(const Matrix &keys, const Matrix &queries, int64_t head_dim, const std::vector<double> &steps,
                       double limit);

}  // namespace acorn::compiler
