// gemm_s8_w8 by XNNPACK's microkernels (kernels/xnnpack/gemm.h): which ones, for which layout.
#include "kernels/gemm_s8_w8/kernel.h"
#include "kernels/xnnpack/gemm.h"

namespace acorn::gemm_s8_w8 {
namespace {

constexpr xnnpack::Gemm Bind(Layout layout, xnnpack::GemmMicrokernel *one_row, xnnpack::GemmMicrokernel *rows, uint32_t mr) {
  return {WeightFormat::kW8, layout, one_row, rows, mr};
}

}  // namespace

size_t ScratchBytesXnnpack(size_t m, size_t k) { return xnnpack::GemmScratchBytes(m, k); }

#if defined(__x86_64__)

void RunX16C8XnnpackAvx512Vnni(const GemmArgs &args) {
  xnnpack::RunGemm(args, Bind(Layout::kX16C8, xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x16c8__avx512vnni_prfm,
                              xnn_qd8_f32_qc8w_gemm_minmax_ukernel_10x16c8__avx512vnni_prfm, 10));
}

void RunX8C8XnnpackAvxVnni(const GemmArgs &args) {
  xnnpack::RunGemm(args, Bind(Layout::kX8C8, xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x8c8__avxvnni_prfm,
                              xnn_qd8_f32_qc8w_gemm_minmax_ukernel_5x8c8__avxvnni_prfm, 5));
}

void RunX8C8XnnpackAvx2(const GemmArgs &args) {
  xnnpack::RunGemm(args, Bind(Layout::kX8C8, xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x8c8__avx2,
                              xnn_qd8_f32_qc8w_gemm_minmax_ukernel_4x8c8__avx2, 4));
}

#elif defined(__aarch64__)

void RunX16C8XnnpackI8mm(const GemmArgs &args) {
  xnnpack::RunGemm(args, Bind(Layout::kX16C8, xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x16c8__neoni8mm,
                              xnn_qd8_f32_qc8w_gemm_minmax_ukernel_4x16c8__neoni8mm, 4));
}

void RunX16C4XnnpackNeonDot(const GemmArgs &args) {
  xnnpack::RunGemm(args, Bind(Layout::kX16C4, xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x16c4__neondot,
                              xnn_qd8_f32_qc8w_gemm_minmax_ukernel_4x16c4__asm_aarch64_neondot_ld128, 4));
}

void RunX8C2S4XnnpackNeon(const GemmArgs &args) {
  xnnpack::RunGemm(args, Bind(Layout::kX8C2S4, xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x8c2s4__neon_mlal,
                              xnn_qd8_f32_qc8w_gemm_minmax_ukernel_2x8c2s4__neon_mlal, 2));
}

#endif

}  // namespace acorn::gemm_s8_w8
