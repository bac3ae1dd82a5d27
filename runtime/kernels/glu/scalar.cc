#include "base/fixed_point.h"
#include "kernels/glu/kernel.h"

namespace acorn::glu {

void RunScalar(const Args &args) {
  for (size_t row = 0; row < args.m; ++row) {
    const int16_t *gate = args.gate + row * args.gate_stride;
    const int16_t *up = args.up + row * args.up_stride;
    int16_t *y = args.y + row * args.y_stride;
    for (size_t i = 0; i < args.n; ++i) {
      const int64_t scaled = RoundShift(int64_t{gate[i]} * args.index_multiplier, args.index_shift);
      const int64_t w = Clamp(scaled, -32768, 32767) + 32768;
      const int16_t *entry = args.table + (w >> 7);
      const int64_t t = entry[0] + RoundShift((entry[1] - entry[0]) * (w & 127), 7);
      y[i] = SaturateS16(RoundShift(RoundShift(gate[i] * t, 8) * up[i], args.shift));
    }
  }
}

int32_t SaturatingGate(int32_t index_multiplier, int32_t index_shift) {
  constexpr int64_t kLargest = 32768;
  const int64_t magnitude = index_multiplier < 0 ? -int64_t{index_multiplier} : index_multiplier;
  if (magnitude == 0 || index_shift > 47) return kLargest;
  const int64_t gate = ((kLargest + 1) << index_shift) / magnitude + 1;
  return static_cast<int32_t>(gate < kLargest ? gate : kLargest);
}

}  // namespace acorn::glu
