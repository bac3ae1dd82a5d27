// The microkernels of XNNPACK that this library calls, declared as of its snapshot of November 2024: no header that
// XNNPACK installs has them. For kernels/xnnpack and the xnnpack.cc of the families; tests/kernels/xnnpack_test.cc proves each of
// them exact, cmake/FindXNNPACKMicrokernels.cmake that each is there.
#pragma once

#include <cstddef>
#include <cstdint>

namespace acorn::xnnpack {

/// xnn_f32_qc4w_minmax_params and xnn_f32_minmax_params, the scalar member.
struct MinMaxParams {
  float min;
  float max;
};

/// xnn_qd8_quantization_params: of one row of x.
struct QuantizationParams {
  int32_t zero_point;
  float inverse_scale;
};

/// c[row][n] = clamp((sum over k of (a[row][k] - zero_point) * w[n][k]) * inverse_scale * scale[n] + bias[n])
///   mr, nc, kc         rows (1 to the kernel's), channels, depth (bytes of a row of a; read up to the next multiple of 8)
///   a_stride, cm_stride, cn_stride    bytes between rows of a, rows of c, tiles of c
///   w                  packed, acorn_schema/layout_xnnpack.h; aligned to 64 bytes for x16c8 and x16c4, to 32 for x8c8 and
///                      x8c2s4, to 16 for x16
///   quantization       one for each row that the kernel can take, not only for those given
using GemmMicrokernel = void(size_t mr, size_t nc, size_t kc, const int8_t *a, size_t a_stride, const void *w, float *c,
                             size_t cm_stride, size_t cn_stride, const MinMaxParams *params,
                             const QuantizationParams *quantization);

/// y[i] = table[x[i]], i < n, n >= 1; table of 256
using LutMicrokernel = void(size_t n, const uint8_t *x, uint8_t *y, const uint8_t *table);

}  // namespace acorn::xnnpack

// NOLINTBEGIN(bugprone-reserved-identifier): XNNPACK's names
extern "C" {
#if defined(__x86_64__)
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x16c8__avx512vnni_prfm;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc8w_gemm_minmax_ukernel_10x16c8__avx512vnni_prfm;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x8c8__avxvnni_prfm;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc8w_gemm_minmax_ukernel_5x8c8__avxvnni_prfm;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x8c8__avx2;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc8w_gemm_minmax_ukernel_4x8c8__avx2;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16c8__avx512vnnigfni_prfm;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16c8__avx512vnni_prfm;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc4w_gemm_minmax_ukernel_8x16c8__avx512vnni_prfm;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x8c8__avx2_madd_prfm;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc4w_gemm_minmax_ukernel_4x8c8__avx2_madd_prfm;
acorn::xnnpack::LutMicrokernel xnn_x8_lut_ukernel__avx512skx_vpshufb_u64;
acorn::xnnpack::LutMicrokernel xnn_x8_lut_ukernel__avx2_u128;
#elif defined(__aarch64__)
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x16c8__neoni8mm;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc8w_gemm_minmax_ukernel_4x16c8__neoni8mm;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x16c4__neondot;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc8w_gemm_minmax_ukernel_4x16c4__asm_aarch64_neondot_ld128;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x8c2s4__neon_mlal;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc8w_gemm_minmax_ukernel_2x8c2s4__neon_mlal;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16c8__neoni8mm;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc4w_gemm_minmax_ukernel_4x16c8__neoni8mm;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16c4__neondot;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc4w_gemm_minmax_ukernel_4x16c4__neondot;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16__neon_mlal_lane;
acorn::xnnpack::GemmMicrokernel xnn_qd8_f32_qc4w_gemm_minmax_ukernel_6x16__neon_mlal_lane;
acorn::xnnpack::LutMicrokernel xnn_x8_lut_ukernel__aarch64_neon_tbx128x4_u64;
#endif
}
// NOLINTEND(bugprone-reserved-identifier)
