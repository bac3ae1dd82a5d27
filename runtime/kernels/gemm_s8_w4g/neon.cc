#include "kernels/grouped/engine_neon.h"

namespace acorn::gemm_s8_w4g {
namespace {

using Driver = grouped::DriverArm<grouped::EngineNeon<grouped::Nibbles>>;

}  // namespace

size_t ScratchBytesNeon(size_t m, size_t k);
void RunNeon(const GemmArgs &args);

size_t ScratchBytesNeon(size_t m, size_t k) { return Driver::ScratchBytes(m, k); }
void RunNeon(const GemmArgs &args) { Driver::Run(args); }

}  // namespace acorn::gemm_s8_w4g
