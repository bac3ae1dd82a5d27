// lut_u8 by XNNPACK's microkernels, which take rows of at least one byte.
#include "kernels/lut_u8/kernel.h"
#include "kernels/xnnpack/microkernels.h"

namespace acorn::lut_u8 {
namespace {

// Some of them read x 16 bytes at a time to the end: they get whole sixteens.
void RunSixteens(const Args &args, xnnpack::LutMicrokernel *microkernel) {
  const size_t whole = args.n / 16 * 16;
  if (whole != 0) microkernel(whole, args.x, args.y, args.table);
  for (size_t i = whole; i < args.n; ++i) args.y[i] = args.table[args.x[i]];
}

}  // namespace

#if defined(__x86_64__)

void RunXnnpackAvx512(const Args &args) {
  if (args.n != 0) xnn_x8_lut_ukernel__avx512skx_vpshufb_u64(args.n, args.x, args.y, args.table);
}

void RunXnnpackAvx2(const Args &args) { RunSixteens(args, xnn_x8_lut_ukernel__avx2_u128); }

#elif defined(__aarch64__)

void RunXnnpackNeon(const Args &args) { RunSixteens(args, xnn_x8_lut_ukernel__aarch64_neon_tbx128x4_u64); }

#endif

}  // namespace acorn::lut_u8
