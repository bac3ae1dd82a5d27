#include "kernels/grouped/engine_neondot.h"

namespace acorn::gemm_s8_w2g {
namespace {

using Driver = grouped::DriverArm<grouped::EngineNeonDot<grouped::Crumbs>>;

}  // namespace

size_t ScratchBytesNeonDot(size_t m, size_t k);
void RunNeonDot(const GemmArgs &args);

size_t ScratchBytesNeonDot(size_t m, size_t k) { return Driver::ScratchBytes(m, k); }
void RunNeonDot(const GemmArgs &args) { Driver::Run(args); }

}  // namespace acorn::gemm_s8_w2g
