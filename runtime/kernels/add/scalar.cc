#include "base/fixed_point.h"
#include "kernels/add/kernel.h"

namespace acorn::add {

void RunScalar(const Args &args) {
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *a = args.a + row * args.a_stride;
    const int16_t *b = args.b + row * args.b_stride;
    int16_t *y = args.y + row * args.y_stride;
    for (size_t i = 0; i < args.n; ++i) {
      const int64_t sum = int64_t{a[i]} * args.a_multiplier + int64_t{b[i]} * args.b_multiplier;
      y[i] = SaturateS16(RoundShift(sum, args.shift));
    }
  }
}

}  // namespace acorn::add
