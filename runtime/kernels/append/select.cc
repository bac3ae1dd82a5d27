#include "kernels/append/kernel.h"
#include "platform/features.h"

namespace acorn::append {

#define ACORN_KERNEL(name, needs, run, copy) \
  void run(const Args &args);                \
  void copy(const Args &args);
#include "kernels/append/kernels.inc"
#undef ACORN_KERNEL

namespace {

constexpr Kernel kKernels[] = {
#define ACORN_KERNEL(name, needs, run, copy) {name, needs, run, copy},
#include "kernels/append/kernels.inc"
#undef ACORN_KERNEL
};

}  // namespace

Span<const Kernel> Kernels() { return {kKernels, sizeof(kKernels) / sizeof(kKernels[0])}; }

const Kernel *Select(uint32_t features) {
  const Kernel *kernel = kKernels;
  while ((kernel->needs & ~features) != 0) ++kernel;  // ends at scalar
  return kernel;
}

}  // namespace acorn::append
