#include "kernels/attention/kernel.h"
#include "platform/features.h"

namespace acorn::attention {

#define ACORN_KERNELS "kernels/attention/kernels.inc"
#include "kernels/select.inc"

}  // namespace acorn::attention
