#include "base/fixed_point.h"
#include "kernels/hadamard/kernel.h"

namespace acorn::hadamard {
namespace {

int16_t SaturateS15(int64_t value) { return static_cast<int16_t>(Clamp(value, -16320, 16319)); }

template <typename Output, Output (*saturate)(int64_t)>
void Rows(const Args &args) {
  int32_t h[kMaxBlock];
  for (size_t row = 0; row < args.m; ++row) {
    for (size_t begin = 0; begin < args.n; begin += args.block) {
      const int16_t *x = args.x + row * args.x_stride + begin;
      Output *y = static_cast<Output *>(args.y) + row * args.y_stride + begin;
      for (size_t i = 0; i < args.block; ++i) h[i] = x[i];
      for (size_t step = 1; step < args.block; step *= 2) {
        for (size_t i = 0; i < args.block; ++i) {
          if ((i & step) != 0) continue;
          // NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign): a block is a power of two, all of it was copied
          const int32_t a = h[i], b = h[i + step];
          h[i] = a + b;
          h[i + step] = a - b;
        }
      }
      for (size_t i = 0; i < args.block; ++i) {
        y[i] = saturate(RoundShift(int64_t{h[i]} * args.multiplier, args.shift) + args.zero_point);
      }
    }
  }
}

}  // namespace

void RunS8Scalar(const Args &args) { Rows<int8_t, SaturateS8>(args); }
void RunS15Scalar(const Args &args) { Rows<int16_t, SaturateS15>(args); }

}  // namespace acorn::hadamard
