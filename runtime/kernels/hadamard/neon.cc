#include "kernels/hadamard/kernel.h"
#include "kernels/simd_neon.h"

namespace acorn::hadamard {
namespace {

// Lanes whose index has the step's bit get partner - own, the others own + partner.
int32x4_t ButterflyOfNeighbours(int32x4_t v) {
  const int32x4_t signs = {1, -1, 1, -1};
  return vmlaq_s32(vrev64q_s32(v), v, signs);
}
int32x4_t ButterflyOfHalves(int32x4_t v) {
  const int32x4_t signs = {1, 1, -1, -1};
  return vmlaq_s32(vextq_s32(v, v, 2), v, signs);
}

/// Blocks of `block` values, less than sixteen, inside sixteen values.
S32x16 TransformParts(S16x16 x, size_t block) {
  S32x16 h = Widen(x);
  for (int32x4_t &four : h.v) {
    if (block > 1) four = ButterflyOfNeighbours(four);
    if (block > 2) four = ButterflyOfHalves(four);
  }
  if (block <= 4) return h;
  return {{vaddq_s32(h.v[0], h.v[1]), vsubq_s32(h.v[0], h.v[1]), vaddq_s32(h.v[2], h.v[3]), vsubq_s32(h.v[2], h.v[3])}};
}

/// A block of sixteen. The step of 8 widens to 32 bits.
S32x16 TransformSixteen(S16x16 x) {
  const int16x4_t low = vget_low_s16(x.v[0]), high = vget_low_s16(x.v[1]);
  const int32x4_t a = vaddl_s16(low, high), b = vaddl_high_s16(x.v[0], x.v[1]);
  const int32x4_t c = vsubl_s16(low, high), d = vsubl_high_s16(x.v[0], x.v[1]);
  S32x16 h = {{vaddq_s32(a, b), vsubq_s32(a, b), vaddq_s32(c, d), vsubq_s32(c, d)}};
  for (int32x4_t &four : h.v) four = ButterflyOfNeighbours(ButterflyOfHalves(four));
  return h;
}

void StoreAll(int32_t *h, S32x16 v) {
  for (int i = 0; i < 4; ++i) vst1q_s32(h + 4 * i, v.v[i]);
}

/// A block of 16 * kParts values, in registers.
template <int kParts>
void TransformRegisters(int32_t *h, const int16_t *x) {
  S32x16 v[kParts];
  for (int i = 0; i < kParts; ++i) v[i] = TransformSixteen(Load(x + 16 * i, kBlock));
  for (int step = 1; step < kParts; step *= 2) {
    for (int i = 0; i < kParts; ++i) {
      if ((i & step) != 0) continue;
      const S32x16 a = v[i], b = v[i + step];
      v[i] = Add(a, b);
      v[i + step] = Subtract(a, b);
    }
  }
  for (int i = 0; i < kParts; ++i) StoreAll(h + 16 * i, v[i]);
}

/// A block of sixteen values or more. Steps up to 32 in registers, those beyond in memory, all but the last of them.
/// Returns: that last step, 0 if there is none
size_t TransformBlock(int32_t *h, const int16_t *x, size_t block) {
  if (block <= 64) {
    block == 16 ? TransformRegisters<1>(h, x) : block == 32 ? TransformRegisters<2>(h, x) : TransformRegisters<4>(h, x);
    return 0;
  }
  for (size_t i = 0; i < block; i += 64) TransformRegisters<4>(h + i, x + i);
  size_t step = 64;
  for (; step < block / 2; step *= 2) {
    for (size_t i = 0; i < block; i += kBlock) {
      if ((i & step) != 0) continue;
      const S32x16 a = Load(h + i, kBlock), b = Load(h + i + step, kBlock);
      StoreAll(h + i, Add(a, b));
      StoreAll(h + i + step, Subtract(a, b));
    }
  }
  return step;
}

// The last step of all.
template <typename Output, typename Scale>
struct Finish {
  using Type = typename Output::Type;
  explicit Finish(const Args &args) : scale(args.shift), factor(vdupq_n_s32(args.multiplier)), zero_point(args.zero_point) {}
  void operator()(Type *y, size_t count, S32x16 h) const { Output::Store(y, count, Apply(scale, h, factor), zero_point); }
  Scale scale;
  int32x4_t factor;
  int32_t zero_point;
};

template <typename Output, typename Scale>
void Rows(const Args &args) {
  int32_t h[kMaxBlock];
  const Finish<Output, Scale> finish(args);
  const size_t n = args.n, block = args.block;
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *x = args.x + row * args.x_stride;
    auto *y = static_cast<typename Output::Type *>(args.y) + row * args.y_stride;
    if (block < kBlock) {
      ForBlocks(n, [=](size_t i, size_t count) ACORN_INLINE_BODY { finish(y + i, count, TransformParts(Load(x + i, count), block)); });
      continue;
    }
    for (size_t begin = 0; begin < n; begin += block) {
      // The step of 64 and more that is the last one is done on the way out.
      const size_t last = TransformBlock(h, x + begin, block);
      for (size_t i = 0; i < block - last; i += kBlock) {
        const S32x16 a = Load(h + i, kBlock);
        if (last == 0) {
          finish(y + begin + i, kBlock, a);
          continue;
        }
        const S32x16 b = Load(h + i + last, kBlock);
        finish(y + begin + i, kBlock, Add(a, b));
        finish(y + begin + i + last, kBlock, Subtract(a, b));
      }
    }
  }
}

template <typename Output>
void RunAs(const Args &args) {
  args.shift >= HighScale::kLeastShift ? Rows<Output, HighScale>(args) : Rows<Output, WideScale>(args);
}

}  // namespace

void RunS8Neon(const Args &args) { RunAs<StoreS8>(args); }
void RunS15Neon(const Args &args) { RunAs<StoreS15>(args); }

}  // namespace acorn::hadamard
