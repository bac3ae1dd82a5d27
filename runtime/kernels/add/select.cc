#include "kernels/add/kernel.h"
#include "platform/features.h"

namespace acorn::add {

#define ACORN_KERNELS "kernels/add/kernels.inc"
#include "kernels/select.inc"

}  // namespace acorn::add
