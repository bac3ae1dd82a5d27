// SelectGemm: from a format to its family, which picks the variant.
#include "kernels/gemm.h"
#include "kernels/gemm_s8_w2g/kernel.h"
#include "kernels/gemm_s8_w4/kernel.h"
#include "kernels/gemm_s8_w4g/kernel.h"
#include "kernels/gemm_s8_w8/kernel.h"

namespace acorn {

const GemmKernel *SelectGemm(WeightFormat format, Layout layout, uint32_t features) {
  if (!LayoutHolds(layout, format)) return nullptr;
  switch (format) {
    case WeightFormat::kW8:
      return gemm_s8_w8::Select(layout, features);
    case WeightFormat::kW4:
      return gemm_s8_w4::Select(layout, features);
    case WeightFormat::kW4G32:
    case WeightFormat::kW4G64:
    case WeightFormat::kW4G128:
      return gemm_s8_w4g::Select(features);
    case WeightFormat::kW2G32:
      return gemm_s8_w2g::Select(features);
  }
  return nullptr;
}

}  // namespace acorn
