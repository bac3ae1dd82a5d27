#include "kernels/gemm_s8_w8/kernel.h"
#include "kernels/xnnpack/isa_avx2.h"

namespace acorn::gemm_s8_w8 {
namespace {

template <Layout kLayout>
using Driver = TileDriver<Engine256<Avx2<WeightFormat::kW8, kLayout>>>;

}  // namespace

size_t ScratchBytesAvx2(size_t m, size_t k) { return Driver<Layout::kX16C8>::ScratchBytes(m, k); }
void RunX16C8Avx2(const GemmArgs &args) { Driver<Layout::kX16C8>::Run(args); }
void RunX8C8Avx2(const GemmArgs &args) { Driver<Layout::kX8C8>::Run(args); }

}  // namespace acorn::gemm_s8_w8
