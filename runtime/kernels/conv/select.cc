#include "kernels/conv/kernel.h"
#include "platform/features.h"

namespace acorn::conv {

#define ACORN_KERNELS "kernels/conv/kernels.inc"
#include "kernels/select.inc"

}  // namespace acorn::conv
