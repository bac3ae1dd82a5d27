#include "kernels/layernorm/kernel.h"
#include "platform/features.h"

namespace acorn::layernorm {

#define ACORN_KERNELS "kernels/layernorm/kernels.inc"
#include "kernels/select.inc"

}  // namespace acorn::layernorm
