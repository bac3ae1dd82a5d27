// Product: matrix products on LibTorch's threads.
#pragma once

#include <torch/torch.h>

namespace acorn::compiler {

/// a [m, k] times b [k, n]: new, [m, n]. Cut by columns into tasks of a fixed size, each a call of BLAS on one thread
/// (PrepareTraining), so that the result does not depend on the number of threads.
torch::Tensor Product(const torch::Tensor &a, const torch::Tensor &b);

}  // namespace acorn::compiler
