#include "kernels/lut_u8/kernel.h"

namespace acorn::lut_u8 {

void RunScalar(const Args &args) {
  for (size_t i = 0; i < args.n; ++i) args.y[i] = args.table[args.x[i]];
}

}  // namespace acorn::lut_u8
