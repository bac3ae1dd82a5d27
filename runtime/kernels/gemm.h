// Matrix kernels: the one contract of all families (gemm_s8_w8, gemm_s8_w4, gemm_s8_w4g, gemm_s8_w2g). A kernel computes exact int32 dot
// products of int8 rows with packed weights; scaling to an output type is requantise's work. It allocates nothing and cannot fail.
#pragma once

#include <cstddef>
#include <cstdint>

#include "acorn_schema/layout.h"

namespace acorn {

/// acc[m][n - n_begin] = sum over k of x[m][k] * w[n][k]                        per-channel formats
///                     = sum over g of mult[n][g] * (sum over k in g of the same)  grouped formats
/// x in [-127, 127].  The compiler bounds every sum of a row below 2^31; kernels do not check.
struct GemmArgs {
  const int8_t *x;   // [m, k]
  size_t x_stride;   // bytes from row to row; a kernel reads exactly k bytes of a row
  const uint8_t *w;  // the whole packed matrix, 64-byte aligned
  size_t m;          // rows, >= 1
  size_t k;           // the first columns of the matrix: whole groups or panels, or all
  size_t k_stored;    // columns of the whole matrix
  uint32_t group;     // elements along k with one multiplier; 0 for per-channel formats
  uint32_t k_panel;   // per-channel formats: depth of a separately packed panel; 0 or k_stored: one panel. Grouped formats: 0
  size_t n_begin;     // first channel, a multiple of the kernel's nr
  size_t n_end;       // one past the last, any value up to n padded to nr
  size_t n;           // channels of the whole matrix: with k_panel, what lies between two panels. Grouped formats ignore it
  int32_t *acc;       // [m, n_end - n_begin], overwritten
  size_t acc_stride;  // elements from row to row
  uint8_t *scratch;   // scratch_bytes(m, k) of the kernel, 64-byte aligned, one for each thread
  // Grouped formats: so many runs of channels like [n_begin, n_end), each run_step behind the one before; their sums stand side by
  // side. With more than one a run is whole tiles long.
  size_t runs = 1;
  size_t run_step = 0;  // channels, a multiple of nr
  // The call before on this scratch had the same x, m and k: what the kernel made of x is still there. false: not known
  bool prepared = false;
};

struct GemmKernel {
  const char *name;  // <mr>x<nr>c<kr>__<isa>
  uint32_t needs;    // Feature bits
  uint8_t mr;        // rows that one pass over unpacked weights serves
  uint8_t nr;        // n_begin is a multiple of it
  uint8_t kr;
  Layout layout;
  size_t (*scratch_bytes)(size_t m, size_t k);  // grows with m and k
  void (*run)(const GemmArgs &args);
};

/// The best kernel of a format and layout for a set of Feature bits. Never null where LayoutHolds(layout, format), since the scalar
/// kernel of a family needs no feature and reads every layout; null otherwise.
const GemmKernel *SelectGemm(WeightFormat format, Layout layout, uint32_t features);

}  // namespace acorn
