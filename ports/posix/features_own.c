/* CPU features without a library: the compiler's own detection on x86-64 (it asks the operating system about the wide
 * registers too), the kernel's word on AArch64, which holds for every core that this process may be moved to. */
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "acorn_posix.h"

#if defined(__aarch64__)
/* Bits of the Linux ABI: asm/hwcap.h */
#define HWCAP_BIT_ASIMD (1ul << 1)
#define HWCAP_BIT_ASIMDDP (1ul << 20)
#define HWCAP2_BIT_I8MM (1ul << 13)
#endif

#if defined(__x86_64__)
#include <cpuid.h>

/* AVX-VNNI: leaf 7, sub-leaf 1, EAX bit 4. GCC 12 has no name for it. */
static int has_avxvnni(void) {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & (1u << 4)) != 0;
}
#endif

uint32_t acorn_posix_cpu_features(void) {
  uint32_t features = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi")) {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & bit_F16C) == 0) return 0;
    features |= ACORN_CPU_AVX2;
    if (has_avxvnni()) features |= ACORN_CPU_AVXVNNI;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vnni")) {
      features |= ACORN_CPU_AVX512VNNI;
      if (__builtin_cpu_supports("gfni")) features |= ACORN_CPU_GFNI;
    }
  }
#elif defined(__aarch64__)
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  if ((first & HWCAP_BIT_ASIMD) != 0) features |= ACORN_CPU_NEON;
  if ((first & HWCAP_BIT_ASIMDDP) != 0) features |= ACORN_CPU_NEONDOT;
  if ((first & HWCAP_BIT_ASIMDDP) != 0 && (second & HWCAP2_BIT_I8MM) != 0) features |= ACORN_CPU_I8MM;
#endif
  return features;
}
