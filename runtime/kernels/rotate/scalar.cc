#include "base/fixed_point.h"
#include "kernels/rotate/kernel.h"

namespace acorn::rotate {
namespace {

template <auto kSaturate>
void Rotate(const Args &args) {
  using Out = decltype(kSaturate(0));
  const size_t h = args.half;
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *cosine = args.cosine + row * h;
    const int16_t *sine = args.sine + row * h;
    for (size_t head = 0; head < args.heads; ++head) {
      const int16_t *x = args.x + row * args.x_stride + head * args.head_dim;
      Out *y = static_cast<Out *>(args.y) + row * args.y_stride + head * args.head_dim;
      const int64_t multiplier = args.multiplier[head];
      for (size_t i = 0; i < h; ++i) {
        const int64_t low = x[i] * cosine[i] - x[i + h] * sine[i];
        const int64_t high = x[i + h] * cosine[i] + x[i] * sine[i];
        y[i] = kSaturate(RoundShift(low * multiplier, args.shift));
        y[i + h] = kSaturate(RoundShift(high * multiplier, args.shift));
      }
      for (size_t i = 2 * h; i < args.head_dim; ++i) {
        y[i] = kSaturate(RoundShift((int64_t{x[i]} * 16384) * multiplier, args.shift));
      }
    }
  }
}

}  // namespace

void RunS8Scalar(const Args &args) { Rotate<SaturateS8>(args); }
void RunS16Scalar(const Args &args) { Rotate<SaturateS16>(args); }

}  // namespace acorn::rotate
