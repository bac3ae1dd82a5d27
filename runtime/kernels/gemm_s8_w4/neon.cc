#include "kernels/gemm_s8_w4/kernel.h"
#include "kernels/xnnpack/isa_neon.h"

namespace acorn::gemm_s8_w4 {
namespace {

using Kernel = NeonKernel<WeightFormat::kW4>;

}  // namespace

size_t ScratchBytesNeon(size_t m, size_t k) { return Kernel::ScratchBytes(m, k); }
void RunX16C8Neon(const GemmArgs &args) { Kernel::Run(args); }

}  // namespace acorn::gemm_s8_w4
