#include "base/fixed_point.h"
#include "kernels/layernorm/kernel.h"
#include "kernels/rmsnorm/kernel.h"

namespace acorn::layernorm {
namespace {

template <typename Output, Output (*saturate)(int64_t)>
void Rows(const Args &args) {
  for (size_t row = 0; row < args.m; ++row) {
    for (size_t group = 0; group < args.groups; ++group) {
      const size_t first = group * args.depth;
      const int16_t *x = args.x + row * args.x_stride + first;
      Output *y = static_cast<Output *>(args.y) + row * args.y_stride + first;
      int32_t sum = 0;
      uint64_t squares = 0;
      for (size_t i = 0; i < args.depth; ++i) {
        sum += x[i];
        squares += static_cast<uint64_t>(int64_t{x[i]} * x[i]);
      }
      const Normaliser normaliser = NormaliserOf(sum, squares, args);
      for (size_t i = 0; i < args.depth; ++i) {
        const int64_t deviation = static_cast<int64_t>(args.depth) * x[i] - sum;
        const int64_t z = RoundShift(deviation * normaliser.multiplier, normaliser.shift);
        const int64_t sloped = z * args.gamma[first + i] + args.bias[first + i] * (int64_t{1} << kBiasShift);
        y[i] = saturate(RoundShift(sloped, args.shift) + args.zero_point);
      }
    }
  }
}

}  // namespace

Normaliser NormaliserOf(int32_t sum, uint64_t squares, const Args &args) {
  const uint64_t n = args.depth * squares - static_cast<uint64_t>(int64_t{sum} * sum) + args.eps_term;
  if (n == 0) return {sum, 0, 24};
  const rmsnorm::Root root = rmsnorm::RootOf(n);
  return {sum, static_cast<int32_t>(root.r), 24 + root.e};
}

void RunS8Scalar(const Args &args) { Rows<int8_t, SaturateS8>(args); }
void RunS16Scalar(const Args &args) { Rows<int16_t, SaturateS16>(args); }

}  // namespace acorn::layernorm
