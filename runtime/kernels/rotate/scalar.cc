#include "base/fixed_point.h"
#include "kernels/rotate/pairs.h"

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

template <auto kSaturate>
void RotatePairs(const Args &args) {
  using Out = decltype(kSaturate(0));
  ForPairBlocks<Out>(args, [&](const int16_t *x, Out *y, const int16_t *cosine, const int16_t *sine, const int32_t *multiplier,
                               size_t heads) {
    for (size_t head = 0; head < heads; ++head, x += args.head_dim, y += args.head_dim) {
#pragma GCC unroll 1  // written out it is 7 KB of an image
      for (size_t i = 0; i < kBlockPairs; ++i) {
        // NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): pairs are whole blocks
        const int64_t low = x[i] * cosine[i] - x[i + kBlockPairs] * sine[i];
        const int64_t high = x[i + kBlockPairs] * cosine[i] + x[i] * sine[i];
        y[i] = kSaturate(RoundShift(low * multiplier[head], args.shift));
        y[i + kBlockPairs] = kSaturate(RoundShift(high * multiplier[head], args.shift));
      }
    }
  });
}

}  // namespace

void RunS8Scalar(const Args &args) { args.pairs == nullptr ? Rotate<SaturateS8>(args) : RotatePairs<SaturateS8>(args); }
void RunS16Scalar(const Args &args) { args.pairs == nullptr ? Rotate<SaturateS16>(args) : RotatePairs<SaturateS16>(args); }

}  // namespace acorn::rotate
