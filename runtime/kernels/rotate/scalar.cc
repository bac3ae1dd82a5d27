#include "base/fixed_point.h"
#include "kernels/rotate/kernel.h"

namespace acorn::rotate {

void RunScalar(const Args &args) {
  const size_t h = args.half;
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *cosine = args.cosine + row * h;
    const int16_t *sine = args.sine + row * h;
    for (size_t head = 0; head < args.heads; ++head) {
      const int16_t *x = args.x + row * args.x_stride + head * args.head_dim;
      int8_t *y = args.y + row * args.y_stride + head * args.head_dim;
      const int64_t multiplier = args.multiplier[head];
      for (size_t i = 0; i < h; ++i) {
        const int64_t low = x[i] * cosine[i] - x[i + h] * sine[i];
        const int64_t high = x[i + h] * cosine[i] + x[i] * sine[i];
        y[i] = SaturateS8(RoundShift(low * multiplier, args.shift));
        y[i + h] = SaturateS8(RoundShift(high * multiplier, args.shift));
      }
      for (size_t i = 2 * h; i < args.head_dim; ++i) {
        y[i] = SaturateS8(RoundShift((int64_t{x[i]} * 16384) * multiplier, args.shift));
      }
    }
  }
}

}  // namespace acorn::rotate
