#include <cpuinfo.h>

#include "acorn_posix.h"

uint32_t acorn_posix_cpu_features(void) {
  uint32_t features = 0;
  if (!cpuinfo_initialize()) return 0;
#if CPUINFO_ARCH_X86_64
  if (cpuinfo_has_x86_avx2() && cpuinfo_has_x86_fma3() && cpuinfo_has_x86_f16c() && cpuinfo_has_x86_bmi()) {
    features |= ACORN_CPU_AVX2;
    if (cpuinfo_has_x86_avxvnni()) features |= ACORN_CPU_AVXVNNI;
    if (cpuinfo_has_x86_avx512f() && cpuinfo_has_x86_avx512bw() && cpuinfo_has_x86_avx512dq() && cpuinfo_has_x86_avx512vl() &&
        cpuinfo_has_x86_avx512cd() && cpuinfo_has_x86_avx512vnni()) {
      features |= ACORN_CPU_AVX512VNNI;
      if (cpuinfo_has_x86_gfni()) features |= ACORN_CPU_GFNI;
    }
  }
#elif CPUINFO_ARCH_ARM64
  features |= ACORN_CPU_NEON;
  if (cpuinfo_has_arm_neon_dot()) features |= ACORN_CPU_NEONDOT;
  if (cpuinfo_has_arm_neon_dot() && cpuinfo_has_arm_i8mm()) features |= ACORN_CPU_I8MM;
#endif
  cpuinfo_deinitialize();
  return features;
}
