#include "base/exp2.h"
#include "base/fixed_point.h"
#include "kernels/scan/kernel.h"

namespace acorn::scan {

int32_t StepSize(const Head &head, int16_t raw) {
  const int64_t v = RoundShift(int64_t{raw} * head.dt_multiplier, head.dt_shift) + head.dt_bias;
  const int64_t magnitude = v < 0 ? -v : v;
  int64_t rest = 0;
  if (magnitude < 1 << 20) {
    const int32_t *entry = head.table + (magnitude >> 10);
    rest = entry[0] + RoundShift((int64_t{entry[1]} - entry[0]) * (magnitude & 1023), 10);
  }
  return static_cast<int32_t>(Clamp((v > 0 ? v : 0) * 256 + rest, head.dt_least, head.dt_most));
}

Step StepOf(const Head &head, int16_t raw) {
  const int64_t dt = StepSize(head, raw);
  const int64_t octaves = RoundShift(dt * head.decay_multiplier, head.decay_shift);
  const int64_t decay = RoundShift(Exp2NegQ31(static_cast<uint64_t>(octaves)), 1);
  constexpr int64_t kInputLimit = (int64_t{1} << 46) - 1;
  const int64_t input = RoundShift(dt * head.input_multiplier, head.input_shift);
  return {static_cast<int32_t>(decay < kStateLimit ? decay : kStateLimit), input < kInputLimit ? input : kInputLimit};
}

void RunScalar(const Args &args) {
  for (size_t r = 0; r < args.m; ++r) {
    const int16_t *x = args.x + r * args.x_stride, *b = args.b + r * args.b_stride, *c = args.c + r * args.c_stride;
    int16_t *y = args.y + r * args.y_stride;
    const Step step = StepOf(args.head, args.dt[r * args.dt_stride]);
    ForChannels(args, [&](size_t p, size_t at) {
      const int64_t w = InputOf(step, x[at]);
      int32_t *state = args.state + p * args.state_stride;
      int64_t sum = 0;
      for (size_t n = 0; n < args.n; ++n) {
        const int64_t kept = RoundShift(int64_t{state[n]} * step.decay, 30);
        state[n] = static_cast<int32_t>(Clamp(kept + RoundShift(b[n] * w, 15), -kStateLimit, kStateLimit));
        sum += int64_t{c[n]} * state[n];
      }
      y[at] = OutputOf(args, sum, x[at]);
    });
  }
}

}  // namespace acorn::scan
