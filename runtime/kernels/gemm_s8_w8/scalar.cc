// gemm_s8_w8 in plain C++: the formula, weight by weight through the layout's own functions. The reference of all variants.
#include "acorn_schema/layout_xnnpack.h"
#include "kernels/gemm_s8_w8/kernel.h"

namespace acorn::gemm_s8_w8 {
namespace {

constexpr size_t kMostKr = 8;

void Run(const GemmArgs &args, Layout layout) {
  const size_t kr = XnnKr(layout);
  const uint64_t k_panel = args.k_panel == 0 ? args.k_stored : args.k_panel;
  const XnnMatrix matrix = {WeightFormat::kW8, layout, args.n, args.k_stored, k_panel};
  for (size_t n = args.n_begin; n < args.n_end; ++n) {
    for (size_t m = 0; m < args.m; ++m) args.acc[m * args.acc_stride + n - args.n_begin] = 0;
    for (size_t begin = 0; begin < args.k; begin += kr) {
      const size_t count = args.k - begin < kr ? args.k - begin : kr;
      const XnnWeightPlace place = XnnWeight(matrix, n, begin);  // kr weights are neighbours
      int32_t weights[kMostKr] = {};
      for (size_t i = 0; i < count; ++i) {
        const uint32_t bits = args.w[place.offset + i] >> place.shift;
        weights[i] = XnnDecode(matrix.format, layout, bits);
      }
      for (size_t m = 0; m < args.m; ++m) {
        const int8_t *x = args.x + m * args.x_stride + begin;
        int32_t sum = 0;
        for (size_t i = 0; i < count; ++i) sum += x[i] * weights[i];
        int32_t &acc = args.acc[m * args.acc_stride + n - args.n_begin];
        acc = static_cast<int32_t>(static_cast<uint32_t>(acc) + static_cast<uint32_t>(sum));  // wraps if a file lies
      }
    }
  }
}

}  // namespace

size_t ScratchBytesScalar(size_t, size_t) { return 0; }
void RunX16C8Scalar(const GemmArgs &args) { Run(args, Layout::kX16C8); }
void RunX8C8Scalar(const GemmArgs &args) { Run(args, Layout::kX8C8); }
void RunX16C4Scalar(const GemmArgs &args) { Run(args, Layout::kX16C4); }
void RunX8C2S4Scalar(const GemmArgs &args) { Run(args, Layout::kX8C2S4); }

}  // namespace acorn::gemm_s8_w8
