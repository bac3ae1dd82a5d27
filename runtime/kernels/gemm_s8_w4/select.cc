#include "kernels/gemm_s8_w4/kernel.h"
#include "platform/features.h"

namespace acorn::gemm_s8_w4 {

#define ACORN_KERNELS "kernels/gemm_s8_w4/kernels.inc"
#include "kernels/select_gemm.inc"

const GemmKernel *Select(Layout layout, uint32_t features) { return Find(layout, features); }

}  // namespace acorn::gemm_s8_w4
