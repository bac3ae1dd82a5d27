#include "kernels/rotate/kernel.h"
#include "platform/features.h"

namespace acorn::rotate {

#define ACORN_KERNELS "kernels/rotate/kernels.inc"
#include "kernels/select.inc"

}  // namespace acorn::rotate
