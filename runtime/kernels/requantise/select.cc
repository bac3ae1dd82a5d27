#include "kernels/requantise/kernel.h"
#include "platform/features.h"

namespace acorn::requantise {

#define ACORN_KERNEL(name, needs, suffix)   \
  void S8##suffix(const Args &args);        \
  void S16##suffix(const Args &args);       \
  void S32##suffix(const Args &args);       \
  void TwoRowS8##suffix(const Args &args);  \
  void TwoRowS16##suffix(const Args &args); \
  void TwoRowS32##suffix(const Args &args);
#include "kernels/requantise/kernels.inc"
#undef ACORN_KERNEL

namespace {

constexpr Kernel kKernels[] = {
#define ACORN_KERNEL(name, needs, suffix) \
  {name, needs, S8##suffix, S16##suffix, S32##suffix, TwoRowS8##suffix, TwoRowS16##suffix, TwoRowS32##suffix},
#include "kernels/requantise/kernels.inc"
#undef ACORN_KERNEL
};

}  // namespace

Span<const Kernel> Kernels() { return {kKernels, sizeof(kKernels) / sizeof(kKernels[0])}; }

const Kernel *Select(uint32_t features) {
  const Kernel *kernel = kKernels;
  while ((kernel->needs & ~features) != 0) ++kernel;  // ends at scalar
  return kernel;
}

}  // namespace acorn::requantise
