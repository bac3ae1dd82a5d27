#include "kernels/scan/kernel.h"
#include "platform/features.h"

namespace acorn::scan {

#define ACORN_KERNELS "kernels/scan/kernels.inc"
#include "kernels/select.inc"

}  // namespace acorn::scan
