/* CPU features of x86-64 as cpuinfo finds them: it knows which wide registers the operating system saves. */
#include <cpuinfo.h>

#include "acorn_posix.h"

uint32_t acorn_posix_cpu_features(void) {
  uint32_t features = 0;
  if (!cpuinfo_initialize()) return 0;
  if (cpuinfo_has_x86_avx2() && cpuinfo_has_x86_fma3() && cpuinfo_has_x86_f16c() && cpuinfo_has_x86_bmi()) {
    features |= ACORN_CPU_AVX2;
    if (cpuinfo_has_x86_avxvnni()) features |= ACORN_CPU_AVXVNNI;
    if (cpuinfo_has_x86_avx512f() && cpuinfo_has_x86_avx512bw() && cpuinfo_has_x86_avx512dq() && cpuinfo_has_x86_avx512vl() &&
        cpuinfo_has_x86_avx512cd() && cpuinfo_has_x86_avx512vnni()) {
      features |= ACORN_CPU_AVX512VNNI;
      if (cpuinfo_has_x86_gfni()) features |= ACORN_CPU_GFNI;
    }
  }
  cpuinfo_deinitialize();
  return features;
}
