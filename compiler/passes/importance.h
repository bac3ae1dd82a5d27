// Orders of importance for what a layer may drop, from moments of its channels. Sources: UniQL (arXiv 2512.03383), the paper's
// section 3; where a measured variant is better, the function says which and why.
#pragma once

#include <cstdint>
#include <vector>

#include "base/matrix.h"

namespace acorn::compiler {

/// By falling score; of equal scores the lower index first.
std::vector<int32_t> ByFallingScore(const std::vector<double> &scores);

/// Ridge leverage of each channel, diag(C (C + lambda I)^-1), for the second moments C [n, n]. lambda is `ridge` times the mean
/// of C's diagonal, so that the order does not depend on the unit of the channels. All zero for moments of nothing.
std::vector<double> RidgeLeverage(const Matrix &moments, double ridge);

/// Channels of an input by what the output loses without them: from the end of the order on, each channel is the one whose
/// dropping adds least to |sum of the dropped x_j w_j|^2 over the tokens. moments [n, n] of the input x; weight [m, n]: y = x w^T.
/// Nothing makes up for a dropped channel, since one file serves all rates: so the channels' overlap in the output counts, which
/// leverage leaves out.
std::vector<int32_t> ByOutputLoss(const Matrix &moments, const Matrix &weight);

}  // namespace acorn::compiler
