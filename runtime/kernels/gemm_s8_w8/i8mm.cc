#include "kernels/gemm_s8_w8/kernel.h"
#include "kernels/xnnpack/isa_i8mm.h"

namespace acorn::gemm_s8_w8 {
namespace {

using Kernel = I8mmKernel<WeightFormat::kW8>;

}  // namespace

size_t ScratchBytesI8mm(size_t m, size_t k) { return Kernel::ScratchBytes(m, k); }
void RunX16C8I8mm(const GemmArgs &args) { Kernel::Run(args); }

}  // namespace acorn::gemm_s8_w8
