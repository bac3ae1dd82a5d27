#include "kernels/gemm_s8_w8/kernel.h"
#include "platform/features.h"

namespace acorn::gemm_s8_w8 {

#define ACORN_KERNELS "kernels/gemm_s8_w8/kernels.inc"
#include "kernels/select_gemm.inc"

const GemmKernel *Select(Layout layout, uint32_t features) { return Find(layout, features); }

}  // namespace acorn::gemm_s8_w8
