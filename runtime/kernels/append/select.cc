#include "kernels/append/kernel.h"
#include "platform/features.h"

namespace acorn::append {

#define ACORN_KERNELS "kernels/append/kernels.inc"
#include "kernels/select.inc"

}  // namespace acorn::append
