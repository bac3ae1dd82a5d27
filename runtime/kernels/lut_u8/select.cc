#include "kernels/lut_u8/kernel.h"
#include "platform/features.h"

namespace acorn::lut_u8 {

#define ACORN_KERNELS "kernels/lut_u8/kernels.inc"
#include "kernels/select.inc"

}  // namespace acorn::lut_u8
