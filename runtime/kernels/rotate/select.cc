#include "kernels/rotate/kernel.h"
#include "platform/features.h"

namespace acorn::rotate {

#define ACORN_KERNEL(name, needs, s8, s16) \
  void s8(const Args &args);               \
  void s16(const Args &args);
#include "kernels/rotate/kernels.inc"
#undef ACORN_KERNEL

namespace {

constexpr Kernel kKernels[] = {
#define ACORN_KERNEL(name, needs, s8, s16) {name, needs, s8, s16},
#include "kernels/rotate/kernels.inc"
#undef ACORN_KERNEL
};

}  // namespace

Span<const Kernel> Kernels() { return {kKernels, sizeof(kKernels) / sizeof(kKernels[0])}; }

const Kernel *Select(uint32_t features) {
  const Kernel *kernel = kKernels;
  while ((kernel->needs & ~features) != 0) ++kernel;  // ends at scalar
  return kernel;
}

}  // namespace acorn::rotate
