// The Feature bits of the machine that runs the tests and benches, found without a port.
#pragma once

#include <cstdint>

#include "platform/features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace acorn::test {

inline uint32_t HostFeatures() {
  uint32_t features = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2) features |= kFeatureAvx2;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;  // not every compiler knows AVX-VNNI by name
  const bool has_leaf = __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0;
  if (avx2 && has_leaf && (eax & 1u << 4) != 0) features |= kFeatureAvxVnni;
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vnni")) {
    features |= kFeatureAvx512Vnni;
    if (__builtin_cpu_supports("gfni")) features |= kFeatureGfni;
  }
#elif defined(__aarch64__)
  features |= kFeatureNeon;
#if defined(__linux__)
  if ((getauxval(AT_HWCAP) & (1ul << 20)) != 0) features |= kFeatureNeonDot;  // HWCAP_ASIMDDP
  if ((getauxval(AT_HWCAP2) & (1ul << 13)) != 0) features |= kFeatureI8mm;    // HWCAP2_I8MM
#endif
#endif
  return features;
}

}  // namespace acorn::test
