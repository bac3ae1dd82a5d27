#include "kernels/rmsnorm/kernel.h"
#include "platform/features.h"

namespace acorn::rmsnorm {

#define ACORN_KERNELS "kernels/rmsnorm/kernels.inc"
#include "kernels/select.inc"

}  // namespace acorn::rmsnorm
