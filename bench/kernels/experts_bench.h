// The experts' operator as a whole, one thread: routing, gathering, gate and up of every expert that is visited, activation and
// transform, down, and sums.
#pragma once

#include "bench/kernels/shapes.h"

namespace acorn::bench {

/// MODEL/experts/FORMAT/KERNEL, of a shape of the kind "experts", with the kernels that this machine chooses. GB/s: of the
/// records that are visited alone, which come from memory.
void RegisterExperts(const Shape &shape);

}  // namespace acorn::bench
