#include "kernels/gemm_s8_w8/kernel.h"
#include "kernels/xnnpack/isa_neondot.h"

namespace acorn::gemm_s8_w8 {
namespace {

using Kernel = NeonDotKernel<WeightFormat::kW8>;

}  // namespace

size_t ScratchBytesNeonDot(size_t m, size_t k) { return Kernel::ScratchBytes(m, k); }
void RunX16C8NeonDot(const GemmArgs &args) { Kernel::Run(args); }

}  // namespace acorn::gemm_s8_w8
