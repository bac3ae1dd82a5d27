#include "kernels/hadamard/kernel.h"
#include "platform/features.h"

namespace acorn::hadamard {

#define ACORN_KERNELS "kernels/hadamard/kernels.inc"
#include "kernels/select.inc"

}  // namespace acorn::hadamard
