#include "kernels/gemm_s8_w4/kernel.h"
#include "platform/features.h"

namespace acorn::gemm_s8_w4 {

#define ACORN_KERNEL(name, needs, mr, nr, kr, layout, scratch_bytes, run) \
  size_t scratch_bytes(size_t m, size_t k);                               \
  void run(const GemmArgs &args);
#include "kernels/gemm_s8_w4/kernels.inc"
#undef ACORN_KERNEL

namespace {

constexpr GemmKernel kKernels[] = {
#define ACORN_KERNEL(name, needs, mr, nr, kr, layout, scratch_bytes, run) {name, needs, mr, nr, kr, layout, scratch_bytes, run},
#include "kernels/gemm_s8_w4/kernels.inc"
#undef ACORN_KERNEL
};

}  // namespace

Span<const GemmKernel> Kernels() { return {kKernels, sizeof(kKernels) / sizeof(kKernels[0])}; }

const GemmKernel *Select(Layout layout, uint32_t features) {
  for (const GemmKernel &kernel : kKernels) {
    if (kernel.layout == layout && (kernel.needs & ~features) == 0) return &kernel;
  }
  return nullptr;
}

}  // namespace acorn::gemm_s8_w4
