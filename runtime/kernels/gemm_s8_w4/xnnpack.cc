// gemm_s8_w4 by XNNPACK's microkernels (kernels/xnnpack/gemm.h): which ones, for which layout.
#include "kernels/gemm_s8_w4/kernel.h"
#include "kernels/xnnpack/gemm.h"

namespace acorn::gemm_s8_w4 {
namespace {

constexpr xnnpack::Gemm Bind(Layout layout, xnnpack::GemmMicrokernel *one_row, xnnpack::GemmMicrokernel *rows, uint32_t mr) {
  return {WeightFormat::kW4, layout, one_row, rows, mr};
}

}  // namespace

size_t ScratchBytesXnnpack(size_t m, size_t k) { return xnnpack::GemmScratchBytes(m, k); }

#if defined(__x86_64__)

// GFNI gains for one row; for many the 8 rows without it are an eighth faster than the 14 rows with it.
void RunX16C8XnnpackAvx512VnniGfni(const GemmArgs &args) {
  xnnpack::RunGemm(args, Bind(Layout::kX16C8, xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16c8__avx512vnnigfni_prfm,
                              xnn_qd8_f32_qc4w_gemm_minmax_ukernel_8x16c8__avx512vnni_prfm, 8));
}

void RunX16C8XnnpackAvx512Vnni(const GemmArgs &args) {
  xnnpack::RunGemm(args, Bind(Layout::kX16C8, xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16c8__avx512vnni_prfm,
                              xnn_qd8_f32_qc4w_gemm_minmax_ukernel_8x16c8__avx512vnni_prfm, 8));
}

void RunX8C8XnnpackAvx2(const GemmArgs &args) {
  xnnpack::RunGemm(args, Bind(Layout::kX8C8, xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x8c8__avx2_madd_prfm,
                              xnn_qd8_f32_qc4w_gemm_minmax_ukernel_4x8c8__avx2_madd_prfm, 4));
}

#elif defined(__aarch64__)

void RunX16C8XnnpackI8mm(const GemmArgs &args) {
  xnnpack::RunGemm(args, Bind(Layout::kX16C8, xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16c8__neoni8mm,
                              xnn_qd8_f32_qc4w_gemm_minmax_ukernel_4x16c8__neoni8mm, 4));
}

void RunX16C4XnnpackNeonDot(const GemmArgs &args) {
  xnnpack::RunGemm(args, Bind(Layout::kX16C4, xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16c4__neondot,
                              xnn_qd8_f32_qc4w_gemm_minmax_ukernel_4x16c4__neondot, 4));
}

void RunX16C1XnnpackNeon(const GemmArgs &args) {
  xnnpack::RunGemm(args, Bind(Layout::kX16C1, xnn_qd8_f32_qc4w_gemm_minmax_ukernel_1x16__neon_mlal_lane,
                              xnn_qd8_f32_qc4w_gemm_minmax_ukernel_6x16__neon_mlal_lane, 6));
}

#endif

}  // namespace acorn::gemm_s8_w4
