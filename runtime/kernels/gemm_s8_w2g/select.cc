#include "kernels/gemm_s8_w2g/kernel.h"
#include "platform/features.h"

namespace acorn::gemm_s8_w2g {

#define ACORN_KERNELS "kernels/gemm_s8_w2g/kernels.inc"
#include "kernels/select_gemm.inc"

const GemmKernel *Select(uint32_t features) { return Find(Layout::kC4, features); }

}  // namespace acorn::gemm_s8_w2g
