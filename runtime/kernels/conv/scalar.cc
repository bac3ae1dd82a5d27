#include "base/fixed_point.h"
#include "kernels/conv/kernel.h"

namespace acorn::conv {
namespace {

constexpr size_t kBlock = 64;  // columns whose sums lie on the stack

void Activate(const Args &args, const int32_t *acc, size_t first, size_t count, int16_t *y) {
  for (size_t i = 0; i < count; ++i) {
    const size_t c = first + i;
    const int64_t v = SaturateS16(RoundShift(int64_t{acc[i]} * args.multiplier[c], args.shift));
    const int64_t w = Clamp(RoundShift(v * args.index_multiplier[c], args.index_shift), -32768, 32767) + 32768;
    const int16_t *entry = args.table + (w >> 7);
    const int64_t t = entry[0] + RoundShift((entry[1] - entry[0]) * (w & 127), 7);
    y[i] = static_cast<int16_t>(RoundShift(v * t, 15));
  }
}

}  // namespace

void KeepHistory(const Args &args) {
  const size_t kept = args.taps - 1;
  for (size_t i = 0; i < kept; ++i) {  // upwards: what is moved lies above what it moves to
    const int16_t *from = RowBefore(args, args.m, kept - i);
    __builtin_memcpy(args.history + i * args.parameter_stride, from, args.n * sizeof(int16_t));
  }
}

void RunScalar(const Args &args) {
  for (size_t r = 0; r < args.m; ++r) {
    for (size_t first = 0; first < args.n; first += kBlock) {
      const size_t count = args.n - first < kBlock ? args.n - first : kBlock;
      int32_t acc[kBlock];
      for (size_t i = 0; i < count; ++i) acc[i] = args.bias[first + i];
      for (size_t j = 0; j < args.taps; ++j) {
        const int16_t *x = RowBefore(args, r, args.taps - 1 - j) + first;
        const int16_t *w = args.weights + j * args.parameter_stride + first;
        for (size_t i = 0; i < count; ++i) acc[i] += int32_t{w[i]} * x[i];
      }
      Activate(args, acc, first, count, args.y + r * args.y_stride + first);
    }
  }
  KeepHistory(args);
}

}  // namespace acorn::conv
