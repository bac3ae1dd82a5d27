#include "kernels/gemm_s8_w4/kernel.h"
#include "kernels/xnnpack/engine_avx512vnni.h"

namespace acorn::gemm_s8_w4 {
namespace {

using Driver = TileDriver<Avx512VnniEngine<WeightFormat::kW4>>;

}  // namespace

size_t ScratchBytesAvx512Vnni(size_t m, size_t k) { return Driver::ScratchBytes(m, k); }
void RunX16C8Avx512Vnni(const GemmArgs &args) { Driver::Run(args); }

}  // namespace acorn::gemm_s8_w4
