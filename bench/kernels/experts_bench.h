// The experts' operator as a whole, one thread: routing, gathering, gate, up and down of every expert that is visited, and sums.
#pragma once

#include "bench/kernels/shapes.h"

namespace acorn::bench {

/// MODEL/experts/FORMAT/KERNEL, of a shape of the kind "experts", with the kernels that this machine chooses.
void RegisterExperts(const Shape &shape);

}  // namespace acorn::bench
