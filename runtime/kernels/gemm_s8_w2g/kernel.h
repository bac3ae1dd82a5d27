// gemm_s8_w2g: int8 activations times 2-bit weights, -3, -1, 1 or 3, in groups of 32 with integer multipliers, layout c4
// (acorn_schema/layout.h). The formula is that of kernels/gemm.h, in scalar.cc as a loop; all variants are bit-equal.
#pragma once

#include "base/span.h"
#include "kernels/gemm.h"

namespace acorn::gemm_s8_w2g {

/// Every variant of this build, best first, scalar last.
Span<const GemmKernel> Kernels();

/// The best variant for a set of Feature bits; never null.
const GemmKernel *Select(uint32_t features);

}  // namespace acorn::gemm_s8_w2g
