#include "kernels/grouped/engine_avx2.h"

namespace acorn::gemm_s8_w4g {
namespace {

using Driver = grouped::Driver<grouped::Engine256<grouped::Avx2Ops, grouped::Nibbles256>>;

}  // namespace

size_t ScratchBytesAvx2(size_t m, size_t k);
void RunAvx2(const GemmArgs &args);

size_t ScratchBytesAvx2(size_t m, size_t k) { return Driver::ScratchBytes(m, k); }
void RunAvx2(const GemmArgs &args) { Driver::Run(args); }

}  // namespace acorn::gemm_s8_w4g
