// lut_u8 by XNNPACK's microkernels, which take rows of at least one byte.
#include "kernels/lut_u8/kernel.h"
#include "kernels/xnnpack/microkernels.h"

namespace acorn::lut_u8 {

void RunXnnpackAvx512(const Args &args) {
  if (args.n != 0) xnn_x8_lut_ukernel__avx512skx_vpshufb_u64(args.n, args.x, args.y, args.table);
}

// This one reads 16 bytes at a time to the end: it gets whole sixteens.
void RunXnnpackAvx2(const Args &args) {
  const size_t whole = args.n / 16 * 16;
  if (whole != 0) xnn_x8_lut_ukernel__avx2_u128(whole, args.x, args.y, args.table);
  for (size_t i = whole; i < args.n; ++i) args.y[i] = args.table[args.x[i]];
}

}  // namespace acorn::lut_u8
