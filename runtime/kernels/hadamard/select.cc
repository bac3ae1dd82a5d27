#include "kernels/hadamard/kernel.h"
#include "platform/features.h"

namespace acorn::hadamard {

#define ACORN_KERNEL(name, needs, s8, s15) \
  void s8(const Args &args);               \
  void s15(const Args &args);
#include "kernels/hadamard/kernels.inc"
#undef ACORN_KERNEL

namespace {

constexpr Kernel kKernels[] = {
#define ACORN_KERNEL(name, needs, s8, s15) {name, needs, s8, s15},
#include "kernels/hadamard/kernels.inc"
#undef ACORN_KERNEL
};

}  // namespace

Span<const Kernel> Kernels() { return {kKernels, sizeof(kKernels) / sizeof(kKernels[0])}; }

const Kernel *Select(uint32_t features) {
  const Kernel *kernel = kKernels;
  while ((kernel->needs & ~features) != 0) ++kernel;  // ends at scalar
  return kernel;
}

}  // namespace acorn::hadamard
