#include "kernels/scan/kernel.h"
#include "kernels/simd_neon.h"

namespace acorn::scan {
namespace {

struct Sums {
  int64x2_t low, high;
};

// `count` columns of one channel, at most sixteen.
//   RoundShift(s * a, 30) is the rounding doubling multiply of s and 2a, RoundShift(b * w, 15) that of 2^16 b and w.
__attribute__((always_inline)) inline Sums Advance(int32_t *state, const int16_t *b, const int16_t *c, size_t count, int32x4_t twice_a,
                                                   int32x4_t w, Sums sums) {
  const int32x4_t limit = vdupq_n_s32((1 << 30) - 1), least = vdupq_n_s32(1 - (1 << 30));
  S32x16 next = Load(state, count);
  const S32x16 bs = Widen(Load(b, count)), cs = Widen(Load(c, count));
  for (int i = 0; i < 4; ++i) {
    const int32x4_t kept = vqrdmulhq_s32(next.v[i], twice_a), added = vqrdmulhq_s32(vshlq_n_s32(bs.v[i], 16), w);
    next.v[i] = vminq_s32(vmaxq_s32(vaddq_s32(kept, added), least), limit);
    sums.low = vmlal_s32(sums.low, vget_low_s32(cs.v[i]), vget_low_s32(next.v[i]));
    sums.high = vmlal_high_s32(sums.high, cs.v[i], next.v[i]);
  }
  int32_t values[kBlock];
  int32_t *to = count == kBlock ? state : values;
  for (int i = 0; i < 4; ++i) vst1q_s32(to + 4 * i, next.v[i]);
  if (count != kBlock) __builtin_memcpy(state, values, count * sizeof(int32_t));
  return sums;
}

}  // namespace

void RunNeon(const Args &args) {
  for (size_t r = 0; r < args.m; ++r) {
    const int16_t *x = args.x + r * args.x_stride, *b = args.b + r * args.b_stride, *c = args.c + r * args.c_stride;
    const Step step = StepOf(args.head, args.dt[r * args.dt_stride]);
    const int32x4_t twice_a = vdupq_n_s32(2 * step.decay);
    ForChannels(args, [&](size_t p, size_t at) {
      const int32x4_t w = vdupq_n_s32(InputOf(step, x[at]));
      int32_t *state = args.state + p * args.state_stride;
      Sums sums = {vdupq_n_s64(0), vdupq_n_s64(0)};
      size_t i = 0;
      for (; args.n - i >= kBlock; i += kBlock) sums = Advance(state + i, b + i, c + i, kBlock, twice_a, w, sums);
      if (i != args.n) sums = Advance(state + i, b + i, c + i, args.n - i, twice_a, w, sums);
      args.y[r * args.y_stride + at] = OutputOf(args, vaddvq_s64(vaddq_s64(sums.low, sums.high)), x[at]);
    });
  }
}

}  // namespace acorn::scan
