#include "kernels/grouped/engine_i8mm.h"

namespace acorn::gemm_s8_w2g {
namespace {

using Driver = grouped::DriverArm<grouped::EngineI8mm<grouped::Crumbs>>;

}  // namespace

size_t ScratchBytesI8mm(size_t m, size_t k);
void RunI8mm(const GemmArgs &args);

size_t ScratchBytesI8mm(size_t m, size_t k) { return Driver::ScratchBytes(m, k); }
void RunI8mm(const GemmArgs &args) { Driver::Run(args); }

}  // namespace acorn::gemm_s8_w2g
