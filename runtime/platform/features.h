// CPU feature bits as kernels see them. The port fills them in (acorn_port.cpu_features); select.cc reads them.
#pragma once

#include <cstdint>

namespace acorn {

/// Bit values are part of acorn_port.h; each means "the CPU and the operating system allow all of":
enum Feature : uint32_t {
  kFeatureAvx2 = 1u << 0,        // AVX2, FMA, F16C, BMI
  kFeatureAvxVnni = 1u << 1,     // and AVX-VNNI (256-bit vpdpbusd without AVX-512)
  kFeatureAvx512Vnni = 1u << 2,  // AVX-512 F, BW, DQ, VL, CD and VNNI
  kFeatureGfni = 1u << 3,        // GFNI beside AVX-512
  kFeatureNeon = 1u << 8,        // Advanced SIMD
  kFeatureNeonDot = 1u << 9,     // sdot/udot
  kFeatureI8mm = 1u << 10,       // smmla/usdot
};

}  // namespace acorn
