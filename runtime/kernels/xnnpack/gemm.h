// XNNPACK's per-channel matrix microkernels as exact integer engines. With scales of 1, bias 0 and clamps at infinity the float32
// that they store is the int32 sum, exactly, while it is below 2^24 (the panels of layout_xnnpack.h see to that): no float is
// ever rounded. For the xnnpack.cc of gemm_s8_w8 and gemm_s8_w4.
#pragma once

#include "kernels/gemm.h"
#include "kernels/xnnpack/microkernels.h"

namespace acorn::xnnpack {

/// A pair of microkernels that read the same layout: for one row, and for up to `mr` (at most kMaxRows) rows.
struct Gemm {
  WeightFormat format;
  Layout layout;
  GemmMicrokernel *one_row;
  GemmMicrokernel *rows;
  uint32_t mr;
};

constexpr size_t kMaxRows = 16;

size_t GemmScratchBytes(size_t m, size_t k);
void RunGemm(const GemmArgs &args, const Gemm &gemm);

}  // namespace acorn::xnnpack
