#include "kernels/glu/kernel.h"
#include "platform/features.h"

namespace acorn::glu {

#define ACORN_KERNELS "kernels/glu/kernels.inc"
#include "kernels/select.inc"

}  // namespace acorn::glu
