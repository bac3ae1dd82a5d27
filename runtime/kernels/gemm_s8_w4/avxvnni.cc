#include "kernels/gemm_s8_w4/kernel.h"
#include "kernels/xnnpack/isa_avxvnni.h"

namespace acorn::gemm_s8_w4 {
namespace {

template <Layout kLayout>
using Driver = TileDriver<Engine256<AvxVnni<WeightFormat::kW4, kLayout>>>;

}  // namespace

size_t ScratchBytesAvxVnni(size_t m, size_t k) { return Driver<Layout::kX16C8>::ScratchBytes(m, k); }
void RunX16C8AvxVnni(const GemmArgs &args) { Driver<Layout::kX16C8>::Run(args); }
void RunX8C8AvxVnni(const GemmArgs &args) { Driver<Layout::kX8C8>::Run(args); }

}  // namespace acorn::gemm_s8_w4
