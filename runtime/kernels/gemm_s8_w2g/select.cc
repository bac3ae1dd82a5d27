#include "kernels/gemm_s8_w2g/kernel.h"
#include "platform/features.h"

namespace acorn::gemm_s8_w2g {

#define ACORN_KERNEL(name, needs, mr, nr, kr, layout, scratch_bytes, run) \
  size_t scratch_bytes(size_t m, size_t k);                               \
  void run(const GemmArgs &args);
#include "kernels/gemm_s8_w2g/kernels.inc"
#undef ACORN_KERNEL

namespace {

constexpr GemmKernel kKernels[] = {
#define ACORN_KERNEL(name, needs, mr, nr, kr, layout, scratch_bytes, run) {name, needs, mr, nr, kr, layout, scratch_bytes, run},
#include "kernels/gemm_s8_w2g/kernels.inc"
#undef ACORN_KERNEL
};

}  // namespace

Span<const GemmKernel> Kernels() { return {kKernels, sizeof(kKernels) / sizeof(kKernels[0])}; }

const GemmKernel *Select(uint32_t features) {
  const GemmKernel *kernel = kKernels;
  while ((kernel->needs & ~features) != 0) ++kernel;  // ends at scalar
  return kernel;
}

}  // namespace acorn::gemm_s8_w2g
