#include "kernels/conv/kernel.h"
#include "platform/features.h"

namespace acorn::conv {

#define ACORN_KERNEL(name, needs, run) void run(const Args &args);
#include "kernels/conv/kernels.inc"
#undef ACORN_KERNEL

namespace {

constexpr Kernel kKernels[] = {
#define ACORN_KERNEL(name, needs, run) {name, needs, run},
#include "kernels/conv/kernels.inc"
#undef ACORN_KERNEL
};

}  // namespace

Span<const Kernel> Kernels() { return {kKernels, sizeof(kKernels) / sizeof(kKernels[0])}; }

const Kernel *Select(uint32_t features) {
  const Kernel *kernel = kKernels;
  while ((kernel->needs & ~features) != 0) ++kernel;  // ends at scalar
  return kernel;
}

}  // namespace acorn::conv
