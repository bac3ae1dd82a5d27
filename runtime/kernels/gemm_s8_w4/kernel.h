// gemm_s8_w4: int8 activations times 4-bit weights, one scale a channel; w in [-8, 7].
// Layouts kX16C8, kX8C8, kX16C4 and kX16C1 (acorn_schema/layout_xnnpack.h). The formula is that of kernels/gemm.h, in
// scalar.cc as a loop; all variants are bit-equal and read exactly k bytes of a row of x. Depth comes in panels of k_panel, each
// panel's part of a sum below 2^24 (XNNPACK's kernels hand it over as float32), the whole sum below 2^31.
#pragma once

#include "base/span.h"
#include "kernels/gemm.h"

namespace acorn::gemm_s8_w4 {

/// The best variant for a layout and a set of Feature bits; never null for a layout that holds the format.
const GemmKernel *Select(Layout layout, uint32_t features);

/// Every variant of this build, best first, scalar last.
Span<const GemmKernel> Kernels();

}  // namespace acorn::gemm_s8_w4
